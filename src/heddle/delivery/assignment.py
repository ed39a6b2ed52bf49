"""The assignment handshake, and what a worker knows of the partitions that it owns.

pause → committed() until a former owner's pending offsets are decided → bump the sink's fence → one transaction that
commits the same offsets again with new metadata and so *proves* ownership → restore the index → start reading.
The order is the guarantee: restoring before the former owner's commit had landed would miss a park in flight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import cast

from structlog.typing import FilteringBoundLogger

from heddle.audit import AuditTrail, external_reset, heads
from heddle.broker.log import (
    NEVER_COMMITTED,
    Admin,
    Consumer,
    GroupMetadata,
    Outgoing,
    Position,
    Producer,
    Reader,
    Record,
    TopicState,
)
from heddle.broker.newest import settled_newest
from heddle.delivery.clock import Clock
from heddle.delivery.envelope import KILLS
from heddle.delivery.index import PartitionIndex
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.steps import Step
from heddle.delivery.subscription import Subscription
from heddle.delivery.suspicion import ALONE, InHand, after_crash
from heddle.delivery.write_ahead import Remembers, WriteAhead
from heddle.errors import BrokerError, Failure, FailureClass, HeddleError, StaleGenerationError

TIMEOUT_S = 30.0


@dataclass(slots=True)
class Owned:
    """`settled`: the committed offset; `consumed`: one past the last record that was handed out. `condemned`: what was
    in hand, alone, when the process died. `ordered`: how much of the suspicion is about entries that commands before
    `commands_end` may have run; it lasts until these are done."""

    settled: int
    consumed: int
    metadata: PartitionMetadata
    condemned: InHand | None = None
    ordered: int = 0
    commands_end: int = 0
    ahead: WriteAhead = field(default_factory=WriteAhead)


class Assignment:
    """Owned partitions passed the handshake; pending ones are assigned and still have to."""

    def __init__(
        self, subscription: Subscription, topic: TopicState, consumer: Consumer, producer: Producer, reader: Reader,
        admin: Admin, step: Step, trail: AuditTrail, clock: Clock, batch_max_records: int, log: FilteringBoundLogger,
    ) -> None:  # fmt: skip
        self.owned: dict[int, Owned] = {}
        self.pending: set[int] = set()
        self.indexes: dict[int, PartitionIndex] = {}
        self._repeated: set[int] = set()
        self._subscription = subscription
        self._topic = topic
        self._consumer = consumer
        self._producer = producer
        self._reader = reader
        self._admin = admin
        self._step = step
        self._trail = trail
        self._clock = clock
        self._batch_max_records = batch_max_records
        self._log = log

    def follow(self) -> None:
        """Take in what the last `consume` changed. Partitions that went are forgotten even when they came back:
        their new ownership begins with a handshake of its own."""
        change = self._consumer.take_rebalance()
        gone = change.revoked | change.lost
        self.pending = (self.pending - gone) | change.assigned
        forgotten = [partition for partition in gone | change.assigned if partition in self.owned]
        for partition in forgotten:
            del self.owned[partition]
            self.indexes.pop(partition, None)
        self._repeated -= gone
        if forgotten:
            self._step.release(forgotten)
        if self.pending and max(self.pending) >= self._topic.partitions:
            raise BrokerError(
                f"{self._topic.name} has grown beyond {self._topic.partitions} partitions while its worker ran",
                hint="keys have moved; run `heddle plan` for what to do, then start the worker again",
            )

    def repeat(self, partitions: Iterable[int]) -> None:
        """The sink saw a later owner: these have to prove themselves again. No crash, so no other owner is counted."""
        for partition in partitions:
            if self.owned.pop(partition, None) is not None:
                self.indexes.pop(partition, None)
                self.pending.add(partition)
                self._repeated.add(partition)

    def handshake(self, group: GroupMetadata) -> None:
        """Turn pending partitions into owned ones, or leave them pending when the group has moved on."""
        partitions = sorted(self.pending)
        self._consumer.pause(partitions)
        found = self._positions(partitions)
        self._step.bump(partitions)
        resets = self._resets(found)
        try:
            self.commit(found, group, resets)
            for partition in partitions:
                self.indexes[partition] = self._restored(partition)
            self._suspect(found, group)
        except StaleGenerationError:
            self._producer.abort(TIMEOUT_S)
            for partition in partitions:
                self.indexes.pop(partition, None)
            return
        self.owned.update(found)
        self.pending.clear()
        self._repeated.clear()
        self._consumer.start({partition: owned.settled for partition, owned in found.items()})

    @property
    def bound(self) -> int:
        """How many records a batch of any partition may have: few while something is suspected of killing us."""
        return self.bound_of(self.owned)

    def bound_of(self, partitions: Iterable[int]) -> int:
        """The same for a batch of these alone."""
        bounds = self._bounds()
        return min((bounds[p] for p in partitions if p in bounds), default=self._batch_max_records)

    def fitting(self, partitions: Iterable[int], most: int) -> int:
        """How many records one batch takes on, of these, which are told by their partitions in order. What is not
        suspected, and comes before what is, runs without it."""
        bounds, count = self._bounds(), 0
        if not bounds:
            return most
        for partition in partitions:
            most = min(most, max(bounds.get(partition, most), count))
            if count >= most:
                break
            count += 1
        return count

    def _bounds(self) -> dict[int, int]:
        if self._subscription.at_most_once:
            return dict.fromkeys(self.owned, 1)
        suspicions = {p: owned.metadata.suspicion for p, owned in self.owned.items()}
        return {p: s.bound(self._batch_max_records) for p, s in suspicions.items() if s is not None}

    def name(self, partition: int, in_hand: InHand, group: GroupMetadata) -> Failure | None:
        """The attempt marker: what runs alone is named before it does. What killed the process when it was alone is
        not run again: its failure."""
        owned = self.owned[partition]
        if self._subscription.at_most_once:
            return self._marked(partition, owned, in_hand, group)
        suspicion = owned.metadata.suspicion
        if owned.condemned == in_hand:
            return Failure(0, FailureClass.POISON, KILLS, "", "the process died on it when it ran alone")
        if suspicion is not None and suspicion.level >= ALONE:
            owned.metadata = replace(owned.metadata, suspicion=suspicion.naming(in_hand))
            self.commit({partition: owned}, group)
        return None

    def _marked(self, partition: int, owned: Owned, in_hand: InHand, group: GroupMetadata) -> Failure | None:
        """The write-ahead mark. What comes again into the same hands is marked already."""
        in_doubt = owned.ahead.takes(in_hand)
        if owned.metadata.marks != owned.ahead.marks:
            marked = replace(owned.metadata, marks=owned.ahead.marks)
            self.commit({partition: replace(owned, metadata=marked)}, group)
            owned.metadata = marked  # not before the log has it: a call without a mark would be made twice
        return in_doubt

    def _has_run(self, partition: int) -> bool:
        return not isinstance(self._step, Remembers) or self._step.holds(partition)

    def marks_without_hand(self, partition: int) -> tuple[InHand, ...]:
        """Marks as they are once what is in hand has settled."""
        return self.owned[partition].ahead.settled().marks

    def hand_is_empty(self, partition: int) -> None:
        """What was in hand has settled."""
        owned = self.owned[partition]
        owned.ahead = owned.ahead.settled()
        if isinstance(self._step, Remembers):
            self._step.forget(partition)

    def unname(self, group: GroupMetadata) -> None:
        """What is in hand does not run for now: who dies meanwhile did not die of it. The caller aborts on
        `StaleGenerationError`."""
        idle = {}
        for partition, owned in self.owned.items():
            if owned.ahead.in_hand is not None and not self._has_run(partition):
                owned.ahead = owned.ahead.dropped()
                owned.metadata = replace(owned.metadata, marks=owned.ahead.marks)
                idle[partition] = owned
            suspicion = owned.metadata.suspicion
            if suspicion is not None and suspicion.in_hand not in (None, owned.condemned):
                owned.metadata = replace(owned.metadata, suspicion=replace(suspicion, in_hand=None))
                idle[partition] = owned
        if idle:
            self.commit(idle, group)

    def calm(self, has_done: Callable[[int, int], bool]) -> None:
        """Ends what is suspected of entries that commands had ordered, once these commands are done."""
        for partition, owned in self.owned.items():
            if owned.ordered and has_done(partition, owned.commands_end):
                suspicion, owned.ordered = owned.metadata.suspicion and owned.metadata.suspicion.after(owned.ordered), 0
                owned.metadata = replace(owned.metadata, suspicion=suspicion)

    def commit(self, found: dict[int, Owned], group: GroupMetadata, records: Sequence[Outgoing] = ()) -> None:
        """A transaction of positions, and of audit records. The caller aborts on `StaleGenerationError`."""
        self._producer.begin()
        self._producer.produce(records)
        positions = {partition: Position(o.settled, o.metadata.pack()) for partition, o in found.items()}
        self._producer.send_offsets(self._topic.name, positions, group)
        self._producer.commit(TIMEOUT_S)

    def release(self, partitions: Iterable[int]) -> None:
        """Clean end of their ownership, inside `consume` or at the very end: nobody after us has to suspect a crash.

        Best effort: a group or producer that will not take it says so again, louder, at the next commit."""
        marked = {p: self.owned[p] for p in partitions if p in self.owned and self.owned[p].metadata.started}
        if not marked:
            return
        released = {p: Owned(o.settled, o.consumed, self._released(p, o)) for p, o in marked.items()}
        try:
            self.commit(released, self._consumer.group_metadata())
        except HeddleError as error:
            self._log.warning("partitions were not released cleanly", partitions=sorted(marked), error=str(error))
            with contextlib.suppress(HeddleError):
                self._producer.abort(TIMEOUT_S)

    def _released(self, partition: int, owned: Owned) -> PartitionMetadata:
        """What is in hand and has not been begun is nobody's doubt."""
        metadata = owned.metadata.released()
        if owned.ahead.in_hand is None or self._has_run(partition):
            return metadata
        return replace(metadata, marks=owned.ahead.dropped().marks)

    def resume(self, *, but: Container[int] = ()) -> None:
        """Read on after a pause, from behind what is in hand."""
        self._consumer.start({p: owned.consumed for p, owned in self.owned.items() if p not in but})

    def pause(self) -> None:
        self._consumer.pause(self.owned)

    def _resets(self, found: dict[int, Owned]) -> list[Outgoing]:
        """Where the offset's witness is not the head of the audit topic, somebody else has moved one of the two: that
        is chained on what the topic holds."""
        records: list[Outgoing] = []
        tails = heads(self._reader, self._subscription.audit_topic, found, TIMEOUT_S)
        for partition, owned in found.items():
            witness, tail = owned.metadata.audit_head, tails[partition]
            if witness == (tail.hash if tail else ""):
                continue
            made, head = external_reset(self._trail, partition, witness, tail, {"offset": owned.settled})
            self._log.error("offsets or audit trail were changed from outside", partition=partition)
            records += made
            owned.metadata = replace(owned.metadata, audit_head=head)
        return records

    def _restored(self, partition: int) -> PartitionIndex:
        """Settled: the former owner's commit may be acknowledged and yet not be visible here for a moment."""
        entries = settled_newest(self._reader, self._subscription.dead_letter_topic, partition)
        index = PartitionIndex(self._topic.topic_id, self._subscription.order, self._subscription.on_failure.caps)
        index.restore(entries, self._clock.monotonic(), self._clock.wall_ms())
        return index

    def _suspect(self, found: dict[int, Owned], group: GroupMetadata) -> None:
        """After a crash: what the dead owner may have had in hand is run with care, and the next owner has to know. A
        suspicion that is older lasts no longer than there is something to suspect."""
        if self._subscription.at_most_once:
            return
        crashed = {p: o for p, o in found.items() if o.metadata.follows_crash and p not in self._repeated}
        changed = {}
        for partition, owned in found.items():
            was = owned.metadata.suspicion
            if was is None and partition not in crashed:
                continue
            pending = self._pending(partition, owned)
            suspicion = was
            if partition in crashed:
                owned.condemned = None if was is None else was.in_hand
                suspicion = after_crash(was, self._batch_max_records, pending)
            if suspicion is not None:
                suspicion = replace(suspicion, left=min(suspicion.left, pending)) if pending else None
            if suspicion != was:
                owned.metadata = replace(owned.metadata, suspicion=suspicion)
                changed[partition] = owned
        if changed:
            self.commit(changed, group)
        if crashed:
            starts = {partition: owned.metadata.started for partition, owned in crashed.items()}
            self._log.warning("took over from an owner that did not finish", partitions=starts)

    def _pending(self, partition: int, owned: Owned) -> int:
        """How many records and entries the owner before may have had in hand. Counted, not told from offsets: these
        have gaps, and a suspicion that outlasts its records would keep all batches small."""
        most, topic = self._batch_max_records, self._topic.name
        first, end = self._consumer.watermarks(partition, TIMEOUT_S)
        start = max(owned.settled, first)
        live = 0
        if start < end:
            records = cast("Generator[Record, None, None]", self._reader.scan(topic, partition, TIMEOUT_S, start))
            with contextlib.closing(records):
                live = sum(1 for _ in islice(records, most))
        index = self.indexes[partition]
        due = len(index.due(self._clock.monotonic(), most))
        owned.ordered = owned.commands_end = 0
        if len(index):
            last = self._reader.tails(self._subscription.command_topic, [partition], TIMEOUT_S)[partition]
            if last is not None and last.offset >= owned.metadata.next_command:
                owned.ordered, owned.commands_end = min(len(index), most), last.offset + 1
        return live + due + owned.ordered

    def _positions(self, partitions: list[int]) -> dict[int, Owned]:
        """Asks for these only: another owner's open transaction is no concern of ours."""
        committed = self._consumer.committed(partitions, TIMEOUT_S)
        found = {}
        for partition, position in committed.items():
            if position.offset == NEVER_COMMITTED:
                offset, metadata = self._first_start(partition), PartitionMetadata()
            else:
                offset, metadata = position.offset, PartitionMetadata.unpack(position.metadata)
            if partition not in self._repeated:
                metadata = metadata.taken_over(self._topic.partitions)
            doubts = tuple(mark for mark in metadata.marks if mark.kind != "live" or mark.offset >= offset)
            found[partition] = Owned(offset, offset, replace(metadata, marks=doubts), ahead=WriteAhead(doubts))
        return found

    def _first_start(self, partition: int) -> int:
        """Where a partition that never committed begins: where the subscription declares it, save for one that was
        added to a topic which the group knew without it: that is read whole."""
        first, end = self._consumer.watermarks(partition, TIMEOUT_S)
        if self._subscription.start == "earliest":
            return first
        everywhere = range(self._topic.partitions)
        known = self._admin.group_positions(self._subscription.group, self._topic.name, everywhere).values()
        counts = [PartitionMetadata.unpack(p.metadata).partitions for p in known if p.offset != NEVER_COMMITTED]
        return first if counts and partition >= max(counts) else end
