"""Reading partitions assigned by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from heddle.broker.kafka.config import reader_config
from heddle.broker.kafka.failures import PASSING, UNKNOWN_TOPIC, Reasons, configured, failure, translated
from heddle.broker.kafka.records import errors_of, records_of
from heddle.broker.log import BEGINNING, END, FIRST_RECORD_WAIT_S, Record
from heddle.errors import BrokerDownError, HeddleError
from heddle.settings import Settings

_BATCH = 1_000
_POLL_S = 0.1
_SETTLE_POLL_S = 0.005
_ASSIGN_TIMEOUT_S = 10.0
_SLICE_S = 1.0
_SLICE_SLACK_S = 0.1
# librdkafka looks for a group's coordinator even where nobody joins the group; that we may not is no failure.
_PASSING = PASSING | {KafkaError.GROUP_AUTHORIZATION_FAILED}


class KafkaReader:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = ""
        self._reasons = Reasons()
        self._deferred: HeddleError | None = None
        with configured():
            self._client = Client(reader_config(settings, self._reasons))

    def assign(self, topic: str, offsets: Mapping[int, int]) -> None:
        found = {p: self._absolute(topic, p, offset) for p, offset in offsets.items()}
        self._assign(topic, [TopicPartition(topic, partition, offset) for partition, offset in found.items()])

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        if self._deferred is not None:
            error, self._deferred = self._deferred, None
            raise error
        with translated(f"reading {self._topic}", self._reasons):
            messages = self._client.consume(1, first_wait_s)
            if messages and max_records > 1:
                messages += self._client.consume(max_records - 1, max_wait_s)
        records = records_of(self._topic, messages)
        problem = self._problem(messages)
        if problem is not None and not records:
            raise problem
        self._deferred = problem
        return records

    def scan(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> Iterator[Record]:
        if settled:
            self._settle(topic, partition, time.monotonic() + timeout_s)
        first, end = self._watermarks(topic, partition, timeout_s)
        start = first if start == BEGINNING else start
        if start >= end:
            return
        self._assign(topic, [TopicPartition(topic, partition, start)])
        try:
            yield from self._read_until(end, timeout_s)
        finally:
            self._assign(topic, [])

    def read_range(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> list[Record]:
        return list(self.scan(topic, partition, timeout_s, start, settled=settled))

    def last_stable_offset(self, topic: str, partition: int, timeout_s: float) -> int:
        return self._watermarks(topic, partition, timeout_s)[1]

    def close(self) -> None:
        with translated("closing a reader", self._reasons):
            self._client.close()
            if "_uncommitted" in vars(self):
                self._uncommitted.close()

    def _settle(self, topic: str, partition: int, deadline: float) -> None:
        """Wait until the last stable offset reaches what is the end now, open transactions included."""
        end = self._watermarks(topic, partition, max(deadline - time.monotonic(), 0.1), self._uncommitted)[1]
        while self.last_stable_offset(topic, partition, max(deadline - time.monotonic(), 0.1)) < end:
            if time.monotonic() > deadline:
                raise BrokerDownError(
                    f"a transaction in {topic}/{partition} does not end",
                    hint="its owner, or a successor with the same instance name, has to decide it",
                )
            time.sleep(_SETTLE_POLL_S)

    @cached_property
    def _uncommitted(self) -> Client:
        """Asks for ends that include open transactions; reads nothing."""
        return Client(reader_config(self._settings, self._reasons) | {"isolation.level": "read_uncommitted"})

    def _read_until(self, end: int, timeout_s: float) -> Iterator[Record]:
        """The tail before `end` may be a transaction marker or aborted records, which bring no message: the partition's
        end-of-file event, or a later record, then says that we are through."""
        deadline = time.monotonic() + timeout_s
        while True:
            with translated(f"reading {self._topic}", self._reasons):
                messages = self._client.consume(1, _POLL_S)
                messages += self._client.consume(_BATCH, 0)
            found = records_of(self._topic, messages)
            if problem := self._problem(messages):
                raise problem
            yield from (record for record in found if record.offset < end)
            offset = max((m.offset() or 0 for m in messages), default=0)
            if offset >= end or (found and offset == end - 1):
                return
            if found:
                deadline = time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                raise BrokerDownError(f"reading {self._topic} to offset {end} took too long", hint="check the brokers")

    def _assign(self, topic: str, partitions: list[TopicPartition]) -> None:
        self._topic, self._deferred = topic, None
        with translated(f"reading {topic}", self._reasons):
            self._client.assign(partitions)

    def _absolute(self, topic: str, partition: int, offset: int) -> int:
        """`END` is the end as of now, not as of the first fetch."""
        if offset not in (BEGINNING, END):
            return offset
        first, end = self._watermarks(topic, partition, _ASSIGN_TIMEOUT_S)
        return first if offset == BEGINNING else end

    def _watermarks(
        self, topic: str, partition: int, timeout_s: float, asking: Client | None = None
    ) -> tuple[int, int]:
        """Asks in slices: between two we learn why there is no answer."""
        client, place, deadline = asking or self._client, TopicPartition(topic, partition), _in(timeout_s)
        with translated(f"offsets of {topic}/{partition}", self._reasons):
            while True:
                slice_end = min(deadline, _in(_SLICE_S))
                try:
                    return client.get_watermark_offsets(place, max(slice_end - time.monotonic(), 0.001))
                except KafkaException as error:
                    if not client.assignment():
                        client.poll(0)  # brings the reason, and cannot bring a record
                    if error.args[0].code() in UNKNOWN_TOPIC:
                        self._raise_if_refused(topic)
                    is_answer = time.monotonic() < slice_end - _SLICE_SLACK_S
                    if is_answer or self._reasons.is_refused or time.monotonic() >= deadline:
                        raise

    def _raise_if_refused(self, topic: str) -> None:
        """A topic that we may not see looks like none, unless it is asked for by name."""
        problem = self._client.list_topics(topic, _ASSIGN_TIMEOUT_S).topics[topic].error
        if problem is not None:
            raise KafkaException(problem)

    def _problem(self, messages: list[Message[Any, Any]]) -> HeddleError | None:
        for partition, error in errors_of(messages):
            if error.code() not in _PASSING:
                return failure(error, f"reading {self._topic}/{partition}", self._reasons)
        return None if messages else self._reasons.refusal(f"reading {self._topic}")


def _in(seconds: float) -> float:
    return time.monotonic() + seconds
