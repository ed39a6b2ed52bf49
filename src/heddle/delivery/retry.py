"""What becomes of a record that failed, by its failure's class (guarantees: "Failure decides by class")."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from heddle.delivery.classify import is_unknown_effect, retry_after_s
from heddle.errors import Failure, FailureClass, RetryLater
from heddle.on_failure import OnFailure, Retry


class Action(StrEnum):
    """`DEAD` and `UNKNOWN` wait for a person, `RETRY` for its time. `PAUSE` and `STOP` say nothing about the record:
    it counts as unattempted, and so do all after it."""

    DEAD = "dead"
    RETRY = "retry"
    UNKNOWN = "unknown"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay_s`: before the record's next try (`RETRY`); how long the target asks for, 0 when it does not (`PAUSE`)."""

    action: Action
    delay_s: float = 0.0


_DEAD, _UNKNOWN, _STOP = Verdict(Action.DEAD), Verdict(Action.UNKNOWN), Verdict(Action.STOP)


def decide(failure: Failure, policy: OnFailure, *, tries: int, age_s: float, random: Callable[[], float]) -> Verdict:
    """`tries` of this record so far, this one included; `age_s` since its first failure; `random` from [0, 1)."""
    if is_unknown_effect(failure):
        return _UNKNOWN
    match failure.failure_class:
        case FailureClass.TRANSIENT:
            return _again(failure, policy, policy.transient, tries, age_s, random)
        case FailureClass.UNKNOWN:
            return _again(failure, policy, policy.unknown, tries, age_s, random)
        case FailureClass.CONTRACT | FailureClass.POISON:
            return _DEAD
        case FailureClass.RATE_LIMIT | FailureClass.DEPENDENCY_DOWN:
            return Verdict(Action.PAUSE, _told_s(failure, policy))
        case FailureClass.AUTH | FailureClass.OURS:
            return _STOP
        case unforeseen:
            assert_never(unforeseen)


def _again(
    failure: Failure, policy: OnFailure, retry: Retry, tries: int, age_s: float, random: Callable[[], float]
) -> Verdict:
    if tries >= retry.tries or age_s >= policy.longest_age_s:
        return _DEAD
    return Verdict(Action.RETRY, max(delay_s(retry, tries, random), _told_s(failure, policy)))


def delay_s(retry: Retry, tries: int, random: Callable[[], float]) -> float:
    """Before the next try: doubled with each, then drawn from its upper half, so that what failed together does not
    come back together."""
    # Doublings beyond 64 pass any cap, and would overflow in the end.
    longest = min(math.ldexp(retry.first_delay_s, min(tries - 1, 64)), retry.longest_delay_s)
    return longest * (0.5 + random() / 2)


def _told_s(failure: Failure, policy: OnFailure) -> float:
    """A handler is taken at its word; a target that asks for a year is asked again before."""
    told = retry_after_s(failure) or 0.0
    return told if isinstance(failure.error, RetryLater) else min(told, policy.longest_age_s)
