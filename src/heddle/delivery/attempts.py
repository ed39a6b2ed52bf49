"""A handler's call that failed: classed, and tried again at once where a moment may mend it.

The quick tries of one run count as one attempt: nothing is written between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import stamina

from heddle.delivery.classify import Classifier, is_unknown_effect, retry_after_s
from heddle.errors import Failure, FailureClass, TransientError
from heddle.on_failure import DEFAULT, OnFailure

T = TypeVar("T")

LONGEST_WAIT_S = 1.0
"""What counts as a moment."""


class DeadlineError(TransientError):
    """The handler took too long. Not tried again at once: that is no failure of a moment."""

    code = "deadline"


class _Again(Exception):
    """What stamina sees, and its log lines show, instead of the handler's exception, which may hold payload content."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """`tries` includes the first. Waits grow from `delay_s`, at most to `longest_wait_s`. `streak`:
    after so many transient failures in a row a run that goes record by record ends early."""

    classifier: Classifier
    tries: int = 1
    delay_s: float = 0.05
    longest_wait_s: float = LONGEST_WAIT_S
    streak: int = DEFAULT.breaker.keys

    @staticmethod
    def of(policy: OnFailure, deadline_s: float) -> Attempts:
        """`deadline_s`: of one call. A wait stays far below it, because what watches over calls sees it as one."""
        longest_wait_s = min(LONGEST_WAIT_S, deadline_s / 4)
        quick_tries, quick_delay_s = policy.quick_tries, policy.quick_delay_s
        return Attempts(Classifier(policy.classes), quick_tries, quick_delay_s, longest_wait_s, policy.breaker.keys)

    def failed(
        self, index: int, error: BaseException, began_s: float, call: Callable[[], T], may_begin: Callable[[], bool]
    ) -> T | Failure:
        """After `error`, which `call` raised, begun at `began_s` (`time.monotonic`): what a further try returns, or
        the last failure. `may_begin` is asked before each wait and before each try."""
        result: T | Failure = self.classifier.failure_of(index, error)
        if not self._is_passing(result, began_s):
            return result
        with contextlib.suppress(_Again):
            for attempt in self._waits():
                with attempt:
                    if attempt.num > 1 and may_begin():
                        began_s = time.monotonic()
                        try:
                            result = call()
                        except (Exception, SystemExit) as again:
                            result = self.classifier.failure_of(index, again)
                    if not (self._is_passing(result, began_s) and may_begin()):
                        return result
                    raise _Again
        return result

    async def failed_async(
        self, index: int, error: BaseException, began_s: float, call: Callable[[], Awaitable[T]],
        may_begin: Callable[[], bool],
    ) -> T | Failure:  # fmt: skip
        """`failed`, for a call that is awaited."""
        result: T | Failure = self.classifier.failure_of(index, error)
        if not self._is_passing(result, began_s):
            return result
        with contextlib.suppress(_Again):
            async for attempt in self._waits():
                with attempt:
                    if attempt.num > 1 and may_begin():
                        began_s = time.monotonic()
                        try:
                            result = await call()
                        except (Exception, SystemExit) as again:
                            result = self.classifier.failure_of(index, again)
                    if not (self._is_passing(result, began_s) and may_begin()):
                        return result
                    raise _Again
        return result

    def _is_passing(self, result: object, began_s: float) -> bool:
        """Whether a moment may mend it. Not what took longer than a moment to fail: of slow failures a batch would
        hold too few for the breaker to see them."""
        return (
            isinstance(result, Failure)
            and result.failure_class is FailureClass.TRANSIENT
            and self.tries > 1
            and not isinstance(result.error, DeadlineError)
            and not is_unknown_effect(result)
            and retry_after_s(result) is None
            and time.monotonic() - began_s <= LONGEST_WAIT_S
        )

    def _waits(self) -> Any:
        return stamina.retry_context(
            on=_Again,
            attempts=self.tries,
            timeout=None,
            wait_initial=self.delay_s,
            wait_jitter=self.delay_s,
            wait_max=self.longest_wait_s,
        )
