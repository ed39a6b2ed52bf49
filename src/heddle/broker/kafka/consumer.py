"""A group member on Kafka: nothing is delivered of a partition before `start` names its offset.

How that is done with librdkafka. A new partition is assigned at its first kept offset and paused in the same callback:
an explicit offset, because the committed one may be missing and `auto.offset.reset=error` would fail it; one in range;
and a number. Of the log's end by name librdkafka asks the broker, and an answer that a pause or a seek has overtaken
makes it ask again and go there: a partition that was started in that moment lost everything up to its end (seen).
`start` seeks and resumes. It never assigns: an assign call outside a rebalance callback would be taken as the answer to
one that has not been served yet.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Consumer as Client

from heddle.broker.kafka.config import consumer_config
from heddle.broker.kafka.failures import AUTH, MOVING, PASSING, Reasons, configured, failure, translated
from heddle.broker.kafka.records import errors_of, records_of
from heddle.broker.log import FIRST_RECORD_WAIT_S, NEVER_COMMITTED, OnRelease, Position, Rebalance, Record
from heddle.errors import BrokerError, HeddleError
from heddle.settings import Settings

T = TypeVar("T")

_NOTHING: frozenset[int] = frozenset()
_POLL_S = 0.05  # how soon a change of assignment ends a wait
_SEEK_TIMEOUT_S = 5.0
_WAKE_TIMEOUT_S = 1.0
_FIRST_OFFSETS_TIMEOUT_S = 30.0
_METADATA = struct.Struct("=7si")  # librdkafka's own serialisation: b"CGMDv2:", generation, group, member
_METADATA_MAGIC = b"CGMDv2:"


@dataclass(frozen=True, slots=True)
class KafkaGroupMetadata:
    """librdkafka's serialised membership. A generation below zero is none, and the coordinator would not check it."""

    serialised: bytes
    generation: int


class KafkaConsumer:
    def __init__(self, settings: Settings, group: str, topic: str, on_release: OnRelease | None = None) -> None:
        self._on_release = on_release
        self._group = group
        self._topic = topic
        self._reasons = Reasons()
        self._assigned: frozenset[int] = _NOTHING
        self._started: frozenset[int] = _NOTHING
        self._change = Rebalance(_NOTHING, _NOTHING, _NOTHING)
        self._has_changed = False
        self._deferred: HeddleError | None = None
        self._returned_s = 0.0
        with configured():
            self._client = Client(consumer_config(settings, self._reasons, group))
        with translated(f"group {group}", self._reasons):
            self._client.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        if self._deferred is not None:
            error, self._deferred = self._deferred, None
            raise error
        self._has_changed = False
        with translated(f"reading {self._topic}", self._reasons):
            messages, since_s = self._first(max_records, first_wait_s)
            missing, wait_s = max_records - len(messages), max_wait_s - (time.monotonic() - since_s)
            if messages and missing and wait_s > 0 and not self._has_changed:
                messages += self._client.consume(missing, wait_s)
        self._returned_s = time.monotonic()
        records = records_of(self._topic, messages)
        problem = self._problem(messages) if len(records) < len(messages) or not messages else None
        if self._has_changed or self._started != self._assigned:
            records = [record for record in records if record.partition in self._started]
        if problem is not None and not records:
            raise problem
        self._deferred = problem
        return records

    def take_rebalance(self) -> Rebalance:
        change, self._change = self._change, Rebalance(_NOTHING, _NOTHING, _NOTHING)
        return change

    def assignment(self) -> frozenset[int]:
        return self._assigned

    def group_metadata(self) -> KafkaGroupMetadata:
        serialised: bytes = self._client.consumer_group_metadata()
        magic, generation = _METADATA.unpack_from(serialised)
        if magic != _METADATA_MAGIC:
            raise BrokerError(
                "this librdkafka writes group metadata in an unknown form", hint="pin confluent-kafka 2.16"
            )
        return KafkaGroupMetadata(serialised, generation)

    def committed(self, partitions: Iterable[int], timeout_s: float) -> dict[int, Position]:
        with translated(f"committed positions of group {self._group} on {self._topic}", self._reasons):
            found = self._client.committed(self._partitions(partitions), timeout_s)
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
        return {
            p.partition: Position(p.offset, p.metadata or "") if p.offset >= 0 else Position(NEVER_COMMITTED)
            for p in found
        }

    def start(self, offsets: Mapping[int, int]) -> None:
        foreign = offsets.keys() - self._assigned
        if foreign:
            raise BrokerError(f"partitions {sorted(foreign)} of {self._topic} are not assigned to this consumer")
        with translated(f"starting {self._topic}", self._reasons):
            for partition, offset in offsets.items():
                self._seek(TopicPartition(self._topic, partition, offset))
            self._client.resume(self._partitions(offsets))
        self._started |= offsets.keys()
        self._wake()

    def pause(self, partitions: Iterable[int]) -> None:
        paused = self._started.intersection(partitions)
        self._started -= paused
        with translated(f"pausing {self._topic}", self._reasons):
            self._client.pause(self._partitions(paused))

    def watermarks(self, partition: int, timeout_s: float) -> tuple[int, int]:
        where = TopicPartition(self._topic, partition)
        with translated(f"offsets of {self._topic}/{partition}", self._reasons):
            return self._answered(lambda left_s: self._client.get_watermark_offsets(where, left_s), timeout_s)

    def close(self) -> None:
        self._on_release = None  # librdkafka revokes once more here, when its owner has nothing to commit with
        with translated(f"leaving group {self._group}", self._reasons):
            self._client.close()

    def _first(self, max_records: int, wait_s: float) -> tuple[list[Message[Any, Any]], float]:
        """What is there, else wait for a first message or a change of the assignment. Since when the first of them may
        have waited: what was there has come while the batch before was worked on."""
        messages, since_s = self._client.consume(max_records, 0), self._returned_s
        deadline = time.monotonic() + wait_s
        while not messages and not self._has_changed and time.monotonic() < deadline:
            messages, since_s = self._client.consume(1, _POLL_S), time.monotonic()
        return messages, since_s

    def _problem(self, messages: list[Message[Any, Any]]) -> HeddleError | None:
        """The first event that this consumer will not mend by itself. Records beside it are delivered before it."""
        for partition, error in errors_of(messages):
            if error.code() in AUTH:  # of the group or the whole topic: the partition that it names is none
                return failure(error, f"reading {self._topic} as group {self._group}", self._reasons)
            is_ours = partition < 0 or partition in self._started
            if is_ours and error.code() not in PASSING:
                return failure(error, f"reading {self._topic}/{partition}", self._reasons)
        return None if messages else self._reasons.refusal(f"reading {self._topic}")

    def _seek(self, partition: TopicPartition) -> None:
        """A partition whose fetcher is being started or stopped cannot be sought for a moment."""
        deadline = time.monotonic() + _SEEK_TIMEOUT_S
        while True:
            try:
                return self._client.seek(partition)
            except KafkaException as error:
                code = error.args[0].code()
                if code not in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _wake(self) -> None:
        """librdkafka's broker threads sleep for up to a second when every partition was paused, and neither seek nor
        resume wakes them (seen); a request to the partitions' leaders does. Its answer does not matter."""
        ends = [TopicPartition(self._topic, partition, OFFSET_END) for partition in self._started]
        with contextlib.suppress(KafkaException):
            self._client.offsets_for_times(ends, _WAKE_TIMEOUT_S)

    def _on_assign(self, client: Client, partitions: list[TopicPartition]) -> None:
        client.incremental_assign(self._at_first_offsets(client, partitions))
        self._take(assigned=frozenset(p.partition for p in partitions))
        client.pause(self._partitions(self._assigned - self._started))

    def _at_first_offsets(self, client: Client, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """What is raised here, `consume` raises."""
        by_name = [TopicPartition(self._topic, p.partition, OFFSET_BEGINNING) for p in partitions]

        def ask(left_s: float) -> list[TopicPartition]:
            found = client.offsets_for_times(by_name, left_s) if by_name else []
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
            return found

        return self._answered(ask, _FIRST_OFFSETS_TIMEOUT_S)

    def _answered(self, ask: Callable[[float], T], timeout_s: float) -> T:
        """Ask again while a partition's leader is being found: right after the topic was made, or when it moves."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return ask(max(deadline - time.monotonic(), 0.1))
            except KafkaException as error:
                if error.args[0].code() not in MOVING or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def _on_revoke(self, client: Client, partitions: list[TopicPartition]) -> None:
        revoked = frozenset(p.partition for p in partitions)
        if self._on_release is not None:
            # What was lost and came back within one poll is not known to the owner yet, and not his to commit.
            self._on_release(revoked - self._change.lost - self._change.assigned)
        self._take(revoked=revoked)
        client.incremental_unassign(partitions)

    def _on_lost(self, client: Client, partitions: list[TopicPartition]) -> None:
        self._take(lost=frozenset(p.partition for p in partitions))
        client.incremental_unassign(partitions)

    def _take(
        self, assigned: frozenset[int] = _NOTHING, revoked: frozenset[int] = _NOTHING, lost: frozenset[int] = _NOTHING
    ) -> None:
        gone, change = revoked | lost, self._change
        self._assigned = (self._assigned - gone) | assigned
        self._started -= gone | assigned
        self._change = Rebalance((change.assigned - gone) | assigned, change.revoked | revoked, change.lost | lost)
        self._has_changed = True

    def _partitions(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]
