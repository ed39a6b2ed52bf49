"""One settlement, one transaction: outputs, dead-letter changes, audit records, offsets. Memory follows the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import stamina
from structlog.typing import FilteringBoundLogger

from heddle.audit import AuditTrail
from heddle.broker.log import GroupMetadata, Outgoing, Position, Producer
from heddle.delivery.assignment import TIMEOUT_S, Assignment
from heddle.delivery.caps import Full
from heddle.delivery.clock import Clock
from heddle.delivery.desk import Desk
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.settlement import Event, Settlement
from heddle.delivery.watchdog import Watchdog, within
from heddle.errors import CommitUnknownError, StaleGenerationError

COMMIT_TRIES = 3
LOG_GRACE_S = 5.0


@dataclass(slots=True)
class Totals:
    """Live records settled by one process."""

    counts: Counts = field(default_factory=Counts)


class Transactions:
    """Of one worker. `full`: partitions at their cap, which the audit trail tells of."""

    def __init__(
        self, producer: Producer, topic: str, assignment: Assignment, desk: Desk, trail: AuditTrail, clock: Clock,
        watchdog: Watchdog, limit_s: float, full: Mapping[int, Full], totals: Totals, log: FilteringBoundLogger,
    ) -> None:  # fmt: skip
        self._producer = producer
        self._topic = topic
        self._assignment = assignment
        self._indexes = assignment.indexes
        self._desk = desk
        self._trail = trail
        self._clock = clock
        self._watchdog = watchdog
        self._limit_s = 2 * limit_s + LOG_GRACE_S
        self._full = full
        self._log = log
        self._totals = totals

    def abort(self) -> None:
        self._producer.abort(TIMEOUT_S)

    def tell(self, events: list[Event], group: GroupMetadata) -> None:
        """Audit records of their own. A group that has moved on is told of at the next commit."""
        try:
            self.commit(Settlement(events=events), group)
        except StaleGenerationError:
            self.abort()

    def commit(self, settlement: Settlement, group: GroupMetadata) -> None:
        """One transaction; in-memory state follows only once it has committed."""
        owned = self._assignment.owned
        audits: list[Outgoing] = []
        metadata = {partition: self._chained(partition, settlement, audits) for partition in settlement.partitions}
        positions = {
            p: Position(settlement.next_offsets.get(p, owned[p].settled), metadata[p].pack()) for p in metadata
        }
        changes = list(settlement.changes.values())
        # librdkafka's own time-out for sending offsets does not hold when a group's coordinator goes away.
        with self._watchdog.armed(within(self._limit_s)):
            self._producer.begin()
            self._producer.produce(settlement.outputs)
            placed = self._producer.produce_placed([change.outgoing for change in changes])
            self._producer.produce(audits)
            self._producer.send_offsets(self._topic, positions, group)
        self._commit_transaction()
        for partition, position in positions.items():
            owned[partition].settled = position.offset
            owned[partition].metadata = metadata[partition]
            if metadata[partition].suspicion is None:
                owned[partition].condemned = None
            if owned[partition].ahead.in_hand is not None and _ends_what_is_in_hand(settlement):
                self._assignment.hand_is_empty(partition)
            self._totals.counts += settlement.counts(partition)
        self._remember(settlement, placed)
        if settlement.failures:
            self._report(settlement)

    def _chained(self, partition: int, settlement: Settlement, audits: list[Outgoing]) -> PartitionMetadata:
        """The partition's next metadata; its audit records are added to `audits`."""
        owned = self._assignment.owned[partition]
        counts, entry_counts = settlement.counts(partition), settlement.entry_counts(partition)
        metadata, trail = owned.metadata, self._trail
        head = metadata.audit_head
        if counts.total or entry_counts.total:
            metadata = metadata.settled(counts, entry_counts, ordered=owned.ordered)
        if owned.ahead.in_hand is not None and _ends_what_is_in_hand(settlement):
            metadata = replace(metadata, marks=self._assignment.marks_without_hand(partition))
        if settlement.found_culprit:
            metadata = replace(metadata, suspicion=None)
        for event in settlement.events:
            if event.partition == partition:
                records, head = trail.event(partition, head, event.kind, event.detail)
                audits += records
        lines = settlement.lines.get(partition, [])
        if counts.total or entry_counts.total or lines:
            full = self._full.get(partition)
            records, head = trail.batch(
                partition, head, first=settlement.first_offsets.get(partition, owned.settled),
                next_offset=settlement.next_offsets.get(partition, owned.settled), counts=named_counts(counts),
                entry_counts=named_counts(entry_counts),
                payloads=trail.batch_hash(settlement.values.get(partition, ())), lines=lines,
                paused=full.reason if full else "",
            )  # fmt: skip
            audits += records
        next_command, done_commands = self._desk.progress(partition, metadata)
        return replace(metadata, audit_head=head, next_command=next_command, done_commands=done_commands)

    def _remember(self, settlement: Settlement, placed: list[int]) -> None:
        now_s = self._clock.monotonic()
        for offset, ((partition, entry_id), change) in zip(placed, settlement.changes.items(), strict=True):
            index = self._indexes[partition]
            if change.put:
                index.put(change.entry.renewed(version=offset), now_s)
                if change.run is not None:
                    index.order_run(entry_id, change.run, now_s)
                continue
            index.remove(entry_id, now_s)
            index.unmark(change.entry)
            if change.marks is not None:
                index.mark(change.entry.renewed(version=offset), change.marks)
        for due, resolved in settlement.ran:
            self._desk.ran(due, resolved=resolved)

    def _commit_transaction(self) -> None:
        """An answer that is lost leaves the commit unknown: ask again, else exit and let a successor decide."""
        try:
            return self._producer.commit(TIMEOUT_S)
        except CommitUnknownError:
            for attempt in stamina.retry_context(on=CommitUnknownError, attempts=COMMIT_TRIES - 1, timeout=None):
                with attempt:
                    self._producer.commit(TIMEOUT_S)

    def _report(self, settlement: Settlement) -> None:
        causes: Counter[str] = Counter()
        for _, failure in settlement.failures:
            causes[f"{failure.failure_class}:{failure.code}" + (f" at {failure.path}" if failure.path else "")] += 1
        self._log.warning("parked", records=len(settlement.failures), causes=dict(causes))
        for partition, index in self._indexes.items():
            if index.passed_half_of_caps():
                self._log.warning("half of what may be unresolved is", partition=partition, entries=len(index))


def _ends_what_is_in_hand(settlement: Settlement) -> bool:
    """It is a batch's: operators' acts, and pauses that are told of, settle nothing that runs."""
    return bool(settlement.settled or settlement.ran)


def named_counts(counts: Counts) -> dict[str, int]:
    named = {str(outcome): n for outcome, n in counts.by_outcome.items() if n}
    return named | ({"recovered": counts.recovered} if counts.recovered else {})
