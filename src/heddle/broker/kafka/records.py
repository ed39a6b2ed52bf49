"""librdkafka's messages as records. The hot path: one call a field, no function call a record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, Message

from heddle.broker.log import UNREADABLE_HEADERS, Record


def records_of(topic: str, messages: Iterable[Message[Any, Any]]) -> list[Record]:
    """The messages that are records, in order. All are of one topic, whose name is passed to be shared."""
    new = tuple.__new__
    try:
        return [
            new(Record, (topic, m.partition(), m.offset(), m.key(), m.value(), m.headers() or [], m.timestamp()[1]))
            for m in messages
            if m.error() is None
        ]
    except (UnicodeDecodeError, SystemError):
        # A header whose name is no UTF-8; the client gives us none of that record's headers then.
        return [_odd_record(topic, m) for m in messages if m.error() is None]


def _odd_record(topic: str, message: Message[Any, Any]) -> Record:
    headers: Any = [(UNREADABLE_HEADERS, b"a header name is not UTF-8")]
    with contextlib.suppress(UnicodeDecodeError, SystemError):
        headers = message.headers() or []
    m = message
    return Record(topic, m.partition() or 0, m.offset() or 0, m.key(), m.value(), headers, m.timestamp()[1])


def errors_of(messages: Iterable[Message[Any, Any]]) -> list[tuple[int, KafkaError]]:
    """(partition, error) of the messages that are events and no records."""
    found = []
    for message in messages:
        error = message.error()
        if error is not None:
            partition = message.partition()
            found.append((-1 if partition is None else partition, error))
    return found
