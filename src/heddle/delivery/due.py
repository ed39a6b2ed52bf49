"""Dead-letter entries whose time has come, with their bodies: the index holds none, they are read by offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heddle.broker.log import Reader, Record
from heddle.delivery.clock import Clock
from heddle.delivery.envelope import Entry, entry_key, may_have_effect, original_of
from heddle.delivery.index import EntryId, PartitionIndex, Run
from heddle.delivery.revision import as_handled
from heddle.delivery.settlement import Due
from heddle.errors import BrokerError

TIMEOUT_S = 30.0


class DueEntries:
    """One per worker. `topic`: the dead-letter topic. `max_bytes`: of bodies in one batch."""

    def __init__(
        self, reader: Reader, topic: str, indexes: Mapping[int, PartitionIndex], clock: Clock, max_bytes: int
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._indexes = indexes
        self._clock = clock
        self._max_bytes = max_bytes
        self._turn = 0

    def partitions(self) -> list[int]:
        """Those that have any."""
        now_s = self._clock.monotonic()
        return [partition for partition, index in self._indexes.items() if index.has_due(now_s)]

    def take(self, bound: int, *, has_live: bool) -> list[Due]:
        """Entries to run in this batch: half of it while live records come, and never much memory. Partitions take
        turns at being first, so that a long replay in one does not hold up the retries of another."""
        share = max(1, bound // 2) if has_live else bound
        now_s = self._clock.monotonic()
        entries: list[Entry] = []
        size = 0
        indexes = list(self._indexes.values())
        self._turn += 1
        first = self._turn % len(indexes) if indexes else 0
        for index in indexes[first:] + indexes[:first]:
            for entry in index.due(now_s, share - len(entries)):
                size += entry.size_bytes
                if size > self._max_bytes and entries:
                    break
                entries.append(entry)
        return self._loaded(entries)

    def _loaded(self, entries: list[Entry]) -> list[Due]:
        wanted: dict[int, list[int]] = {}
        for entry in entries:
            wanted.setdefault(entry.partition, []).append(entry.version)
        stored = {partition: self.bodies(partition, sorted(versions)) for partition, versions in wanted.items()}
        runs: dict[tuple[int, bytes | None], Run] = {}
        due = []
        for entry in entries:
            record = stored[entry.partition].get(entry.version)
            if record is None or record.key != entry_key(entry.topic_id, entry.partition, entry.offset, entry.key):
                raise BrokerError(
                    f"{self._topic}/{entry.partition} does not hold an entry at {entry.version}",
                    hint="something else wrote into this topic; start the worker again, it reads the topic anew",
                )
            index = self._indexes[entry.partition]
            is_ordered = index.is_ordered(entry)
            run = index.run_of(EntryId(entry.topic_id, entry.offset))
            if is_ordered:  # what waits behind an entry runs in the name of the same job
                run = run or runs.get((entry.partition, entry.key))
                if run is not None:
                    runs[entry.partition, entry.key] = run
            tried_since_ms = entry.first_failed_ms if may_have_effect(record) else 0
            handled = as_handled(original_of(record), entry.edit, is_ordered=is_ordered, tried_since_ms=tried_since_ms)
            due.append(Due(entry, record, handled, is_ordered, run))
        return due

    def bodies(self, partition: int, versions: Sequence[int]) -> Mapping[int, Record]:
        return self._reader.fetch(self._topic, partition, versions, TIMEOUT_S)
