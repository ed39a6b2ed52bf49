"""One librdkafka consumer whose partitions are assigned by hand: it joins no group and commits nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias, TypeVar

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from heddle.broker.kafka.config import reader_config
from heddle.broker.kafka.failures import MOVING, PASSING, UNKNOWN_TOPIC, Reasons, configured, failure, translated
from heddle.broker.kafka.records import errors_of
from heddle.errors import BrokerDownError, HeddleError
from heddle.settings import Settings

_POLL_S = 0.1
_BATCH = 200  # more makes the garbage collector walk over records that are in use
_SLICE_S = 1.0
_SLICE_SLACK_S = 0.1
_ASK_TIMEOUT_S = 10.0
_MOVING_POLL_S = 0.05
# librdkafka looks for a group's coordinator even where nobody joins the group; that we may not is no failure.
_PASSING = PASSING | {KafkaError.GROUP_AUTHORIZATION_FAILED}

Messages: TypeAlias = "list[Message[Any, Any]]"  # no class that can be subscripted when run
Answer = TypeVar("Answer")


class ByHand:
    """`tuning` overrides `reader_config`."""

    def __init__(self, settings: Settings, **tuning: object) -> None:
        self.topic = ""
        self._known: set[str] = set()
        self._reasons = Reasons()
        with configured():
            self._client = Client(reader_config(settings, self._reasons) | tuning)

    def assign(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Replace the assignment; offsets are absolute."""
        self.topic = topic
        if offsets and topic not in self._known:
            self._get_to_know(topic, next(iter(offsets)))
        with translated(f"reading {topic}", self._reasons):
            self._client.assign([TopicPartition(topic, partition, offset) for partition, offset in offsets.items()])

    def take(self, max_messages: int, wait_s: float) -> Messages:
        """Records and events as they come, at most `max_messages`."""
        with translated(f"reading {self.topic}", self._reasons):
            return self._client.consume(max_messages, wait_s)

    def read(
        self, topic: str, positions: dict[int, int], ends: Mapping[int, int], timeout_s: float
    ) -> Generator[Messages, None, None]:
        """What comes from `positions` on, until each is past its end; moves them on. Read it to its end, or close it.

        Ends lie at or before the last stable offset; what lies behind one may come too. `BrokerDownError` when nothing
        comes for `timeout_s`."""
        if all(positions[partition] >= end for partition, end in ends.items()):
            return
        self.assign(topic, positions)
        deadline = time.monotonic() + timeout_s
        try:
            while any(positions[partition] < end for partition, end in ends.items()):
                messages = self.take(1, _POLL_S)
                messages += self.take(_BATCH, 0)
                if problem := self.problem(messages):
                    raise problem
                if _advance(positions, messages):
                    deadline = time.monotonic() + timeout_s
                    yield messages
                elif time.monotonic() > deadline:
                    raise BrokerDownError(f"reading {topic} took too long", hint="check the brokers")
        finally:
            self.assign(topic, {})

    def problem(self, messages: Messages) -> HeddleError | None:
        """The first event among them that this consumer will not mend by itself."""
        for partition, error in errors_of(messages):
            if error.code() not in _PASSING:
                return failure(error, f"reading {self.topic}/{partition}", self._reasons)
        return None if messages else self._reasons.refusal(f"reading {self.topic}")

    def bounds(self, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
        """(first offset kept, end as this client's isolation level has it)."""
        place = TopicPartition(topic, partition)
        return self._ask(topic, partition, timeout_s, lambda left_s: self._client.get_watermark_offsets(place, left_s))

    def offset_at(self, topic: str, partition: int, timestamp_ms: int, timeout_s: float) -> int:
        """The first offset of that time or later; below zero when there is none."""
        place = TopicPartition(topic, partition, timestamp_ms)

        def ask(left_s: float) -> int:
            (found,) = self._client.offsets_for_times([place], left_s)
            if found.error is not None:
                raise KafkaException(found.error)
            return found.offset

        return self._ask(topic, partition, timeout_s, ask)

    def close(self) -> None:
        with translated("closing a reader", self._reasons):
            self._client.close()

    def _get_to_know(self, topic: str, partition: int) -> None:
        """Of a topic that this client has not asked about yet, librdkafka learns the leaders when its timer fires, up
        to a second after the assignment (seen). Its answer, or that there is none, does not matter here."""
        with contextlib.suppress(KafkaException):
            self._client.get_watermark_offsets(TopicPartition(topic, partition), _SLICE_S)
            self._known.add(topic)

    def _ask(self, topic: str, partition: int, timeout_s: float, question: Callable[[float], Answer]) -> Answer:
        """Asks in slices: between two we learn why there is no answer."""
        client, deadline = self._client, time.monotonic() + timeout_s
        self._known.add(topic)
        with translated(f"offsets of {topic}/{partition}", self._reasons):
            while True:
                slice_end = min(deadline, time.monotonic() + _SLICE_S)
                try:
                    return question(max(slice_end - time.monotonic(), 0.001))
                except KafkaException as error:
                    if not client.assignment():
                        client.poll(0)  # brings the reason, and cannot bring a record
                    code = error.args[0].code()
                    if code in UNKNOWN_TOPIC:
                        self._raise_if_refused(topic)
                    if code in MOVING and time.monotonic() < deadline:
                        time.sleep(_MOVING_POLL_S)
                        continue
                    is_answer = time.monotonic() < slice_end - _SLICE_SLACK_S
                    if is_answer or self._reasons.is_refused or time.monotonic() >= deadline:
                        raise

    def _raise_if_refused(self, topic: str) -> None:
        """A topic that we may not see looks like none, unless it is asked for by name."""
        problem = self._client.list_topics(topic, _ASK_TIMEOUT_S).topics[topic].error
        if problem is not None:
            raise KafkaException(problem)


def _advance(positions: dict[int, int], messages: Messages) -> bool:
    """Whether that moved a position. The tail before an end may be a transaction marker or aborted records, which bring
    no message: the partition's end-of-file event, or a later record, then says that we are through."""
    has_moved = False
    for message in messages:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if partition not in positions or offset is None:
            continue
        if error is None:
            positions[partition] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            positions[partition] = offset
        else:
            continue
        has_moved = True
    return has_moved
