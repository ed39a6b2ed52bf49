"""The assignment handshake, and what a worker knows of the partitions that it owns.

pause → committed() until a former owner's pending offsets are decided → bump the sink's fence → one transaction that
commits the same offsets again with new metadata and so *proves* ownership → restore gates → start reading.
The order is the guarantee: restoring gates before the former owner's commit had landed would miss a park in flight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from heddle.broker.log import NEVER_COMMITTED, Admin, Consumer, GroupMetadata, Position, Producer, Reader, TopicState
from heddle.delivery.gates import Gates
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.steps import Step
from heddle.delivery.subscription import Subscription
from heddle.errors import BrokerError, HeddleError, StaleGenerationError

TIMEOUT_S = 30.0


@dataclass(slots=True)
class Owned:
    """`settled`: the committed offset; `consumed`: one past the last record that was handed out."""

    settled: int
    consumed: int
    metadata: PartitionMetadata


class Assignment:
    """Owned partitions passed the handshake; pending ones are assigned and still have to."""

    def __init__(
        self, subscription: Subscription, topic: TopicState, consumer: Consumer, producer: Producer, reader: Reader,
        admin: Admin, step: Step, gates: Gates, log: FilteringBoundLogger,
    ) -> None:  # fmt: skip
        self.owned: dict[int, Owned] = {}
        self.pending: set[int] = set()
        self._repeated: set[int] = set()
        self._subscription = subscription
        self._topic = topic
        self._consumer = consumer
        self._producer = producer
        self._reader = reader
        self._admin = admin
        self._step = step
        self._gates = gates
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
        self._repeated -= gone
        self._gates.drop(forgotten)
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
                self.pending.add(partition)
                self._repeated.add(partition)

    def handshake(self, group: GroupMetadata) -> None:
        """Turn pending partitions into owned ones, or leave them pending when the group has moved on."""
        partitions = sorted(self.pending)
        self._consumer.pause(partitions)
        found = self._positions(partitions)
        self._step.bump(partitions)
        try:
            self.commit({p: Position(o.settled, o.metadata.pack()) for p, o in found.items()}, group)
        except StaleGenerationError:
            self._producer.abort(TIMEOUT_S)
            return
        for partition in partitions:
            # Settled: the former owner's commit may be acknowledged and yet not be visible here for a moment.
            entries = self._reader.scan(self._subscription.dead_letter_topic, partition, TIMEOUT_S, settled=True)
            self._gates.restore(partition, self._topic.topic_id, entries)
        self.owned.update(found)
        self.pending.clear()
        self._repeated.clear()
        self._consumer.start({partition: owned.settled for partition, owned in found.items()})
        suspects = {p: o.metadata.started for p, o in found.items() if o.metadata.started > 1}
        if suspects:
            self._log.warning("took over from an owner that did not finish", partitions=suspects)

    def commit(self, positions: dict[int, Position], group: GroupMetadata) -> None:
        """A transaction of positions only. The caller aborts on `StaleGenerationError`."""
        self._producer.begin()
        self._producer.send_offsets(self._topic.name, positions, group)
        self._producer.commit(TIMEOUT_S)

    def release(self, partitions: Iterable[int]) -> None:
        """Clean end of their ownership, inside `consume` or at the very end: nobody after us has to suspect a crash.

        Best effort: a group or producer that will not take it says so again, louder, at the next commit."""
        marked = {p: self.owned[p] for p in partitions if p in self.owned and self.owned[p].metadata.started}
        if not marked:
            return
        positions = {p: Position(o.settled, o.metadata.released().pack()) for p, o in marked.items()}
        try:
            self.commit(positions, self._consumer.group_metadata())
        except HeddleError as error:
            self._log.warning("partitions were not released cleanly", partitions=sorted(marked), error=str(error))
            with contextlib.suppress(HeddleError):
                self._producer.abort(TIMEOUT_S)

    def resume(self) -> None:
        """Read on after a pause, from behind what is in hand."""
        self._consumer.start({partition: owned.consumed for partition, owned in self.owned.items()})

    def pause(self) -> None:
        self._consumer.pause(self.owned)

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
            found[partition] = Owned(offset, offset, metadata)
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
