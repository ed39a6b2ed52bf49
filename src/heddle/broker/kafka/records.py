"""librdkafka's messages as records. The hot path: one call a field, no function call a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, Message

from heddle.broker.log import Record


def records_of(topic: str, messages: Iterable[Message[Any, Any]]) -> list[Record]:
    """The messages that are records, in order. All are of one topic, whose name is passed to be shared."""
    new = tuple.__new__
    return [
        new(Record, (topic, m.partition(), m.offset(), m.key(), m.value(), m.headers() or [], m.timestamp()[1]))
        for m in messages
        if m.error() is None
    ]


def errors_of(messages: Iterable[Message[Any, Any]]) -> list[tuple[int, KafkaError]]:
    """(partition, error) of the messages that are events and no records."""
    found = []
    for message in messages:
        error = message.error()
        if error is not None:
            partition = message.partition()
            found.append((-1 if partition is None else partition, error))
    return found
