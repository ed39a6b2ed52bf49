"""Group consumer of the in-memory broker."""

# ruff: noqa: ARG002 - the protocol has time-outs where memory does not wait

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heddle.broker.log import FIRST_RECORD_WAIT_S, OnRelease, Position, Rebalance, Record
from heddle.broker.memory.cluster import Cluster
from heddle.broker.memory.fetcher import Fetcher
from heddle.broker.memory.groups import Member, MemoryGroupMetadata
from heddle.errors import BrokerError

_NOTHING: frozenset[int] = frozenset()


class MemoryConsumer:
    def __init__(self, cluster: Cluster, group: str, topic: str, on_release: OnRelease | None = None) -> None:
        self._on_release = on_release
        self._cluster = cluster
        self._group = cluster.group(group)
        self._topic = topic
        self._member: Member | None = None
        self._owned: frozenset[int] = _NOTHING
        self._change = Rebalance(_NOTHING, _NOTHING, _NOTHING)
        self._fetcher = Fetcher(cluster)
        self._fetcher.topic = topic

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        with self._cluster.changed:
            return self._fetcher.fill(max_records, max_wait_s, self._serve_group, first_wait_s)

    def take_rebalance(self) -> Rebalance:
        change, self._change = self._change, Rebalance(_NOTHING, _NOTHING, _NOTHING)
        return change

    def assignment(self) -> frozenset[int]:
        return self._owned

    def group_metadata(self) -> MemoryGroupMetadata:
        if self._member is None:
            return MemoryGroupMetadata(self._group.name, "", -1)
        return MemoryGroupMetadata(self._group.name, self._member.name, self._member.generation)

    def committed(self, partitions: Iterable[int], timeout_s: float) -> dict[int, Position]:
        with self._cluster.changed:
            return self._cluster.committed(self._group.name, self._topic, partitions, timeout_s)

    def start(self, offsets: Mapping[int, int]) -> None:
        foreign = offsets.keys() - self._owned
        if foreign:
            raise BrokerError(f"partitions {sorted(foreign)} of {self._topic} are not assigned to this consumer")
        with self._cluster.changed:
            self._fetcher.positions.update(offsets)

    def pause(self, partitions: Iterable[int]) -> None:
        with self._cluster.changed:
            for partition in partitions:
                self._fetcher.positions.pop(partition, None)

    def watermarks(self, partition: int, timeout_s: float) -> tuple[int, int]:
        with self._cluster.changed:
            log = self._cluster.partition(self._topic, partition)
            return log.first, log.last_stable

    def close(self) -> None:
        with self._cluster.changed:
            if self._member is not None:
                self._group.leave(self._member)
                self._member = None
            self._owned = _NOTHING
            self._fetcher.positions.clear()
            self._cluster.changed.notify_all()

    def expel(self) -> None:
        """What the group coordinator does to a member whose session has timed out."""
        if self._member is not None:
            self._group.leave(self._member)
            self._cluster.changed.notify_all()

    def _serve_group(self) -> bool:
        """Take part in the group; true when the assignment may have changed."""
        group, now_s = self._group, self._cluster.clock()
        if self._member is not None and self._member.name not in group.members:
            self._take(lost=self._owned)
            self._member = None
        if self._member is None:
            self._member = group.join(now_s)
        changed = self._sync(self._member)
        generation = group.generation
        group.poll(self._member, self._owned, len(self._cluster.topic(self._topic).partitions), now_s)
        if group.generation != generation:
            changed = self._sync(self._member)
            self._cluster.changed.notify_all()
        return changed

    def _sync(self, member: Member) -> bool:
        """Take in what the last completed generation gave us."""
        if member.generation == member.granted:
            return False
        member.generation = member.granted
        revoked, assigned = self._owned - member.target, member.target - self._owned
        if revoked and self._on_release is not None:
            self._on_release(revoked - self._change.lost - self._change.assigned)
        self._take(assigned=assigned, revoked=revoked)
        if revoked:  # what we gave back goes to its new owner in the next generation
            self._group.rebalance()
        return True

    def _take(
        self, assigned: frozenset[int] = _NOTHING, revoked: frozenset[int] = _NOTHING, lost: frozenset[int] = _NOTHING
    ) -> None:
        self._owned = (self._owned - revoked - lost) | assigned
        for partition in revoked | lost:
            self._fetcher.positions.pop(partition, None)
        change = self._change
        self._change = Rebalance(
            change.assigned - revoked - lost | assigned, change.revoked | revoked, change.lost | lost
        )
