"""Finding single records again: by their offsets, or from the end of a partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing

from heddle.broker.kafka.by_hand import ByHand, Messages
from heddle.broker.kafka.records import records_of
from heddle.broker.log import Record
from heddle.settings import Settings

_SKIP_BYTES = 512 * 2**10  # takes about as long to read as another assignment does
_HEADERS_BYTES = 500  # of a record, by guess
_FIRST_STRIDE = 8
_STRIDE_GROWTH = 8
# Fetch a little at a time and only when all of it was taken: what lies behind a record that was found is not wanted.
_TUNING = {
    "fetch.message.max.bytes": 256 * 2**10,
    "queued.min.messages": 1000,
    "queued.max.messages.kbytes": 1024,
    "fetch.queue.backoff.ms": 1,
    "fetch.wait.max.ms": 1,  # there is always something: only the end of a partition is told by an empty answer
}


class Finder:
    """All offsets named here are within bounds that the caller has asked for: kept, and below the last stable offset.

    `OffsetLostError` where retention took a first offset meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._client = ByHand(settings, **_TUNING)

    def fetch(self, topic: str, partition: int, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        """The records at these rising offsets, at least one, that are there."""
        wanted, found, size = set(offsets), dict[int, Record](), _RecordSize()
        end, missing = offsets[-1] + 1, deque(offsets)
        while missing:
            positions = {partition: missing[0]}
            with closing(self._client.read(topic, positions, {partition: end}, timeout_s)) as reading:
                for messages in reading:
                    records = [m for m in messages if m.error() is None]
                    found.update((r.offset, r) for r in records_of(topic, [m for m in records if m.offset() in wanted]))
                    size.add(records)
                    while missing and missing[0] < positions[partition]:
                        missing.popleft()
                    if missing and (missing[0] - positions[partition]) * size.mean_bytes > _SKIP_BYTES:
                        break
        return found

    def tails(self, topic: str, bounds: Mapping[int, tuple[int, int]], timeout_s: float) -> dict[int, Record | None]:
        """The last record of each partition within its bounds (first offset, end): read from a little before the end
        on, and where nothing is there but markers, aborted records and gaps, from further back."""
        found: dict[int, Record | None] = dict.fromkeys(bounds)
        missing, stride = {p for p, (first, end) in bounds.items() if first < end}, _FIRST_STRIDE
        while missing:
            starts = {p: max(bounds[p][0], bounds[p][1] - stride) for p in missing}
            ends = {p: bounds[p][1] for p in missing}
            for messages in self._client.read(topic, dict(starts), ends, timeout_s):
                found.update(_last_records(topic, messages, ends))
            missing = {p for p in missing if found[p] is None and starts[p] > bounds[p][0]}
            stride *= _STRIDE_GROWTH
        return found

    def close(self) -> None:
        self._client.close()


class _RecordSize:
    """Learns from what was read how much may lie in a stretch of offsets."""

    def __init__(self) -> None:
        self._records = self._bytes = 0

    def add(self, messages: Messages) -> None:
        self._records += len(messages)
        self._bytes += sum(map(len, messages))  # of their values

    @property
    def mean_bytes(self) -> float:
        return self._bytes / max(self._records, 1) + _HEADERS_BYTES


def _last_records(topic: str, messages: Messages, ends: Mapping[int, int]) -> dict[int, Record]:
    last = {}
    for message in messages:
        if message.error() is None and (message.offset() or 0) < ends.get(message.partition() or 0, 0):
            last[message.partition()] = message
    return {record.partition: record for record in records_of(topic, last.values())}
