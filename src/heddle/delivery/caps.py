"""Bounds on what may be unresolved: a partition at its cap reads nothing new, and nothing is dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from heddle.broker.log import Record
from heddle.delivery.index import PartitionIndex


class Full(NamedTuple):
    """From which offset on a partition waits, what an operator should know, and which key alone is at its cap."""

    offset: int
    reason: str
    key: bytes | None = None


def fit(records: Sequence[Record], indexes: Mapping[int, PartitionIndex]) -> tuple[list[Record], dict[int, Full]]:
    """The records for which there is room even if all of them are parked, and the partitions that have to wait."""
    if all(index.has_room_for(len(records)) for index in indexes.values()):
        return list(records), {}
    room = {partition: index.room() for partition, index in indexes.items()}
    full: dict[int, Full] = {}
    per_key: Counter[tuple[int, bytes]] = Counter()
    kept = []
    for record in records:
        partition, index = record.partition, indexes[record.partition]
        if partition in full:
            continue
        if room[partition] <= 0:
            full[partition] = Full(record.offset, _of_partition(index))
            continue
        if record.key is not None:
            per_key[partition, record.key] += 1
            if per_key[partition, record.key] > index.room(record.key):
                reason = f"cap: {index.caps.entries_per_key} entries of one key"
                full[partition] = Full(record.offset, reason, record.key)
                continue
        room[partition] -= 1
        kept.append(record)
    return kept, full


def has_room_again(index: PartitionIndex, key: bytes | None = None) -> bool:
    """A little more than for one, so that a partition does not come and go with each entry."""
    if key is not None and index.room(key) <= index.caps.entries_per_key // 20:
        return False
    return index.room() > index.caps.entries // 20 and index.size_bytes < index.caps.bytes * 0.95


def _of_partition(index: PartitionIndex) -> str:
    if index.size_bytes >= index.caps.bytes:
        return f"cap: {index.caps.bytes} bytes of entries"
    return f"cap: {index.caps.entries} entries"
