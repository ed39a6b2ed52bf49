"""The records that are measured: an order of 12 fields with a nested customer and its lines, about 220 bytes.

The same number gives the same order in every process and for ever. One in a thousand is bad."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

APP = Path(__file__).resolve().parent / "app"
SOURCE, TARGET = "orders.order.v1", "fulfilment.pick.v1"
NAMES = ["Ana", "Björk", "Chloé", "Dmitri", "Élodie", "Fritz", "Grüße", "Hélène", "Jörg", "Łukasz", "Noël", "Petra"]
COLOURS = ["RED", "BLUE", "GREEN", "BLACK"]
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
START = datetime(2026, 1, 1, tzinfo=UTC)
BAD_EVERY = 1_000

Headers = list[tuple[str, Any]]  # as confluent-kafka has them; here always bytes


class Frames(NamedTuple):
    """The five bytes before every value: zero, and the schema's id in the registry."""

    source: bytes
    target: bytes


def frame(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big")


def schema_file(topic: str) -> Path:
    domain, _, file_stem = topic.partition(".")
    return APP / "schemas" / domain / f"{file_stem}.avsc"


def schema(topic: str) -> Any:
    """The contract of a topic, as fastavro wants it."""
    return fastavro.parse_schema(json.loads(schema_file(topic).read_text(encoding="utf-8")))


def order(number: int, lines: int = 3) -> dict[str, Any]:
    """As fastavro takes it."""
    dice = random.Random(number)
    return {
        "order_id": f"ORD-2026-{number:08}",
        "event_ts": START + timedelta(seconds=number),
        "amount": Decimal(dice.randrange(100, 10_000_000)).scaleb(-2),
        "currency": dice.choice(["EUR", "USD", "GBP"]),
        "status": dice.choice(["NEW", "PAID", "SHIPPED", "CANCELLED"]),
        "coupon": dice.choice([None, "SPRING-2026-10"]),
        "note": dice.choice([None, "please ring twice, the door bell is very quiet"]),
        "priority": dice.choice([None, 1, 2]),
        "channel": dice.choice(["web", "store", "phone"]),
        "customer": {
            "id": f"C-{dice.randrange(10_000_000):08}",
            "first": dice.choice(NAMES),
            "last": dice.choice(NAMES),
            "email": None if fault(number) == "unmappable" else f"customer.{dice.randrange(100_000)}@mail.example.com",
            "vip": dice.random() < 0.1,
        },
        "lines": [
            {
                "sku": f"SKU-{dice.randrange(10_000):05}-{dice.choice(COLOURS)}",
                "qty": dice.randrange(1, 9),
                "price": Decimal(dice.randrange(100, 99_999)).scaleb(-2),
            }
            for _ in range(lines)
        ],
        "source_system": "webshop-eu-central-1",
    }


def fault(number: int) -> str:
    """What is wrong with an order: mostly nothing, else `undecodable` (bytes are missing) or `unmappable` (a required
    field is null), in turns."""
    thousand, within = divmod(number, BAD_EVERY)
    if within != BAD_EVERY // 2:
        return ""
    return "undecodable" if thousand % 2 else "unmappable"


def bad_ones(records: int) -> int:
    """How many of the first so many are bad."""
    return (records + BAD_EVERY // 2 - 1) // BAD_EVERY


def values(numbers: range, frame: bytes, lines: int = 3) -> Iterator[bytes]:
    """Orders in Confluent wire format, the bad ones among them."""
    parsed = schema(SOURCE)
    for number in numbers:
        stream = io.BytesIO()
        stream.write(frame)
        fastavro.schemaless_writer(stream, parsed, order(number, lines))
        value = stream.getvalue()
        yield value[:-3] if fault(number) == "undecodable" else value


def key(number: int) -> bytes:
    return b"default/ORD-2026-%08d" % number


def headers(number: int, time: bytes, extra: int = 0) -> Headers:
    """The seven that every event has, and so many of somebody else's."""
    event_id = b"evt_%d" % number
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id),
        ("ce_source", b"/sources/shop"),
        ("ce_type", SOURCE.encode()),
        ("ce_time", time),
        ("heddle-lineage", b"1;load.0;/sources/shop;" + event_id),
        ("traceparent", TRACEPARENT),
        *((f"x-extra-{n}", b"passed on untouched") for n in range(extra)),
    ]


def time_text(moment: datetime) -> bytes:
    """As `ce_time` wants it: RFC 3339 in UTC, with microseconds."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
