"""Follow a topic as decoded events."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from heddle.broker.log import BEGINNING, END, Broker, Record
from heddle.contracts import Registry, decode_any
from heddle.errors import HeddleError, UsageError

POLL_S = 0.5
MAX_POLL_RECORDS = 500
MAX_HEX_BYTES = 256


def tail(broker: Broker, registry: Registry, topic: str, *, from_beginning: bool) -> Iterator[dict[str, Any] | None]:
    """Yields one description a record, and None whenever nothing is new. Reads committed records only; never commits.

    A record that no schema explains is shown as hexadecimal with the reason: nothing is left out."""
    admin = broker.admin()
    try:
        topics = admin.topics([topic])
    finally:
        admin.close()
    if topic not in topics:
        raise UsageError(f"no topic {topic}", hint="`heddle lag` lists the topics that subscriptions read")
    reader = broker.reader()
    try:
        start = BEGINNING if from_beginning else END
        reader.assign(topic, dict.fromkeys(range(topics[topic].partitions), start))
        while True:
            records = reader.consume(MAX_POLL_RECORDS, POLL_S)
            yield from (describe(record, registry) for record in records)
            if not records:
                yield None
    finally:
        reader.close()


def describe(record: Record, registry: Registry) -> dict[str, Any]:
    """One record for people: where it is, its key and headers, and its value as the contract says."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": _text(record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        **_value(record, registry),
    }


def _value(record: Record, registry: Registry) -> dict[str, Any]:
    if record.value is None:
        return {"value": None}
    try:
        return {"value": decode_any(record.value, registry)}
    except HeddleError as error:
        shown = record.value[:MAX_HEX_BYTES]
        try:
            return {"text": shown.decode(), "undecoded": str(error)}
        except UnicodeDecodeError:
            return {"hex": shown.hex(" "), "undecoded": str(error)}


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
