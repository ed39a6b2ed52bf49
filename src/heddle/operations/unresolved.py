"""How many dead letters are unresolved: read from the newest on, and only so far as there is time for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from heddle.broker.log import Admin, Reader, Record
from heddle.broker.newest import newest_of_partition
from heddle.delivery import envelope
from heddle.delivery.envelope import State, entry_of
from heddle.errors import FormatError

_MIN_RECORDS_PER_PARTITION = 200


class Effort(NamedTuple):
    """How far counting goes in one topic: about `max_records` are read, and nothing is begun after `time_s`."""

    max_records: int
    time_s: float


QUICK = Effort(5_000, 1.0)
THOROUGH = Effort(5_000_000, 60.0)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """`oldest_ms`: since when the oldest of them is unresolved, 0 when there is none. `reads`: the topic that they
    come from, "" when no entry of ours was seen. Not `complete`: there may be more, and older ones. `unreadable`: an
    entry that could not be read and why, "" for none."""

    by_state: Mapping[State, int] = field(default_factory=dict)
    oldest_ms: int = 0
    reads: str = ""
    complete: bool = True
    unreadable: str = ""

    @property
    def total(self) -> int:
        return sum(self.by_state.values())

    @property
    def oldest(self) -> datetime | None:
        return datetime.fromtimestamp(self.oldest_ms / 1000, UTC) if self.oldest_ms else None

    def __bool__(self) -> bool:
        return bool(self.total or self.unreadable)

    def __str__(self) -> str:
        """`12 dead, 3 waiting`; a `+` says that there may be more."""
        counts = [f"{self.by_state[state]:,} {state}" for state in State if self.by_state.get(state)]
        return ", ".join(counts) + ("" if self.complete else "+")

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "total": self.total,
            "by_state": {str(state): count for state, count in self.by_state.items() if count},
            "oldest_at": self.oldest.isoformat() if self.oldest else None,
            "complete": self.complete,
            "unreadable": self.unreadable,
        }


def count_unresolved(
    admin: Admin, reader: Reader, partitions: Mapping[str, int], effort: Effort = QUICK
) -> dict[str, Unresolved]:
    """Of each of these dead-letter topics, which have so many partitions. `effort` is for each topic: one that holds
    nothing costs none, however many there are."""
    ends = admin.end_offsets({topic: range(count) for topic, count in partitions.items()})
    return {topic: _count(reader, topic, [p for p, end in ends[topic].items() if end], effort) for topic in partitions}


def _count(reader: Reader, topic: str, partitions: Sequence[int], effort: Effort) -> Unresolved:
    each = max(effort.max_records // (len(partitions) or 1), _MIN_RECORDS_PER_PARTITION)
    counting, deadline = _Counting(), time.monotonic() + effort.time_s
    for partition in partitions:
        read = 0
        for found in newest_of_partition(reader, topic, partition):
            counting.add(found.records)
            read += found.read
            if found.start and (read >= each or time.monotonic() > deadline):
                counting.complete = False
                break
    return counting.result()


@dataclass(slots=True)
class _Counting:
    complete: bool = True
    _by_state: Counter[State] = field(default_factory=Counter)
    _oldest_ms: int = 0
    _reads: str = ""
    _unreadable: str = ""

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        if not self._reads:
            headers = dict(record.headers)
            self._reads = (headers.get(envelope.TOPIC) or b"").decode() if envelope.FORMAT in headers else ""
        try:
            entry = entry_of(record)
        except FormatError as error:
            self._unreadable = f"partition {record.partition}, offset {record.offset}: {error}"
            return
        if entry.state.is_marker:
            return
        since_ms = entry.first_failed_ms or entry.appended_ms
        self._oldest_ms = min(self._oldest_ms or since_ms, since_ms)
        self._by_state[entry.state] += 1

    def result(self) -> Unresolved:
        return Unresolved(dict(self._by_state), self._oldest_ms, self._reads, self.complete, self._unreadable)
