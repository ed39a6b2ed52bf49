"""Where a batch ends, decided before any of it commits: effects cannot be taken back, nor written dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from heddle.broker.log import Record
from heddle.delivery import retry
from heddle.delivery.breaker import Board, feeds
from heddle.delivery.classify import is_unknown_effect
from heddle.delivery.clock import Clock
from heddle.delivery.envelope import Entry, State
from heddle.delivery.failure_budget import BudgetWindow
from heddle.delivery.settlement import Due, Interruption, Settlement
from heddle.delivery.steps import SKIPPED, Result
from heddle.errors import (
    AuthError,
    DependencyDownError,
    Failure,
    FailureClass,
    HeddleError,
    RateLimitError,
    Stop,
    TransientError,
)
from heddle.on_failure import OnFailure, Order

LAST_FAILURES = 64
"""Of a batch: so far back is looked for the moment at which its target went down."""


class Flood(Stop):
    """More records fail than the failure budget allows."""

    code = "failure-budget"


@dataclass(slots=True)
class Cut:
    """Where a batch ends, as an index into what was attempted, and why."""

    at: int
    interruption: Interruption | None = None

    def earlier(self, at: int, interruption: Interruption | None) -> Cut:
        return Cut(at, interruption) if at < self.at else self


@dataclass(slots=True)
class Judge:
    """What failures mean, for one subscription. Between batches it remembers them in numbers only: the breaker's and
    the budget's windows, and, where failures stop the subscription, how often the record in front was tried."""

    order: Order
    policy: OnFailure
    clock: Clock
    board: Board = field(init=False)
    window: BudgetWindow = field(init=False)
    _tries: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = Board(self.policy.breaker, self.clock.monotonic)
        self.window = BudgetWindow(self.policy.budget, self.clock.monotonic)

    def cut(
        self, attempt: Sequence[Record], due: Sequence[Due], results: list[Result], interrupted: HeddleError | None
    ) -> Cut:
        """Looks at the whole batch before any of it commits: dead letters that were written cannot be withdrawn."""
        cut = Cut(len(results), None if interrupted is None else interrupted_by(interrupted))
        if Failure not in set(map(type, results)):
            return cut
        failures = [(i, result) for i, result in enumerate(results) if isinstance(result, Failure)]
        cut = self._cut_by_breaker(cut, failures, attempt, results)
        cut = self._cut_by_budget(cut, failures, len(due))
        for index, failure in failures:
            if index >= cut.at:
                break
            record = attempt[index]
            entry = due[index].entry if index < len(due) else None
            interruption = self._interrupts(record, failure, entry)
            if interruption is not None:
                return cut.earlier(index, interruption)
        return cut

    def _cut_by_budget(self, cut: Cut, failures: list[tuple[int, Failure]], due: int) -> Cut:
        """Counts what would be parked for the first time; what the breaker holds back is neither in nor out."""
        parking = [index for index, failure in failures if due <= index < cut.at and _may_park(failure)]
        if not parking or not self.window.consider(cut.at - due, len(parking)):
            return cut
        policy = self.policy.budget
        error = Flood(
            f"more than {policy.ratio:.0%} of at least {policy.records} records failed within {policy.window_s:g} s; "
            f"the latest as {failures[-1][1].code}",
            hint="nothing of the flood was parked: mend the cause and start again, or allow it: "
            "on_failure=OnFailure(budget=FailureBudget(ratio=1))",
        )
        return cut.earlier(parking[0], Interruption(error, stops=True))

    def _cut_by_breaker(
        self, cut: Cut, failures: list[tuple[int, Failure]], attempt: Sequence[Record], results: list[Result]
    ) -> Cut:
        """The whole batch is asked, then what came from a failure near its end on: a target that went down in the
        middle of a batch, which had done well until then, is down all the same. Effects that nobody knows of are not
        held back: no next try will tell, and where nothing else is left to be tried the pause would never end."""
        feeding = [(index, failure) for index, failure in failures if feeds(failure)]
        if not feeding:
            return cut
        nearly_last = range(max(0, len(feeding) - LAST_FAILURES), len(feeding) - self.policy.breaker.keys + 1)
        for began, first in [(0, 0), *((feeding[first][0], first) for first in nearly_last)]:
            succeeded = sum(not isinstance(result, Failure) and result is not SKIPPED for result in results[began:])
            alike = [(attempt[index].key, failure) for index, failure in feeding[first:]]
            reason = self.board.consider(succeeded, alike)
            if reason is not None:
                error = DependencyDownError(reason, hint="nothing is parked meanwhile; see the target")
                at = next((index for index, failure in feeding[first:] if not is_unknown_effect(failure)), cut.at)
                if at < cut.at or cut.interruption is None:
                    return Cut(at, Interruption(error, failed_alike=alike))
                return cut
        return cut

    def _interrupts(self, record: Record, failure: Failure, entry: Entry | None) -> Interruption | None:
        verdict = self._verdict(failure, entry, self._tries.get((record.partition, record.offset), 0))
        if verdict.action is retry.Action.PAUSE:
            return Interruption(
                _error_of(failure), verdict.delay_s or None, slows=failure.failure_class is FailureClass.RATE_LIMIT
            )
        if verdict.action is retry.Action.STOP:
            return Interruption(_error_of(failure), stops=True)
        if self.order != "stop" or entry is not None:
            return None
        if verdict.action is retry.Action.RETRY:
            self._tries[record.partition, record.offset] = self._tries.get((record.partition, record.offset), 0) + 1
            return Interruption(_error_of(failure), verdict.delay_s or None)
        stopped = Stop(
            f"{record.topic}/{record.partition} offset {record.offset} failed as {failure.code}: {failure.message}",
            hint="order='stop': mend the cause and start the worker again",
        )
        return Interruption(stopped, stops=True)

    def parked_as(self, failure: Failure, entry: Entry | None) -> tuple[State, int]:
        """The state of its entry, and after how many milliseconds it is tried again."""
        verdict = self._verdict(failure, entry)
        if verdict.action is retry.Action.RETRY:
            return State.RETRYING, int(verdict.delay_s * 1000)
        return (State.UNKNOWN if verdict.action is retry.Action.UNKNOWN else State.DEAD), 0

    def concluded(self, settlement: Settlement) -> None:
        """The settlement stands, or holds nothing: the breaker's and the budget's windows may count it."""
        interruption = settlement.interrupted
        if interruption is not None and interruption.failed_alike:
            if self.board.reason is None:
                self.board.record(settlement.succeeded, ())
                self.board.record(0, interruption.failed_alike)
            else:
                self.board.failed()
        else:
            self.board.record(settlement.succeeded, settlement.failures)
        again = sum(not resolved for _, resolved in settlement.ran)
        self.window.record(settlement.settled, len(settlement.failures) - again)
        if self._tries:
            ends = settlement.next_offsets
            self._tries = {place: n for place, n in self._tries.items() if place[1] >= ends.get(place[0], 0)}

    def _verdict(self, failure: Failure, entry: Entry | None, tries: int = 0) -> retry.Verdict:
        age_s = 0.0
        if entry is not None:
            tries = entry.attempts
            age_s = (self.clock.wall_ms() - entry.first_failed_ms) / 1000 if entry.first_failed_ms else 0.0
        return retry.decide(failure, self.policy, tries=tries + 1, age_s=age_s, random=self.clock.jitter)


def _may_park(failure: Failure) -> bool:
    return failure.failure_class not in (
        FailureClass.AUTH, FailureClass.OURS, FailureClass.DEPENDENCY_DOWN, FailureClass.RATE_LIMIT
    )  # fmt: skip


def interrupted_by(error: HeddleError, failed_alike: Sequence[tuple[bytes | None, Failure]] = ()) -> Interruption:
    return Interruption(error, stops=not isinstance(error, DependencyDownError), failed_alike=failed_alike)


_AS_ERROR: dict[FailureClass, tuple[type[HeddleError], str]] = {
    FailureClass.AUTH: (AuthError, "renew the credentials, then start the worker again"),
    FailureClass.DEPENDENCY_DOWN: (DependencyDownError, "see the target; nothing is parked meanwhile"),
    FailureClass.RATE_LIMIT: (RateLimitError, "the target asked us to slow down"),
    FailureClass.TRANSIENT: (TransientError, "the record is tried again in its place"),
    FailureClass.UNKNOWN: (TransientError, "the record is tried again in its place"),
}


def _error_of(failure: Failure) -> HeddleError:
    if isinstance(failure.error, HeddleError):
        return failure.error
    kind, hint = _AS_ERROR.get(failure.failure_class, (Stop, "mend the cause, then start the worker again"))
    return kind(failure.message, hint=hint)
