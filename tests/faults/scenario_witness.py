"""Sees from outside what workers do while they do it: audit records as they come, and committed positions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from faults_project import PARTITIONS

from heddle.audit import parse
from heddle.broker.log import BEGINNING, Broker
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.subscription import Subscription

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """A committed position, and how many records had settled by then."""

    subscription: str
    partition: int
    offset: int
    settled: int


class Witness:
    """`batches`: batches that committed, by subscription and instance. `looks`: every look at a position."""

    def __init__(self, broker: Broker, subscriptions: list[Subscription]) -> None:
        self.batches: Counter[tuple[str, str]] = Counter()
        self.looks: list[Look] = []
        self._subscriptions = {each.name: each for each in subscriptions}
        self._admin = broker.admin()
        self._readers = {each.name: broker.reader() for each in subscriptions}
        for each in subscriptions:
            self._readers[each.name].assign(each.audit_topic, dict.fromkeys(range(PARTITIONS), BEGINNING))

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._admin.close()

    def look(self) -> None:
        """Take in what is new."""
        for name, reader in self._readers.items():
            while records := reader.consume(500, 0.0, first_wait_s=0.02):
                for record in map(parse, records):
                    if record.kind == "batch":
                        self.batches[name, record.actor.partition(":")[2]] += 1

    def positions(self, name: str) -> dict[int, PartitionMetadata]:
        """What stands beside the committed offsets."""
        subscription = self._subscriptions[name]
        found = self._admin.group_positions(subscription.group, subscription.topic, range(PARTITIONS))
        metadata = {partition: PartitionMetadata.unpack(p.metadata) for partition, p in found.items()}
        self.looks += [Look(name, p, found[p].offset, each.counts.total) for p, each in metadata.items()]
        return metadata

    def settled(self, name: str) -> int:
        return sum(each.counts.total for each in self.positions(name).values())
