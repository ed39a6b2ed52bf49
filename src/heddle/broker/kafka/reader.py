"""Reading partitions assigned by hand."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any

from confluent_kafka import Message

from heddle.broker.kafka.by_hand import ByHand, Messages
from heddle.broker.kafka.finder import Finder
from heddle.broker.kafka.records import records_of
from heddle.broker.log import BEGINNING, END, FIRST_RECORD_WAIT_S, Newest, Record
from heddle.errors import BrokerDownError, HeddleError, OffsetLostError
from heddle.settings import Settings

_SETTLE_POLL_S = 0.005
_ASSIGN_TIMEOUT_S = 10.0
_LEAST_S = 0.1


# A stretch that ends at the end of its partition, as most do, is through when one more fetch was answered, and a
# question for offsets waits behind that fetch.
_TO_THE_END = {"fetch.wait.max.ms": 1}


class KafkaReader:
    """What is read to an end and what is followed have a client each: one that follows must not ask all the time, one
    that reads to an end must not wait."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = ByHand(settings, **_TO_THE_END)
        self._deferred: HeddleError | None = None

    def assign(self, topic: str, offsets: Mapping[int, int]) -> None:
        absolute = {partition: self._absolute(topic, partition, offset) for partition, offset in offsets.items()}
        self._deferred = None
        self._following.assign(topic, absolute)

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        if self._deferred is not None:
            error, self._deferred = self._deferred, None
            raise error
        messages = self._following.take(1, first_wait_s)
        if messages and max_records > 1:
            messages += self._following.take(max_records - 1, max_wait_s)
        records = records_of(self._following.topic, messages)
        problem = self._following.problem(messages)
        if problem is not None and not records:
            raise problem
        self._deferred = problem
        return records

    def scan(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> Iterator[Record]:
        if settled:
            self._settle(topic, partition, time.monotonic() + timeout_s)
        first, end = self._client.bounds(topic, partition, timeout_s)
        start = first if start == BEGINNING else start
        with closing(self._stretch(topic, partition, start, end, timeout_s)) as stretch:
            for messages in stretch:
                yield from (record for record in records_of(topic, messages) if record.offset < end)

    def read_range(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> list[Record]:
        return list(self.scan(topic, partition, timeout_s, start, settled=settled))

    def newest(
        self, topic: str, partition: int, start: int, end: int, seen: set[bytes | None], timeout_s: float
    ) -> Newest:
        """Twice through: keys alone, then what is wanted. To keep the messages would cost more than to read them again,
        and to make their headers ten times what their keys cost; most stretches hold nothing that is wanted."""
        last: dict[bytes | None, int] = {}
        try:
            read = self._note_keys(topic, partition, start, end, last, timeout_s)
        except OffsetLostError:
            start = self._client.bounds(topic, partition, timeout_s)[0]
            read = self._note_keys(topic, partition, start, end, last, timeout_s)
        wanted = {offset for key, offset in last.items() if key not in seen}
        seen.update(last)
        return Newest(self._picked(topic, partition, wanted, timeout_s), start, read)

    def _note_keys(
        self, topic: str, partition: int, start: int, end: int, last: dict[bytes | None, int], timeout_s: float
    ) -> int:
        """Fills in the last offset of each key; returns how many records there are."""
        read = 0
        for messages in self._stretch(topic, partition, start, end, timeout_s):
            found = [(m.key(), _offset_of(m)) for m in messages if m.error() is None and _offset_of(m) < end]
            last.update(found)
            read += len(found)
        return read

    def _picked(self, topic: str, partition: int, wanted: set[int], timeout_s: float) -> list[Record]:
        """Last first."""
        found: list[Record] = []
        if wanted:
            for messages in self._stretch(topic, partition, min(wanted), max(wanted) + 1, timeout_s):
                found += records_of(topic, [m for m in messages if m.offset() in wanted and m.error() is None])
        return found[::-1]

    def _stretch(
        self, topic: str, partition: int, start: int, end: int, timeout_s: float
    ) -> Generator[Messages, None, None]:
        """The records from `start` up to `end`, and events among them; leaves nothing assigned."""
        self._deferred = None
        if "_following" in vars(self):
            self._following.assign(topic, {})
        with closing(self._client.read(topic, {partition: start}, {partition: end}, timeout_s)) as reading:
            yield from reading

    def fetch(self, topic: str, partition: int, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        if not offsets:
            return {}
        deadline = time.monotonic() + timeout_s
        self._reach(topic, partition, offsets[-1] + 1, deadline)
        while True:
            first = self._client.bounds(topic, partition, _left(deadline))[0]
            kept = [offset for offset in offsets if offset >= first]
            try:
                return self._finder.fetch(topic, partition, kept, _left(deadline)) if kept else {}
            except OffsetLostError:
                if self._client.bounds(topic, partition, _left(deadline))[0] == first:
                    raise

    def tails(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, Record | None]:
        deadline, wanted = time.monotonic() + timeout_s, list(partitions)
        for partition in wanted:
            self._settle(topic, partition, deadline)
        while True:
            bounds = {partition: self._client.bounds(topic, partition, _left(deadline)) for partition in wanted}
            try:
                return self._finder.tails(topic, bounds, _left(deadline))
            except OffsetLostError:
                if time.monotonic() > deadline:
                    raise

    def offset_at(self, topic: str, partition: int, timestamp_ms: int, timeout_s: float) -> int:
        found = self._client.offset_at(topic, partition, max(timestamp_ms, 0), timeout_s)
        return found if found >= 0 else self.last_stable_offset(topic, partition, timeout_s)

    def last_stable_offset(self, topic: str, partition: int, timeout_s: float) -> int:
        return self._client.bounds(topic, partition, timeout_s)[1]

    def close(self) -> None:
        self._client.close()
        for part in ("_following", "_uncommitted", "_finder"):
            if part in vars(self):
                getattr(self, part).close()

    def _settle(self, topic: str, partition: int, deadline: float) -> None:
        """Wait until the last stable offset reaches what is the end now, open transactions included."""
        self._reach(topic, partition, self._uncommitted.bounds(topic, partition, _left(deadline))[1], deadline)

    def _reach(self, topic: str, partition: int, end: int, deadline: float) -> None:
        while self.last_stable_offset(topic, partition, _left(deadline)) < end:
            if time.monotonic() > deadline:
                raise BrokerDownError(
                    f"a transaction in {topic}/{partition} does not end",
                    hint="its owner, or a successor with the same instance name, has to decide it. If that one says so "
                    "itself, its end is lost: see docs/how-to/dead-letters.md, a transaction without an end",
                )
            time.sleep(_SETTLE_POLL_S)

    @cached_property
    def _following(self) -> ByHand:
        """Of `assign` and `consume`."""
        return ByHand(self._settings)

    @cached_property
    def _uncommitted(self) -> ByHand:
        """Asks for ends that include open transactions; reads nothing."""
        return ByHand(self._settings, **{"isolation.level": "read_uncommitted"})

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self._settings)

    def _absolute(self, topic: str, partition: int, offset: int) -> int:
        """`END` is the end as of now, not as of the first fetch."""
        if offset not in (BEGINNING, END):
            return offset
        first, end = self._client.bounds(topic, partition, _ASSIGN_TIMEOUT_S)
        return first if offset == BEGINNING else end


def _offset_of(message: Message[Any, Any]) -> int:
    return message.offset() or 0


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _LEAST_S)
