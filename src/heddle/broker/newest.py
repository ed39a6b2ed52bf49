"""A compacted partition from its end: the newest version of each key comes first, and older ones cost little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from heddle.broker.log import Reader, Record

TIMEOUT_S = 30.0
FIRST_STRETCH = 500
STRETCH_RECORDS = 2_000
"""What is held at a time, about: an entry with its stack has some kilobytes."""
GROWTH = 4


class Found(NamedTuple):
    """The newest versions in one stretch, newest first, tombstones left out. `read`: records that were looked at.
    `start`: the offset that the stretch begins at; at 0 nothing is left to read."""

    records: list[Record]
    read: int
    start: int


def settled_newest(reader: Reader, topic: str, partition: int) -> Iterator[Record]:
    """The newest version of every key that has one, in no order that matters, tombstones left out. Settled: waits until
    what is in the partition now is decided, and so misses nothing that was acknowledged before the call."""
    reader.tails(topic, [partition], TIMEOUT_S)
    for found in newest_of_partition(reader, topic, partition, first_stretch=STRETCH_RECORDS):
        yield from found.records


def newest_of_partition(
    reader: Reader, topic: str, partition: int, *, first_stretch: int = FIRST_STRETCH
) -> Iterator[Found]:
    """Stretch by stretch, each before the one that came last; the last reaches the partition's beginning.

    Stretches are measured in offsets, and long where the cleaner has left few records."""
    end = reader.last_stable_offset(topic, partition, TIMEOUT_S)
    seen: set[bytes | None] = set()
    length = first_stretch
    while end > 0:
        start = max(end - length, 0)
        newest = reader.newest(topic, partition, start, end, seen, TIMEOUT_S)
        end = start if newest.start == start else 0  # what lay before was deleted
        yield Found([record for record in newest.records if record.value is not None], newest.read, end)
        if newest.read * GROWTH <= STRETCH_RECORDS:
            length *= GROWTH
        elif newest.read > STRETCH_RECORDS * GROWTH:
            length //= GROWTH
