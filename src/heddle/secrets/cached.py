"""A store's answers, for as long as they may be used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from heddle.errors import DependencyDownError
from heddle.secrets.provider import Found, Provider

GRACE_S = 3600.0
"""How long a value that should be asked for anew stays in use while its store does not answer."""
RETRY_S = 15.0
"""After which such a store is asked again, so that nobody waits for its time-outs with each use."""

log = structlog.get_logger("heddle.secrets")


@dataclass(slots=True)
class _Answer:
    """Times are of the clock. `found` is None where the store does not have the name: that is an answer too."""

    found: Found | None
    fresh_until: float
    usable_until: float


class Cached:
    """A provider in front of a store. Any thread; one request at a time, and those who have a fresh value do not wait
    for it.

    An answer is asked for anew once its refresh time (or two thirds of its lease) is over. The new value replaces the
    old one, a name that is gone is gone, a refusal is raised. A store that does not answer leaves the old value in use
    for `GRACE_S`, never beyond its lease."""

    def __init__(self, provider: Provider, refresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = provider.name
        self._provider = provider
        self._refresh_s = refresh_s
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def look_up(self, name: str) -> Found | None:
        answer = self._fresh(name)
        if answer is None:
            with self._lock:
                answer = self._fresh(name) or self._asked(name)
        return answer.found

    def advice(self, name: str) -> str:
        return self._provider.advice(name)

    def forget(self, name: str) -> None:
        """The next use asks the store; only if that does not answer, the old value still counts."""
        answer = self._answers.get(name)
        if answer is not None:
            answer.fresh_until = float("-inf")

    def forget_all(self) -> None:
        for name in list(self._answers):
            self.forget(name)

    def _fresh(self, name: str) -> _Answer | None:
        answer = self._answers.get(name)
        return answer if answer is not None and self._clock() < answer.fresh_until else None

    def _asked(self, name: str) -> _Answer:
        asked_at = self._clock()
        try:
            found = self._provider.look_up(name)
        except DependencyDownError as error:
            return self._kept(name, error)
        except BaseException:
            self._answers.pop(name, None)
            raise
        answer = self._answers[name] = self._answer(found, asked_at)
        return answer

    def _answer(self, found: Found | None, asked_at: float) -> _Answer:
        fresh_s, valid_s = self._refresh_s, float("inf")
        if found is not None:
            fresh_s = self._refresh_s if found.fresh_s is None else found.fresh_s
            valid_s = float("inf") if found.valid_s is None else found.valid_s
        fresh_s = min(fresh_s, valid_s)
        return _Answer(found, asked_at + fresh_s, asked_at + min(fresh_s + GRACE_S, valid_s))

    def _kept(self, name: str, error: DependencyDownError) -> _Answer:
        answer, now = self._answers.get(name), self._clock()
        if answer is None or answer.found is None or now >= answer.usable_until:
            raise error
        log.warning(
            "secret.kept", secret=name, provider=self.name, error=str(error), usable_s=round(answer.usable_until - now)
        )
        answer.fresh_until = min(now + RETRY_S, answer.usable_until)
        return answer
