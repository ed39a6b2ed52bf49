"""Reader of the in-memory broker."""

# ruff: noqa: ARG002 - the protocol has time-outs where memory does not wait

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from heddle.broker.log import BEGINNING, END, FIRST_RECORD_WAIT_S, Newest, Record
from heddle.broker.memory.cluster import Cluster
from heddle.broker.memory.fetcher import Fetcher


class MemoryReader:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._fetcher = Fetcher(cluster)

    def assign(self, topic: str, offsets: Mapping[int, int]) -> None:
        with self._cluster.changed:
            self._fetcher.topic = topic
            self._fetcher.positions = {p: self._offset(topic, p, offset) for p, offset in offsets.items()}

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        with self._cluster.changed:
            return self._fetcher.fill(max_records, max_wait_s, lambda: False, first_wait_s)

    def scan(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> Iterator[Record]:
        yield from self.read_range(topic, partition, timeout_s, start, settled=settled)

    def read_range(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> list[Record]:
        with self._cluster.changed:
            self._fetcher.positions.clear()
            log = self._cluster.partition(topic, partition)
            end = log.end
            if settled:
                self._cluster.wait(lambda: log.last_stable >= end, timeout_s)
            return log.read(self._offset(topic, partition, start), log.end + 1)[0]

    def newest(
        self, topic: str, partition: int, start: int, end: int, seen: set[bytes | None], timeout_s: float
    ) -> Newest:
        with self._cluster.changed:
            log = self._cluster.partition(topic, partition)
            start = max(start, log.first)
            stretch = [r for r in log.read(start, end - start)[0] if r.offset < end] if start < end else []
        records = []
        for record in reversed(stretch):
            if record.key not in seen:
                seen.add(record.key)
                records.append(record)
        return Newest(records, start, len(stretch))

    def fetch(self, topic: str, partition: int, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        if not offsets:
            return {}
        with self._cluster.changed:
            log = self._cluster.partition(topic, partition)
            self._cluster.wait(lambda: log.last_stable > offsets[-1], timeout_s)
            return log.at(offsets)

    def tails(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, Record | None]:
        with self._cluster.changed:
            logs = {partition: self._cluster.partition(topic, partition) for partition in partitions}
            ends = {partition: log.end for partition, log in logs.items()}
            self._cluster.wait(lambda: all(logs[p].last_stable >= end for p, end in ends.items()), timeout_s)
            return {partition: log.tail() for partition, log in logs.items()}

    def offset_at(self, topic: str, partition: int, timestamp_ms: int, timeout_s: float) -> int:
        with self._cluster.changed:
            return self._cluster.partition(topic, partition).offset_at(timestamp_ms)

    def last_stable_offset(self, topic: str, partition: int, timeout_s: float) -> int:
        with self._cluster.changed:
            return self._cluster.partition(topic, partition).last_stable

    def close(self) -> None:
        self._fetcher.positions.clear()

    def _offset(self, topic: str, partition: int, offset: int) -> int:
        log = self._cluster.partition(topic, partition)
        return {BEGINNING: log.first, END: log.last_stable}.get(offset, offset)
