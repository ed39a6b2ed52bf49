"""The worker: consume a batch, add due dead-letter entries, settle each, commit outcomes and offsets in one
transaction. Repeat.

One thread polls and commits, and does not poll while a batch is open, so that a revocation cannot fall inside a batch.
Group metadata is taken right after `consume` and kept with the batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from heddle.audit import AuditTrail
from heddle.broker.log import Broker, GroupMetadata, Record
from heddle.delivery.assignment import TIMEOUT_S, Assignment
from heddle.delivery.caps import Full
from heddle.delivery.classify import message_of
from heddle.delivery.clock import Clock, SystemClock
from heddle.delivery.command import Action
from heddle.delivery.desk import Desk
from heddle.delivery.due import DueEntries
from heddle.delivery.envelope import Envelope
from heddle.delivery.garbage import collected_between_batches, forget_frames
from heddle.delivery.judge import Judge
from heddle.delivery.metadata import Counts
from heddle.delivery.patience import WAIT_MAX_S, Patience, growing_delays
from heddle.delivery.room import Room
from heddle.delivery.settle import Settler
from heddle.delivery.settlement import Due, Event, Interruption, Settlement, Waiting
from heddle.delivery.steps import Budget, Step
from heddle.delivery.subscription import Subscription
from heddle.delivery.suspicion import DIVISOR, InHand
from heddle.delivery.topics import needed_topics
from heddle.delivery.transactions import Totals, Transactions, named_counts
from heddle.delivery.watchdog import Watchdog, within
from heddle.errors import (
    BrokerError,
    DependencyDownError,
    StaleGenerationError,
    UsageError,
)
from heddle.integration import PartitionFencedError
from heddle.operators import Operators
from heddle.secrets import Use
from heddle.settings import Settings

SUMMARY_INTERVAL_S = 10.0
CLOSE_LIMIT_S = 15.0
MAX_POLL_INTERVAL_S = 300.0
HANDSHAKE_LIMIT_S = 240.0  # below max.poll.interval


class _Closable(Protocol):
    def close(self) -> None: ...


class _Stopped(Exception):
    """SIGTERM came; what is in hand and not begun stays unsettled, for the next owner."""


@dataclass(frozen=True, slots=True)
class Batch:
    records: list[Record]
    group: GroupMetadata


class Worker:
    """Runs one subscription until `stop` is set; everything that it cannot mend itself it raises. `secrets`: those in
    use, for the audit trail.

    Raises `UsageError` for time limits that do not fit together. `run` raises `FencedError` (another process has this
    instance's name: do not restart), `UsageError` (topics missing), `AuthError`, `Stop` (a handler, the failure budget
    or order="stop"), `OffsetLostError`, `FormatError`, `BrokerError`, `BrokerDownError`.

    A test that drives it calls `open`, `turn` and `close` (or `abandon`) in place of `run`. Its clock may end a turn
    that would wait, by an exception; `stand_by` goes on from there."""

    def __init__(
        self, subscription: Subscription, step: Step, broker: Broker, settings: Settings, *, audit_key: bytes,
        operators: Operators, approvals: Mapping[Action, int] | None = None, clock: Clock | None = None,
        secrets: Callable[[], tuple[Use, ...]] = tuple,
    ) -> None:  # fmt: skip
        longest_s = settings.batch_deadline_s + step.longest_call_s
        if longest_s >= MAX_POLL_INTERVAL_S:
            raise UsageError(
                f"{subscription.name}: a batch may last {longest_s:g} s, but after {MAX_POLL_INTERVAL_S:g} s without a "
                "poll the group gives its partitions away",
                hint="lower HEDDLE_BATCH_DEADLINE_S or the flow's deadline_s",
            )
        self._subscription = subscription
        self._step = step
        self._settings = settings
        self._log: FilteringBoundLogger = structlog.get_logger(subscription=subscription.name)
        self._broker = broker
        self._operators = operators
        self._approvals = approvals or {}
        self._clock = clock or SystemClock()
        self._trail = AuditTrail(
            subscription.name, subscription.topic, subscription.audit_topic, f"worker:{settings.instance}", audit_key,
            regulated=subscription.regulated, wall_ms=self._clock.wall_ms, secrets=secrets, code=step.digest,
        )  # fmt: skip
        self._stop = threading.Event()
        self._judge = Judge(subscription.order, subscription.on_failure, self._clock)
        self._totals = Totals()
        self._summarised, self._summary_due = 0, 0.0
        self._patience = Patience(settings.batch_max_records)
        self._handshake_delays = growing_delays()
        self._probes = 0
        self._owned_at = time.monotonic()
        self._full: dict[int, Full] = {}
        self._waiting: Waiting | None = None
        self._watchdog = Watchdog(lambda: self._log.error("a call will not end; ending the process"))

    @property
    def totals(self) -> Counts:
        """Live records settled by this process."""
        return self._totals.counts

    @property
    def waiting(self) -> Waiting | None:
        """The pause it is in, or that it came out of and nothing has gone well since."""
        return self._waiting

    @property
    def full(self) -> Mapping[int, Full]:
        """Partitions that read nothing new, because their entries are at a cap."""
        return self._full

    def run(self, stop: threading.Event) -> None:
        """Blocks. Sets itself up, works, and releases its partitions cleanly when `stop` is set."""
        with collected_between_batches() as collect:
            self.open(stop)
            try:
                with contextlib.suppress(_Stopped):
                    while not stop.is_set():
                        self.turn()
                        collect()
                self._log.info("stopped", **self._outcomes())
            finally:
                self.close()

    def open(self, stop: threading.Event) -> None:
        """Everything that the worker holds; nothing is consumed yet."""
        self._stop = stop
        subscription, clock = self._subscription, self._clock
        admin = self._broker.admin()
        topic, max_bytes, max_entry_bytes = needed_topics(subscription, admin)
        self._consumer = self._broker.consumer(
            subscription.group, subscription.topic, on_release=lambda gone: self._assignment.release(gone)
        )
        self._producer = self._broker.producer(subscription.transactional_id(self._settings.instance))
        reader, commands = self._broker.reader(), self._broker.reader()
        envelope = Envelope(
            subscription.name, subscription.dead_letter_topic, topic.topic_id, self._step.digest, clock.wall_ms
        )
        self._assignment = Assignment(
            subscription, topic, self._consumer, self._producer, reader, admin, self._step, self._trail, clock,
            self._settings.batch_max_records, self._log,
        )  # fmt: skip
        self._indexes = self._assignment.indexes
        self._due = DueEntries(
            reader, subscription.dead_letter_topic, self._indexes, clock, self._settings.batch_max_bytes
        )
        self._settler = Settler(
            self._step, subscription.order, self._indexes, envelope, self._trail, clock, self._judge, max_bytes
        )
        self._desk = Desk(
            subscription,
            commands,
            self._operators,
            self._indexes,
            envelope,
            self._trail,
            clock,
            self._due.bodies,
            self._approvals,
            max_entry_bytes,
        )
        self._transactions = Transactions(
            self._producer, subscription.topic, self._assignment, self._desk, self._trail, clock, self._watchdog,
            self._settings.transaction_timeout_s, self._full, self._totals, self._log,
        )  # fmt: skip
        self._room = Room(self._full, self._assignment, self._consumer, self._transactions, self._log)
        self._parts: Sequence[_Closable] = (
            reader, commands, admin, self._producer, self._consumer, self._step
        )  # fmt: skip
        try:
            self._producer.init(TIMEOUT_S)
        except BaseException:
            self._close_parts()
            raise

    def turn(self) -> bool:
        """One round; whether it had anything to do."""
        self._room.reopen()
        partitions = self._due.partitions()
        batch = self._consume(self._at_once(has_due=bool(partitions)), 0.0 if partitions else None)
        bound = min(self._patience.bound, self._assignment.bound_of(partitions))
        due = self._due.take(bound, has_live=bool(batch.records))
        worked = bool(batch.records or due)
        if worked:
            self._settle(batch, due)
        worked |= self._serve_operators(batch.group)
        self._assignment.calm(self._desk.has_done)
        self._summarise()
        return worked

    def stand_by(self) -> None:
        """What a pause is: group and operators are served, nothing is attempted. What was read and has not settled is
        read again."""
        for owned in self._assignment.owned.values():
            owned.consumed = owned.settled
        self._assignment.pause()
        self._consumer.consume(1, 0.0)
        group = self._consumer.group_metadata()
        self._follow()
        self._assignment.resume(but=self._full)
        self._serve_operators(group)

    def abandon(self) -> None:
        """As if the process had died: connections end, nothing is given back."""
        self._close_parts()

    def close(self) -> None:
        """Give the partitions back; what cannot be given back any more says so in the log."""
        with self._watchdog.armed(within(CLOSE_LIMIT_S)):
            self._assignment.release(self._assignment.owned)
        self._close_parts()

    def _close_parts(self) -> None:
        """What fails or hangs here must not hide what ended the worker."""
        for part in self._parts:
            try:
                with self._watchdog.armed(within(CLOSE_LIMIT_S)):
                    part.close()
            except Exception as error:
                self._log.warning("did not close cleanly", error=str(error))
        self._watchdog.end()

    # What there is to do

    def _at_once(self, *, has_due: bool) -> int:
        """How many records to read. Few while they run in small batches: retries, commands and the group must not wait
        for hundreds of these."""
        most, bound = self._settings.batch_max_records, self._assignment.bound
        return most if bound >= most else min(most, bound if has_due else bound * DIVISOR)

    def _consume(self, max_records: int, first_wait_s: float | None = None) -> Batch:
        waits = {} if first_wait_s is None else {"first_wait_s": first_wait_s}
        self._owned_at = time.monotonic()
        records = self._consumer.consume(max_records, self._settings.batch_max_wait_s, **waits)
        group = self._consumer.group_metadata()
        self._follow()
        owned = self._assignment.owned
        taken, lasts = owned.keys() - self._full.keys(), {record.partition: record.offset for record in records}
        if not lasts.keys() <= taken:
            records = [record for record in records if record.partition in taken]
        for partition in lasts.keys() & taken:
            owned[partition].consumed = lasts[partition] + 1
        if self._assignment.pending:
            self._handshake(group)
        return Batch(self._room.fitting(records, group), group)

    def _follow(self) -> None:
        self._assignment.follow()
        self._room.forget_others()

    def _handshake(self, group: GroupMetadata) -> None:
        """A dependency that is down at this point (the sink's fence) leaves the partitions pending, and paused."""
        try:
            with self._watchdog.armed(within(HANDSHAKE_LIMIT_S)):
                self._assignment.handshake(group)
        except DependencyDownError as error:
            self._log.warning("paused: a dependency does not answer", error=str(error))
            delay_s = next(self._handshake_delays)
            self._waiting = Waiting(Interruption(error), self._clock.monotonic() + delay_s)
            if self._clock.wait(self._stop, delay_s):
                raise _Stopped from None
        else:
            self._handshake_delays, self._waiting = growing_delays(), None

    # Settling

    def _settle(self, batch: Batch, due: list[Due]) -> None:
        """Bring every record of the batch to its outcome, or hand it back with its partition. What is in hand is
        qualified anew whenever the group may have moved; a part of it, cut by bytes, is one transaction. Entries that
        did not come to an end are due again."""
        while batch.records or due:
            if self._stop.is_set():
                raise _Stopped
            part, entries = self._part(batch.records, due)
            due = []
            try:
                settlement = self._attempt(part, entries, batch.group)
                if not settlement.is_empty:
                    asked_at = time.monotonic()
                    self._transactions.commit(settlement, batch.group)
                    self._owned_at = asked_at
                self._judge.concluded(settlement)
            except StaleGenerationError:
                self._transactions.abort()
                batch = self._requalify(batch)
                continue
            except PartitionFencedError:
                fenced = {record.partition for record in part} | {each.entry.partition for each in entries}
                self._assignment.repeat(fenced)
                batch = self._requalify(batch)
                continue
            except DependencyDownError as error:
                batch = self._pause(batch, Interruption(error), part, entries)
                continue
            for _, failure in settlement.failures:
                forget_frames(failure.error)
            batch = Batch(batch.records[settlement.settled :], batch.group)
            if settlement.settled or settlement.ran:
                self._patience.went_well()
                self._waiting = None
            if settlement.interrupted is not None:
                if settlement.interrupted.stops:
                    raise settlement.interrupted.error
                batch = self._pause(batch, settlement.interrupted, part, entries)
            elif settlement.settled < len(part):
                batch = self._requalify(batch)

    def _part(self, records: list[Record], due: list[Due]) -> tuple[list[Record], list[Due]]:
        """What one transaction takes on: one as a probe, few while something is suspected of killing us. Alone means
        alone: an entry or a record."""
        partitions = chain((each.entry.partition for each in due), (record.partition for record in records))
        bound = self._assignment.fitting(partitions, self._patience.bound)
        entries = due[:bound]
        return records[: min(self._within_bytes(records), bound - len(entries))], entries

    def _attempt(self, records: list[Record], due: list[Due], group: GroupMetadata) -> Settlement:
        condemned = None
        if len(records) + len(due) == 1:
            in_hand = InHand("entry", due[0].entry.version) if due else InHand("live", records[0].offset)
            condemned = self._assignment.name(due[0].entry.partition if due else records[0].partition, in_hand, group)
        budget = Budget(self._settings.batch_deadline_s, self._stop, self._owned_at)
        with self._watchdog.armed(lambda: budget.began + self._step.longest_call_s):
            if self._judge.board.reason is not None and condemned is None:
                self._probes += 1
                unanswered = self._settler.probe(records, due, budget, self._probes)
                if unanswered is not None:
                    return unanswered
            settlement = self._settler.settle(records, due, budget, condemned=condemned)
        settlement.found_culprit = condemned is not None
        if settlement.is_empty and settlement.interrupted is None and not budget.is_spent:
            raise BrokerError("the step settled nothing, and has not said why")
        return settlement

    def _serve_operators(self, group: GroupMetadata) -> bool:
        """Commands, and markers that have outlived the rewind horizon."""
        self._desk.follow({p: owned.metadata for p, owned in self._assignment.owned.items()})
        settlement = self._desk.work()
        if settlement is None:
            return False
        try:
            self._transactions.commit(settlement, group)
        except StaleGenerationError:
            self._transactions.abort()
            self._desk.forget()
        return True

    # Waiting

    def _requalify(self, batch: Batch) -> Batch:
        """Serve the group with everything paused; keep the records of partitions that never left us."""
        self._assignment.pause()
        self._owned_at = time.monotonic()
        self._consumer.consume(1, 0.0)
        group = self._consumer.group_metadata()
        self._follow()
        kept = [record for record in batch.records if record.partition in self._assignment.owned]
        if self._assignment.pending:
            self._handshake(group)
        self._assignment.resume(but=self._full)
        return Batch(kept, group)

    def _pause(self, batch: Batch, why: Interruption, records: list[Record], due: list[Due]) -> Batch:
        """Say why, stay in the group, then try the same records again, one as a probe. Nothing becomes dead from a
        pause."""
        delay_s = self._patience.delay_s(why, self._judge.board.probe_delay_s)
        self._log.warning("paused", reason=message_of(why.error), error=why.error.code, retry_in_s=round(delay_s, 1))
        if self._patience.is_news(why, delay_s):
            partitions = {r.partition for r in records} | {each.entry.partition for each in due}
            detail = {"why": f"{why.error.code}: {message_of(why.error)}"}
            self._transactions.tell(
                [Event(p, "paused", detail) for p in partitions & self._assignment.owned.keys()], batch.group
            )
        self._unname(batch.group)
        until_s = self._clock.monotonic() + delay_s
        self._waiting = Waiting(why, until_s)
        while (left_s := until_s - self._clock.monotonic()) > 0:
            if self._clock.wait(self._stop, min(left_s, WAIT_MAX_S)):
                raise _Stopped
            batch = self._requalify(batch)
            self._serve_operators(batch.group)
        return self._requalify(self._handed_back(batch) if why.failed_alike else batch)

    def _unname(self, group: GroupMetadata) -> None:
        try:
            self._assignment.unname(group)
        except StaleGenerationError:
            self._transactions.abort()

    def _handed_back(self, batch: Batch) -> Batch:
        """An open breaker asks more than what is in hand: that is read again, with what has come since."""
        for record in reversed(batch.records):
            if record.partition in self._assignment.owned:
                self._assignment.owned[record.partition].consumed = record.offset
        return Batch([], batch.group)

    def _within_bytes(self, records: list[Record]) -> int:
        """How many of them, at least one, one transaction may hold, so that it stays within memory and time."""
        sizes = [len(record.value or b"") for record in records]
        if sum(sizes) <= self._settings.batch_max_bytes:
            return len(records)
        fitting = sum(size <= self._settings.batch_max_bytes for size in accumulate(sizes))
        return max(fitting, 1)

    # Telling

    def _summarise(self) -> None:
        now = time.monotonic()
        if now < self._summary_due or self.totals.total == self._summarised:
            return
        self._log.info("settled", **self._outcomes())
        self._summarised, self._summary_due = self.totals.total, now + SUMMARY_INTERVAL_S

    def _outcomes(self) -> dict[str, int]:
        return named_counts(self.totals)
