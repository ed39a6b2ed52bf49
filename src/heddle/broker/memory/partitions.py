"""Partition logs in memory: offsets, transaction markers, the last stable offset, compaction."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from heddle.broker.log import Position, Record, TopicSpec
from heddle.errors import OffsetLostError


class Decision(Enum):
    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of one producer epoch. `offsets` are the pending positions: (group, topic, partition)."""

    began_s: float
    decision: Decision = Decision.OPEN
    partitions: list[PartitionLog] = field(default_factory=list)
    offsets: dict[tuple[str, str, int], Position] = field(default_factory=dict)


class Entry(NamedTuple):
    """A record, or with `record` None the marker of the decided transaction. Both take up an offset."""

    offset: int
    record: Record | None
    transaction: Transaction

    @property
    def visible(self) -> bool:
        return self.record is not None and self.transaction.decision is Decision.COMMITTED


class PartitionLog:
    """What one partition holds. Not locked: the cluster's lock guards it."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.first = 0
        self.end = 0
        self._entries: list[Entry] = []
        self._open: dict[Transaction, int] = {}

    @property
    def last_stable(self) -> int:
        """The offset that no read-committed reader passes: the first record of the oldest open transaction."""
        return min(self._open.values(), default=self.end)

    def append(self, record: Record, transaction: Transaction) -> int:
        """`record.offset` is ours to give; returns it."""
        if transaction not in self._open:
            self._open[transaction] = self.end
            transaction.partitions.append(self)
        offset = self.end
        self._entries.append(Entry(offset, record._replace(offset=offset), transaction))
        self.end += 1
        return offset

    def mark(self, transaction: Transaction) -> None:
        """Write the marker of a transaction that was decided just now."""
        del self._open[transaction]
        self._entries.append(Entry(self.end, None, transaction))
        self.end += 1

    def read(self, offset: int, max_records: int) -> tuple[list[Record], int]:
        """Committed records from `offset` on, and the position behind what was looked at."""
        if not self.first <= offset <= self.end:
            raise OffsetLostError(
                f"offset {offset} of {self.topic}/{self.partition} is out of its range, {self.first} to {self.end}",
                hint="records were deleted before they were read, or the topic was made again",
            )
        records: list[Record] = []
        stable = self.last_stable
        for index in range(self._index(offset), len(self._entries)):
            entry = self._entries[index]
            if entry.offset >= stable:
                break
            if len(records) == max_records:
                return records, entry.offset
            if entry.visible and entry.record is not None:
                records.append(entry.record)
        return records, max(offset, stable)

    def at(self, offsets: Iterable[int]) -> dict[int, Record]:
        """The committed records at these offsets, as far as they are kept."""
        found = {}
        for offset in offsets:
            index = self._index(offset)
            if index < len(self._entries):
                entry = self._entries[index]
                if entry.offset == offset and entry.visible and entry.record is not None:
                    found[offset] = entry.record
        return found

    def tail(self) -> Record | None:
        """The last committed record below the last stable offset."""
        stable = self.last_stable
        visible = (e.record for e in reversed(self._entries) if e.offset < stable and e.visible)
        return next(visible, None)

    def offset_at(self, timestamp_ms: int) -> int:
        """The first offset of that time or later, else the last stable one."""
        stable = self.last_stable
        later = (e.offset for e in self._entries if e.record is not None and e.record.timestamp_ms >= timestamp_ms)
        return min(next(later, stable), stable)

    def compact(self) -> None:
        """Below the last stable offset keep the newest committed record of each key, tombstones and markers."""
        stable = self.last_stable
        newest: dict[bytes | None, int] = {}
        for entry in self._entries:
            if entry.record is not None and entry.offset < stable and entry.visible:
                newest[entry.record.key] = entry.offset
        kept = set(newest.values())
        self._entries = [e for e in self._entries if e.offset >= stable or e.record is None or e.offset in kept]

    def delete_before(self, offset: int) -> None:
        """What retention does: records below `offset` are gone."""
        self.first = max(self.first, min(offset, self.last_stable))
        del self._entries[: self._index(self.first)]

    def _index(self, offset: int) -> int:
        return bisect_left(self._entries, offset, key=_offset_of)


class Topic:
    def __init__(self, spec: TopicSpec, topic_id: str) -> None:
        self.topic_id = topic_id
        self.config = dict(spec.config)
        self.replication = spec.replication or 1
        self.partitions = [PartitionLog(spec.name, partition) for partition in range(spec.partitions)]

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.config.get("cleanup.policy", "delete")


def _offset_of(entry: Entry) -> int:
    return entry.offset
