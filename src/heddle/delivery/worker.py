"""The worker: consume a batch, settle every record, commit outcomes and offsets in one transaction. Repeat.

One thread polls and commits, and does not poll while a batch is open, so that a revocation cannot fall inside a batch.
Group metadata is taken right after `consume` and kept with the batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import stamina
import structlog
from structlog.typing import FilteringBoundLogger

from heddle.broker.log import Admin, Broker, GroupMetadata, Position, Record, TopicState
from heddle.delivery.assignment import TIMEOUT_S, Assignment
from heddle.delivery.envelope import Envelope
from heddle.delivery.gates import Gates
from heddle.delivery.metadata import Counts
from heddle.delivery.settle import Settlement, Settler
from heddle.delivery.steps import Budget, Step
from heddle.delivery.subscription import Subscription
from heddle.delivery.watchdog import Watchdog, within
from heddle.errors import (
    BrokerError,
    CommitUnknownError,
    DependencyDownError,
    StaleGenerationError,
    UsageError,
)
from heddle.integration import PartitionFencedError
from heddle.settings import Settings

COMMIT_TRIES = 3
SUMMARY_INTERVAL_S = 10.0
WAIT_MIN_S, WAIT_MAX_S = 0.2, 5.0
CLOSE_LIMIT_S = 15.0
MAX_POLL_INTERVAL_S = 300.0
LOG_GRACE_S = 5.0
HANDSHAKE_LIMIT_S = 240.0  # below max.poll.interval
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588


class _Closable(Protocol):
    def close(self) -> None: ...


class _Stopped(Exception):
    """SIGTERM came; what is in hand and not begun stays unsettled, for the next owner."""


@dataclass(frozen=True, slots=True)
class Batch:
    records: list[Record]
    group: GroupMetadata


class Worker:
    """Runs one subscription until `stop` is set; everything that it cannot mend itself it raises.

    Raises `UsageError` for time limits that do not fit together. `run` raises `FencedError` (another process has this
    instance's name: do not restart), `UsageError` (topics missing), `AuthError`, `OffsetLostError`, `FormatError`,
    `BrokerError`, `BrokerDownError`."""

    def __init__(self, subscription: Subscription, step: Step, broker: Broker, settings: Settings) -> None:
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
        self._totals = Counts()
        self._summarised, self._summary_due = 0, 0.0
        self._handshake_delays = growing_delays()
        self._watchdog = Watchdog(lambda: self._log.error("a call will not end; ending the process"))

    @property
    def totals(self) -> Counts:
        """Settled by this process."""
        return self._totals

    def run(self, stop: threading.Event) -> None:
        """Blocks. Sets itself up, works, and releases its partitions cleanly when `stop` is set."""
        self._stop = stop
        admin = self._broker.admin()
        topic, dead_letters, max_bytes = self._topics(admin)
        self._consumer = self._broker.consumer(
            self._subscription.group, self._subscription.topic, on_release=lambda gone: self._assignment.release(gone)
        )
        self._producer = self._broker.producer(self._subscription.transactional_id(self._settings.instance))
        reader = self._broker.reader()
        gates = Gates(by_key=self._subscription.order == "park")
        envelope = Envelope(self._subscription.name, dead_letters, topic.topic_id, self._step.digest)
        self._gates = gates
        self._settler = Settler(self._step, gates, envelope, max_bytes)
        self._assignment = Assignment(
            self._subscription, topic, self._consumer, self._producer, reader, admin, self._step, gates, self._log
        )
        try:
            self._producer.init(TIMEOUT_S)
            self._loop()
        finally:
            self._close(reader, admin, self._producer, self._consumer, self._step)

    def _loop(self) -> None:
        with contextlib.suppress(_Stopped):
            while not self._stop.is_set():
                self._settle(self._consume())
                self._summarise()
        self._assignment.release(self._assignment.owned)
        self._log.info("stopped", **self._outcomes())

    def _close(self, *parts: _Closable) -> None:
        """What fails or hangs here must not hide what ended the worker."""
        for part in parts:
            try:
                with self._watchdog.armed(within(CLOSE_LIMIT_S)):
                    part.close()
            except Exception as error:
                self._log.warning("did not close cleanly", error=str(error))

    def _consume(self) -> Batch:
        settings = self._settings
        records = self._consumer.consume(settings.batch_max_records, settings.batch_max_wait_s)
        group = self._consumer.group_metadata()
        self._assignment.follow()
        owned = self._assignment.owned
        records = [record for record in records if record.partition in owned]
        for record in records:
            owned[record.partition].consumed = record.offset + 1
        if self._assignment.pending:
            self._handshake(group)
        return Batch(records, group)

    def _handshake(self, group: GroupMetadata) -> None:
        """A dependency that is down at this point (the sink's fence) leaves the partitions pending, and paused."""
        try:
            with self._watchdog.armed(within(HANDSHAKE_LIMIT_S)):
                self._assignment.handshake(group)
        except DependencyDownError as error:
            self._wait_once(error, next(self._handshake_delays))
        else:
            self._handshake_delays = growing_delays()

    def _settle(self, batch: Batch) -> None:
        """Bring every record of the batch to its outcome, or hand it back with its partition. What is in hand is
        qualified anew whenever the group may have moved; a part of it, cut by bytes, is one transaction."""
        delays = growing_delays()
        while batch.records:
            if self._stop.is_set():
                raise _Stopped
            part = batch.records[: self._within_bytes(batch.records)]
            try:
                settlement = self._attempt(part)
                if settlement.settled:
                    self._commit(settlement, batch.group)
                    delays = growing_delays()
            except StaleGenerationError:
                self._producer.abort(TIMEOUT_S)
                batch = self._requalify(batch)
                continue
            except PartitionFencedError:
                self._assignment.repeat({record.partition for record in part})
                batch = self._requalify(batch)
                continue
            except DependencyDownError as error:
                batch = self._wait(batch, error, next(delays))
                continue
            batch = Batch(batch.records[settlement.settled :], batch.group)
            if isinstance(settlement.interrupted, DependencyDownError):
                batch = self._wait(batch, settlement.interrupted, next(delays))
            elif settlement.interrupted is not None:
                raise settlement.interrupted
            elif settlement.settled < len(part):
                batch = self._requalify(batch)

    def _attempt(self, records: list[Record]) -> Settlement:
        budget = Budget(self._settings.batch_deadline_s, self._stop)
        with self._watchdog.armed(lambda: budget.began + self._step.longest_call_s):
            settlement = self._settler.settle(records, budget)
        if not settlement.settled and settlement.interrupted is None and not budget.is_spent:
            raise BrokerError("the step settled nothing, and has not said why")
        return settlement

    def _commit(self, settlement: Settlement, group: GroupMetadata) -> None:
        """One transaction; in-memory state follows only once it has committed."""
        owned = self._assignment.owned
        metadata = {p: owned[p].metadata.settled(settlement.counts(p)) for p in settlement.next_offsets}
        positions = {p: Position(offset, metadata[p].pack()) for p, offset in settlement.next_offsets.items()}
        # librdkafka's own time-out for sending offsets does not hold when a group's coordinator goes away.
        with self._watchdog.armed(within(2 * self._settings.transaction_timeout_s + LOG_GRACE_S)):
            self._producer.begin()
            self._producer.produce(settlement.outputs)
            self._producer.produce(settlement.entries)
            self._producer.send_offsets(self._subscription.topic, positions, group)
        self._commit_transaction()
        for partition, offset in settlement.next_offsets.items():
            owned[partition].settled = offset
            owned[partition].metadata = metadata[partition]
            self._totals += settlement.counts(partition)
        self._gates.park(settlement.parked)
        if settlement.failures:
            self._report(settlement)

    def _commit_transaction(self) -> None:
        """An answer that is lost leaves the commit unknown: ask again, else exit and let a successor decide."""
        for attempt in stamina.retry_context(on=CommitUnknownError, attempts=COMMIT_TRIES, timeout=None):
            with attempt:
                self._producer.commit(TIMEOUT_S)

    def _requalify(self, batch: Batch) -> Batch:
        """Serve the group with everything paused; keep the records of partitions that never left us."""
        self._assignment.pause()
        self._consumer.consume(1, 0.0)
        group = self._consumer.group_metadata()
        self._assignment.follow()
        kept = [record for record in batch.records if record.partition in self._assignment.owned]
        if self._assignment.pending:
            self._handshake(group)
        self._assignment.resume()
        return Batch(kept, group)

    def _wait(self, batch: Batch, error: DependencyDownError, delay_s: float) -> Batch:
        """Pause, say why, stay in the group, then try the same records again. Nothing becomes dead from a pause."""
        self._wait_once(error, delay_s)
        return self._requalify(batch)

    def _wait_once(self, error: DependencyDownError, delay_s: float) -> None:
        self._log.warning("paused: a dependency does not answer", error=str(error), retry_in_s=round(delay_s, 1))
        if self._stop.wait(delay_s):
            raise _Stopped

    def _within_bytes(self, records: list[Record]) -> int:
        """How many of them, at least one, one transaction may hold, so that it stays within memory and time."""
        size = 0
        for index, record in enumerate(records):
            size += len(record.value or b"")
            if size > self._settings.batch_max_bytes and index:
                return index
        return len(records)

    def _topics(self, admin: Admin) -> tuple[TopicState, str, int]:
        """The input topic, the dead-letter topic's name, and the largest record that may be written.

        Workers create nothing: what is missing is `UsageError`."""
        name, dead_letters = self._subscription.topic, self._subscription.dead_letter_topic
        needed = [name, dead_letters, *self._subscription.writes]
        topics = admin.topics(needed)
        missing = [topic for topic in needed if topic not in topics]
        if missing:
            raise UsageError(f"{self._subscription.name}: no topic {', '.join(missing)}", hint="run `heddle apply`")
        if topics[name].partitions != topics[dead_letters].partitions:
            problem = f"{name} and {dead_letters} have different numbers of partitions"
        elif _max_bytes(topics[dead_letters]) < _max_bytes(topics[name]):
            problem = f"{dead_letters} takes smaller records than {name}, so that some could not be parked"
        else:
            writes = [_max_bytes(topics[topic]) for topic in self._subscription.writes]
            return topics[name], dead_letters, min(writes, default=DEFAULT_MAX_MESSAGE_BYTES)
        raise UsageError(problem, hint="run `heddle plan` for what to do")

    def _report(self, settlement: Settlement) -> None:
        causes: dict[str, int] = {}
        for failure in settlement.failures:
            cause = f"{failure.failure_class}:{failure.code}" + (f" at {failure.path}" if failure.path else "")
            causes[cause] = causes.get(cause, 0) + 1
        self._log.warning("parked", dead=len(settlement.failures), causes=causes)

    def _summarise(self) -> None:
        now = time.monotonic()
        if now < self._summary_due or self._totals.total == self._summarised:
            return
        self._log.info("settled", **self._outcomes())
        self._summarised, self._summary_due = self._totals.total, now + SUMMARY_INTERVAL_S

    def _outcomes(self) -> dict[str, int]:
        counts = {str(outcome): n for outcome, n in self._totals.by_outcome.items() if n}
        return counts | ({"recovered": self._totals.recovered} if self._totals.recovered else {})


def _max_bytes(topic: TopicState) -> int:
    return int(topic.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))


def growing_delays() -> Iterator[float]:
    """Growing waits for a dependency: 0.2 s, doubled up to 5 s."""
    delay = WAIT_MIN_S
    while True:
        yield delay
        delay = min(delay * 2, WAIT_MAX_S)
