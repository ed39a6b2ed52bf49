"""What other systems write on the records that they gave up: read from headers, never guessed.

Header names and encodings are those of spring-kafka 4, Kafka Connect and Streams 4.3, and share groups (KIP-1191). Of a
header that comes twice the last is the latest. What cannot be read is told, and is then simply not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from heddle.broker.log import UNREADABLE_HEADERS, Headers


class Format(StrEnum):
    SPRING_KAFKA = "spring-kafka"
    SPRING_KAFKA_RETRY_TOPIC = "spring-kafka-retry-topic"
    KAFKA_CONNECT = "kafka-connect"
    KAFKA_STREAMS = "kafka-streams"
    SHARE_GROUP = "share-group"


@dataclass(frozen=True, slots=True)
class Known:
    """What the headers tell. `topic`, `partition`, `offset`, `timestamp_ms` are of the record that failed first.
    `tries`: how often the other system has tried it. `not_before_ms`: when it would have tried again."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None
    timestamp_type: str | None = None
    exception: str | None = None
    cause: str | None = None
    message: str | None = None
    stack: str | None = None
    group: str | None = None
    connector: str | None = None
    task: int | None = None
    stage: str | None = None
    failed_in: str | None = None
    tries: int | None = None
    not_before_ms: int | None = None


class Unreadable(NamedTuple):
    """A header that is there and cannot be read. `why` repeats nothing of it."""

    header: str
    why: str


class _Rule(NamedTuple):
    """How one header is read. Where two tell the same fact, the rule that comes first wins."""

    header: str
    fact: str
    read: Callable[[bytes], str | int]
    may_be_null: bool = False


def format_of(headers: Headers) -> Format | None:
    """By whose headers come last: each hop adds its own behind those of the one before. None: nobody's."""
    for name, _ in reversed(headers):
        for prefix, found in _PREFIXES.items():
            if name.startswith(prefix):
                return _spring(headers) if found is Format.SPRING_KAFKA else found
    return None


def read_headers(headers: Headers, written_by: Format) -> tuple[Known, tuple[Unreadable, ...]]:
    """All that can be read, and what cannot."""
    present = dict(headers)
    found: dict[str, Any] = {}
    unreadable = []
    for rule in _RULES[written_by]:
        if rule.header in present:
            try:
                value = _read(rule, present[rule.header])
            except _UnreadableError as error:
                unreadable.append(Unreadable(rule.header, str(error)))
            else:
                if value is not None:
                    found.setdefault(rule.fact, value)
    return Known(**found), tuple(unreadable)


def has_unreadable_names(headers: Headers) -> bool:
    """A name among them is no UTF-8, so that the client could not hand over any."""
    return any(name == UNREADABLE_HEADERS for name, _ in headers)


class _UnreadableError(ValueError):
    pass


def _read(rule: _Rule, data: bytes | None) -> str | int | None:
    if data is None:
        if rule.may_be_null:
            return None
        raise _UnreadableError("it is null")
    return rule.read(data)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"no UTF-8 at byte {error.start}") from None


def _name(data: bytes) -> str:
    """A topic, a group, a class: never empty."""
    text = _text(data)
    if not text:
        raise _UnreadableError("it is empty")
    return text


def _digits(data: bytes) -> int:
    if not _DIGITS.fullmatch(data):
        raise _UnreadableError("no decimal digits")
    number = int(data)
    if number >= 2**63:
        raise _UnreadableError("a number of more than 64 bits")
    return number


def _big_endian(size: int, data: bytes) -> int:
    if len(data) != size:
        raise _UnreadableError(f"{len(data)} bytes, not {size}")
    return int.from_bytes(data, "big", signed=True)


def _count(size: int) -> Callable[[bytes], int]:
    """A partition or an offset."""

    def read(data: bytes) -> int:
        number = _big_endian(size, data)
        if number < 0:
            raise _UnreadableError("a negative number")
        return number

    return read


def _time(data: bytes) -> int:
    return _big_endian(8, data)


def _timestamp_type(data: bytes) -> str:
    text = _text(data)
    if text not in ("CreateTime", "LogAppendTime"):
        raise _UnreadableError("neither CreateTime nor LogAppendTime")
    return text


def _tries(data: bytes) -> int:
    """Older ones wrote one unsigned byte."""
    return data[0] if len(data) == 1 else _count(4)(data)


def _big_integer(data: bytes) -> int:
    """Java's `BigInteger.toByteArray`: two's complement, as short as can be; a time fits into eight bytes."""
    if not 1 <= len(data) <= 8:
        raise _UnreadableError(f"{len(data)} bytes are no time")
    return int.from_bytes(data, "big", signed=True)


def _spring(headers: Headers) -> Format:
    is_retry = any(name.startswith(_RETRY_PREFIX) for name, _ in headers)
    return Format.SPRING_KAFKA_RETRY_TOPIC if is_retry else Format.SPRING_KAFKA


_DIGITS: Final = re.compile(rb"[0-9]{1,19}")
_RETRY_PREFIX: Final = "retry_topic-"
_PREFIXES: Final[Mapping[str, Format]] = {
    "kafka_dlt-": Format.SPRING_KAFKA,
    _RETRY_PREFIX: Format.SPRING_KAFKA,
    "__connect.errors.": Format.KAFKA_CONNECT,
    "__streams.errors.": Format.KAFKA_STREAMS,
    "__dlq.errors.": Format.SHARE_GROUP,
}

_SPRING: Final = (
    _Rule("kafka_dlt-original-topic", "topic", _name),
    _Rule("kafka_dlt-original-partition", "partition", _count(4)),
    _Rule("kafka_dlt-original-offset", "offset", _count(8)),
    _Rule("kafka_dlt-original-timestamp", "timestamp_ms", _time),
    _Rule("kafka_dlt-original-timestamp-type", "timestamp_type", _timestamp_type),
    _Rule("kafka_dlt-original-consumer-group", "group", _name),
    _Rule("kafka_dlt-exception-fqcn", "exception", _name),
    _Rule("kafka_dlt-exception-cause-fqcn", "cause", _name),
    _Rule("kafka_dlt-exception-message", "message", _text, may_be_null=True),
    _Rule("kafka_dlt-exception-stacktrace", "stack", _text, may_be_null=True),
    _Rule("kafka_dlt-key-exception-fqcn", "exception", _name),
    _Rule("kafka_dlt-key-exception-message", "message", _text, may_be_null=True),
    _Rule("kafka_dlt-key-exception-stacktrace", "stack", _text, may_be_null=True),
)
_RULES: Final[Mapping[Format, tuple[_Rule, ...]]] = {
    Format.SPRING_KAFKA: _SPRING,
    Format.SPRING_KAFKA_RETRY_TOPIC: (
        _Rule("retry_topic-attempts", "tries", _tries),
        _Rule("retry_topic-original-timestamp", "timestamp_ms", _big_integer),
        _Rule("retry_topic-backoff-timestamp", "not_before_ms", _big_integer),
        *_SPRING,
    ),
    Format.KAFKA_CONNECT: (
        _Rule("__connect.errors.topic", "topic", _name),
        _Rule("__connect.errors.partition", "partition", _digits),
        _Rule("__connect.errors.offset", "offset", _digits),
        _Rule("__connect.errors.connector.name", "connector", _name),
        _Rule("__connect.errors.task.id", "task", _digits),
        _Rule("__connect.errors.stage", "stage", _name),
        _Rule("__connect.errors.class.name", "failed_in", _name),
        _Rule("__connect.errors.exception.class.name", "exception", _name),
        _Rule("__connect.errors.exception.message", "message", _text, may_be_null=True),
        _Rule("__connect.errors.exception.stacktrace", "stack", _text, may_be_null=True),
    ),
    Format.KAFKA_STREAMS: (
        _Rule("__streams.errors.topic", "topic", _name),
        _Rule("__streams.errors.partition", "partition", _digits),
        _Rule("__streams.errors.offset", "offset", _digits),
        _Rule("__streams.errors.exception", "exception", _name),
        _Rule("__streams.errors.message", "message", _text, may_be_null=True),
        _Rule("__streams.errors.stacktrace", "stack", _text, may_be_null=True),
    ),
    Format.SHARE_GROUP: (
        _Rule("__dlq.errors.topic", "topic", _name),
        _Rule("__dlq.errors.partition", "partition", _digits),
        _Rule("__dlq.errors.offset", "offset", _digits),
        _Rule("__dlq.errors.group", "group", _name),
        _Rule("__dlq.errors.delivery.count", "tries", _digits),
        _Rule("__dlq.errors.message", "message", _text, may_be_null=True),
    ),
}
