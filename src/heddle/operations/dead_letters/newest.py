"""A compacted partition from its end: the newest version of each key comes first, and a page needs no more than that.

What lies before a stretch cannot change what was found in it: the newer version decides. So the versions of a key
that come later in this order are dropped by their key alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple, cast

from heddle.broker.log import BEGINNING, Reader, Record
from heddle.errors import OffsetLostError

TIMEOUT_S = 30.0
FIRST_STRETCH = 500
LONGEST_STRETCH = 20_000
GROWTH = 4


class Found(NamedTuple):
    """The newest versions in one stretch, newest first, tombstones left out. `read`: records that were looked at.
    `start`: the offset that the stretch begins at; at 0 nothing is left to read."""

    records: list[Record]
    read: int
    start: int


def newest_of_partition(
    reader: Reader, topic: str, partition: int, *, first_stretch: int = FIRST_STRETCH
) -> Iterator[Found]:
    """Stretch by stretch, each earlier and longer than the one before; the last reaches the partition's beginning.

    Stretches are measured in offsets: what the cleaner has taken makes them shorter in records."""
    end = reader.last_stable_offset(topic, partition, TIMEOUT_S)
    seen: set[bytes | None] = set()
    length = first_stretch
    while end > 0:
        start = max(end - length, 0)
        records, start = _stretch(reader, topic, partition, start, end)
        yield Found(_newest(records, seen), len(records), start)
        end, length = start, min(length * GROWTH, LONGEST_STRETCH)


def _stretch(reader: Reader, topic: str, partition: int, start: int, end: int) -> tuple[list[Record], int]:
    """Records of [start, end), and the offset that they begin at: 0 where records before `end` were deleted."""
    try:
        return _between(reader, topic, partition, start or BEGINNING, end), start
    except OffsetLostError:
        return _between(reader, topic, partition, BEGINNING, end), 0


def _between(reader: Reader, topic: str, partition: int, start: int, end: int) -> list[Record]:
    found = []
    scan = cast(Generator[Record, None, None], reader.scan(topic, partition, TIMEOUT_S, start))
    with closing(scan) as records:
        for record in records:
            if record.offset >= end:
                break
            found.append(record)
            if record.offset == end - 1:
                break
    return found


def _newest(records: list[Record], seen: set[bytes | None]) -> list[Record]:
    newest = []
    for record in reversed(records):
        if record.key not in seen:
            seen.add(record.key)
            if record.value is not None:
                newest.append(record)
    return newest
