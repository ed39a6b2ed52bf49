"""The circuit breaker: when many keys fail alike, the subscription pauses instead of parking them one by one.

Alike: about one target, where the failure names it, else by fingerprint. Only transient and unknown failures count:
what is wrong with a record says nothing about a target. The window is looked at from its end: what succeeded before an
outage began must not hide it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from heddle.delivery.classify import fingerprint, is_unknown_effect, target_of
from heddle.delivery.rolling import Rolling
from heddle.errors import Failure, FailureClass
from heddle.on_failure import Breaker

MAX_GROUPS = 1_000
"""Kinds of failures that a slice of the window tells apart; beyond them none of a new kind is counted by kind."""

_FEEDING = (FailureClass.TRANSIENT, FailureClass.UNKNOWN)


class BreakerState(StrEnum):
    """`HALF_OPEN`: a probe is due, and has not been answered."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


def feeds(failure: Failure) -> bool:
    """Whether the failure says something about the target."""
    return failure.failure_class in _FEEDING


def decides(failure: Failure) -> bool:
    """Whether a probe that ended so says that the target is still down, or must not be asked. What is wrong with the
    record alone leaves it undecided, and so does an effect that nobody knows of: it may be of long ago."""
    return failure.failure_class not in (FailureClass.CONTRACT, FailureClass.POISON) and not is_unknown_effect(failure)


@dataclass(slots=True)
class _Alike:
    """Failures of one kind. Of their keys only as many are kept as the breaker asks for."""

    what: str
    failed: int = 0
    keys: set[object] = field(default_factory=set)

    def add(self, failed: int, keys: Iterable[object], max_keys: int) -> None:
        self.failed += failed
        for key in keys:
            if len(self.keys) >= max_keys:
                return
            self.keys.add(key)


@dataclass(slots=True)
class _Slice:
    """`attempts`: those that succeeded, and those that failed in a way that counts here."""

    attempts: int = 0
    groups: dict[str, _Alike] = field(default_factory=dict)

    def add(self, other: _Slice, max_keys: int) -> None:
        self.attempts += other.attempts
        for name, alike in other.groups.items():
            group = self.groups.get(name)
            if group is None:
                if len(self.groups) >= MAX_GROUPS:
                    continue
                group = self.groups[name] = _Alike(alike.what)
            group.add(alike.failed, alike.keys, max_keys)


class Board:
    """One subscription's breaker, for all its targets. Used by the worker's thread.

    `consider` asks before a batch commits, `record` remembers it afterwards and opens the breaker if it is time. Once
    open, a probe is one record: `succeeded` closes, `failed` waits longer. `now`: seconds that never go back."""

    def __init__(self, policy: Breaker, now: Callable[[], float]) -> None:
        self._policy = policy
        self._now = now
        self._window = Rolling(policy.window_s, now, _Slice)
        self._reason: str | None = None
        self._delay_s = self._probe_at = 0.0

    @property
    def reason(self) -> str | None:
        """Why it is open; None when it is closed."""
        return self._reason

    @property
    def state(self) -> BreakerState:
        if self._reason is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._now() >= self._probe_at else BreakerState.OPEN

    @property
    def probe_delay_s(self) -> float:
        """From now until a probe is due; 0 when it is, and when the breaker is closed."""
        return 0.0 if self._reason is None else max(0.0, self._probe_at - self._now())

    def probe_due(self) -> bool:
        return self.state is BreakerState.HALF_OPEN

    def consider(self, keys_ok: int, failed: Sequence[tuple[bytes | None, Failure]]) -> str | None:
        """Why, with this batch counted in, the breaker is open; None when it is not. Remembers nothing.

        `keys_ok`: how many records succeeded. `failed`: key and failure of those that did not; a null key is like no
        other."""
        if self._reason is not None or not failed:
            return self._reason
        return self._verdict(self._counted(keys_ok, failed))

    def record(self, keys_ok: int, failed: Sequence[tuple[bytes | None, Failure]]) -> None:
        """Remember a batch, with what `consider` was given. While the breaker is open nothing is added."""
        if self._reason is not None:
            return
        if not failed:
            self._window.present().attempts += keys_ok
            return
        batch = self._counted(keys_ok, failed)
        reason = self._verdict(batch)
        self._window.present().add(batch, self._policy.keys)
        if reason is not None:
            self._open(reason, self._policy.first_probe_s)

    def succeeded(self) -> None:
        """The probe's record went through: closed, and what failed before is forgotten."""
        self._reason = None
        self._window.clear()

    def failed(self) -> None:
        """The probe's record failed as before: open, and the next probe comes after twice the delay."""
        if self._reason is not None:
            self._open(self._reason, min(2 * self._delay_s, self._policy.longest_probe_s))

    def _open(self, reason: str, delay_s: float) -> None:
        self._reason, self._delay_s = reason, delay_s
        self._probe_at = self._now() + delay_s

    def _counted(self, keys_ok: int, failed: Sequence[tuple[bytes | None, Failure]]) -> _Slice:
        counted = _Slice(keys_ok)
        for key, failure in failed:
            if not feeds(failure):
                continue
            counted.attempts += 1
            target = target_of(failure)
            name = target or fingerprint(failure)
            group = counted.groups.get(name)
            if group is None:
                if len(counted.groups) >= MAX_GROUPS:
                    continue
                group = counted.groups[name] = _Alike(_described(failure, target))
            group.add(1, [object() if key is None else key], self._policy.keys)
        return counted

    def _verdict(self, batch: _Slice) -> str | None:
        """The reason to be open, if this batch, or it and any stretch of the window up to it, is over the limits."""
        if not batch.groups:
            return None
        stretch = _Slice()
        for each in (batch, *reversed(self._window.all())):
            stretch.add(each, self._policy.keys)
            if (worst := self._worst(stretch)) is not None:
                within = f"within {self._policy.window_s:g} s"
                return f"{worst.failed} of {stretch.attempts} attempts failed alike {within}: {worst.what}"
        return None

    def _worst(self, stretch: _Slice) -> _Alike | None:
        """Of the groups that are over the limits, the largest."""
        policy = self._policy
        over = (
            group
            for group in stretch.groups.values()
            if len(group.keys) >= policy.keys and group.failed >= policy.ratio * stretch.attempts
        )
        return max(over, key=lambda group: group.failed, default=None)


def _described(failure: Failure, target: str) -> str:
    where = f" at {failure.path}" if failure.path else ""
    return f"{failure.failure_class} {failure.code}{where}" + (f" ({target})" if target else "")
