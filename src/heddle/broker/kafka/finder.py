"""Finding single records again: by their offsets, or from the end of a partition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import KafkaError

from heddle.broker.kafka.by_hand import ByHand, Messages
from heddle.broker.kafka.records import records_of
from heddle.broker.log import Record
from heddle.errors import BrokerDownError
from heddle.settings import Settings

_POLL_S = 0.1
_BATCH = 200
_SKIP_BYTES = 512 * 2**10
_ASSUMED_RECORD_BYTES = 1_000
_FIRST_STRIDE = 8
_STRIDE_GROWTH = 8
# Fetch a little at a time and only when all of it was taken: what lies behind a record that was found is not wanted.
_TUNING = {
    "fetch.message.max.bytes": 256 * 2**10,
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1024,
    "fetch.queue.backoff.ms": 1,
}


class Finder:
    """All offsets named here are within bounds that the caller has asked for: kept, and below the last stable offset.

    `OffsetLostError` where retention took a first offset meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._client = ByHand(settings, **_TUNING)

    def fetch(self, topic: str, partition: int, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        """The records at these rising offsets that are there."""
        wanted, found = set(offsets), dict[int, Record]()
        for start, end in _stretches(offsets):
            for messages in self._read(topic, {partition: start}, {partition: end}, timeout_s):
                hits = [m for m in messages if m.offset() in wanted]
                found.update((record.offset, record) for record in records_of(topic, hits))
        return found

    def tails(self, topic: str, bounds: Mapping[int, tuple[int, int]], timeout_s: float) -> dict[int, Record | None]:
        """The last record of each partition within its bounds (first offset, end): read from a little before the end
        on, and where nothing is there but markers, aborted records and gaps, from further back."""
        found: dict[int, Record | None] = dict.fromkeys(bounds)
        missing, stride = {p for p, (first, end) in bounds.items() if first < end}, _FIRST_STRIDE
        while missing:
            starts = {p: max(bounds[p][0], bounds[p][1] - stride) for p in missing}
            ends = {p: bounds[p][1] for p in missing}
            for messages in self._read(topic, starts, ends, timeout_s):
                found.update(_last_records(topic, messages, ends))
            missing = {p for p in missing if found[p] is None and starts[p] > bounds[p][0]}
            stride *= _STRIDE_GROWTH
        return found

    def close(self) -> None:
        self._client.close()

    def _read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], timeout_s: float
    ) -> Iterator[Messages]:
        """What comes, until every partition is past its end."""
        self._client.assign(topic, starts)
        positions, deadline = dict(starts), time.monotonic() + timeout_s
        try:
            while any(positions[p] < end for p, end in ends.items()):
                messages = self._client.take(1, _POLL_S)
                messages += self._client.take(_BATCH, 0)
                if problem := self._client.problem(messages):
                    raise problem
                if messages:
                    _advance(positions, messages)
                    deadline = time.monotonic() + timeout_s
                    yield messages
                elif time.monotonic() > deadline:
                    raise BrokerDownError(f"reading {topic} took too long", hint="check the brokers")
        finally:
            self._client.assign(topic, {})


def _stretches(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of what is read through."""
    start = end = offsets[0] if offsets else 0
    for offset in offsets:
        if offset - end > 500:
            yield start, end
            start = offset
        end = offset + 1
    if offsets:
        yield start, end


def _advance(positions: dict[int, int], messages: Messages) -> None:
    """The tail before an end may be a transaction marker or aborted records, which bring no message: the partition's
    end-of-file event, or a later record, then says that we are through."""
    for message in messages:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if partition in positions and offset is not None:
            if error is None:
                positions[partition] = max(positions[partition], offset + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                positions[partition] = max(positions[partition], offset)


def _last_records(topic: str, messages: Messages, ends: Mapping[int, int]) -> dict[int, Record]:
    last = {}
    for message in messages:
        if message.error() is None and (message.offset() or 0) < ends.get(message.partition() or 0, 0):
            last[message.partition()] = message
    return {record.partition: record for record in records_of(topic, last.values())}
