"""Bytes that nobody wrote, through the pure Python engine: nothing is accepted that the decoder refuses, and nothing
keeps it busy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import wire_case as w
from wire_orders import ORDERS
from wire_plans import CASES
from wire_python import ready, told

from heddle.contracts.codegen import REFUSALS
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import resolve
from heddle.contracts.shapes import DictShape
from heddle.wire import plan as p
from heddle.wire.engine import FRAME_BYTES

ORDER_SCHEMA = Path(__file__).parents[2] / "benchmarks/app/schemas/orders/order.v1.avsc"
EVERYTHING: dict[str, Any] = {
    "a": "string",
    "b": ["null", "string", {"type": "array", "items": {"type": "bytes", "logicalType": "decimal", "precision": 9}}],
    "c": {"type": "map", "values": ["null", "long", "string"]},
    "d": {"type": "enum", "name": "E", "symbols": ["X", "Y", "Z"]},
    "e": {"type": "array", "items": {"type": "record", "name": "R", "fields": [
        {"name": "f", "type": "string"},
        {"name": "g", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "h", "type": ["null", {"type": "fixed", "name": "F", "size": 3}]},
        {"name": "i", "type": "boolean"},
    ]}},
    "j": {"type": "int", "logicalType": "date"},
    "k": {"type": "string", "logicalType": "uuid"},
    "l": "double",
    "m": {"type": "int", "logicalType": "time-millis"},
    "n": {"type": "fixed", "name": "G", "size": 2, "logicalType": "decimal", "precision": 4},
    "o": "bytes",
    "p": {"type": "long", "logicalType": "timestamp-micros"},
    "q": "int",
    "r": "string",
}  # fmt: skip
MILLIS, MICROS = (-62_135_596_800_000, 253_402_300_799_999), (-62_135_596_800_000_000, 253_402_300_799_999_999)
WALKED = (
    p.Union((p.Null(), p.Text(), p.Array(p.Decimal(9), 1))),
    p.Map(p.Union((p.Null(), p.Integer(64), p.Text()))),
    p.Enum(3),
    p.Array(p.Record((p.Text(), p.Integer(64, *MILLIS), p.Union((p.Null(), p.Fixed(3))), p.Boolean())), 4),
    p.Integer(32, -719_162, 2_932_896),
    p.Text(uuid=True),
    p.Real(8),
    p.Integer(32, 0, 86_399_999),
    p.Decimal(4, size=2),
    p.Bytes(),
    p.Integer(64, *MICROS),
    p.Integer(32),
    p.Text(begin=2, end=3),
)
LINE = w.text("fé") + w.num(1_767_225_600_000) + b"\2\xff\xfe\xfd\1"
LONG_LINE = w.text("long " * 20) + w.num(-5) + b"\0\0"
TAIL = (
    w.num(20_454) + w.text("12345678-1234-5678-9abc-1234567890ef") + b"\xff" * 8 + w.num(43_200_000) + b"\x26\x10"
    + w.text(b"\xff\x00") + w.num(1_767_225_600_000_000) + w.num(-300) + w.text("ende")
)  # fmt: skip
WRITTEN = [
    w.text("ä") + b"\0" + b"\0" + b"\2" + b"\0" + TAIL,
    w.text("") + b"\2" + w.text("ß") + w.listed(w.text("a") + b"\0", w.text("ü") + b"\2" + w.num(2**40)) + b"\0"
    + w.listed(LINE, LONG_LINE) + TAIL,
    w.text("k") + b"\4" + w.listed(w.text(b"\x01\x02"), w.text(b"\xff")) + w.listed(w.text("a") + b"\4" + w.text("é"))
    + b"\4" + b"\3" + w.num(2 * len(LINE)) + LINE + LINE + b"\0" + TAIL,
]  # fmt: skip


def decoder_of(schema: dict[str, Any]) -> Callable[[bytes], Any]:
    """What a codec does with bytes of this schema."""
    root = parse_schema(schema)
    action, problems = resolve(root, root)
    assert not problems
    return compile_decoder(action, DictShape(), DEFAULT_LIMITS, FRAME_BYTES, "test")


def order_decoder() -> Callable[[bytes], Any]:
    return decoder_of(json.loads(ORDER_SCHEMA.read_text()))


def everything_decoder() -> Callable[[bytes], Any]:
    fields = [{"name": name, "type": node} for name, node in EVERYTHING.items()]
    return decoder_of({"type": "record", "name": "Everything", "fields": fields})


def decodes(decode: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        decode(data)
    except REFUSALS:
        return False
    return True


def changed(body: bytes) -> Iterator[bytes]:
    """Cut off everywhere, each byte another, a byte too many, a byte too few."""
    for at in range(len(body)):
        yield body[:at]
        yield body[:at] + body[at + 1 :]
        for byte in (0, 1, 2, 3, 6, 0x3F, 0x7E, 0x7F, 0x80, 0xC3, 0xE2, 0xF0, 0xFF, body[at] ^ 1, body[at] ^ 128):
            yield body[:at] + bytes([byte]) + body[at + 1 :]
            yield body[:at] + bytes([byte]) + body[at:]
    yield body + b"\0"


def mixed(bodies: list[bytes], dice: Random) -> bytes:
    """Pieces of several records, or bytes from anywhere."""
    if dice.random() < 0.1:
        return w.text("k") + dice.randbytes(dice.randrange(60))
    one, other = dice.choice(bodies), dice.choice(bodies)
    cut, start, size = dice.randrange(len(one)), dice.randrange(len(other)), dice.randrange(12)
    inserted = dice.randbytes(size // 4) if size < 8 else other[start : start + size]
    return one[:cut] + inserted + one[cut + dice.choice([0, 1, len(inserted)]) :]


@pytest.mark.parametrize(
    ("plan", "decoder", "bodies"),
    [
        (ORDERS.plan, order_decoder, [body for body, _ in ORDERS.records[:2]]),
        (w.plan(*WALKED, emits=(p.Copy(2, 3),)), everything_decoder, WRITTEN),
    ],
    ids=["orders", "everything"],
)
def test_what_the_decoder_refuses_the_engine_refuses(
    plan: p.WirePlan, decoder: Callable[[], Callable[[bytes], Any]], bodies: list[bytes]
) -> None:
    engine, decode, dice = ready(w.Case("", plan, ())), decoder(), Random(20_260_101)
    assert w.REFUSED not in told(engine, bodies)
    records = [change for body in bodies for change in changed(body)] + [mixed(bodies, dice) for _ in range(20_000)]
    accepted = 0
    for record, result in zip(records, told(engine, records), strict=True):
        if result != w.REFUSED:
            accepted += 1
            assert decodes(decode, w.WRITER + record), record
    assert accepted > 500


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_bytes_raise_or_come_out_of_a_record_that_ends_early(case: w.Case) -> None:
    engine, dice = ready(case), Random(7)
    for body, expected in case.records:
        if expected != w.REFUSED:
            assert set(told(engine, [body[:end] for end in range(len(body))])) <= {w.REFUSED}
    told(engine, [mixed([body for body, _ in case.records], dice) for _ in range(300)])


@pytest.mark.parametrize(
    ("walk", "emits"),
    [
        *((walk, ()) for walk in (
            p.Integer(32), p.Integer(64), p.Integer(64, *MILLIS), p.Integer(64, *MICROS), p.Text(), p.Bytes(),
            p.Enum(3), p.Enum(80), p.Union((p.Null(), p.Text())), p.Array(p.Text(), 1), p.Map(p.Text()), p.Decimal(5),
        )),
        (p.Integer(64, number=0), (p.WriteNumber(p.Number(0), 64),)),
        (p.Text(content=2, end=3), (p.WriteText((p.Content(2, 3),)),)),
        (p.Decimal(5, number=0), (p.WriteNumber(p.Number(0), 64),)),
    ],
)  # fmt: skip
def test_a_number_that_is_longer_than_it_need_be_is_refused(walk: p.Walk, emits: tuple[p.Emit, ...]) -> None:
    """The codec would write it shorter. The number is 0, but for a decimal's length."""
    engine = ready(w.Case("", w.plan(walk, emits=emits), ()))
    first, rest = (2, b"\1") if isinstance(walk, p.Decimal) else (0, b"")
    longer = [bytes([128 | first, *[128] * size, 0]) + rest for size in range(10)]
    assert told(engine, [w.text("a") + data for data in longer]) == [w.REFUSED] * 10
    assert told(engine, [w.text("a") + bytes([first]) + rest]) != [w.REFUSED]


@pytest.mark.parametrize(
    ("walk", "body"),
    [
        (p.Array(p.Null(), 0), w.num(2**62) + b"\0"),
        (p.Array(p.Text(), 1), w.num(-(2**63)) + w.num(2**62)),
        (p.Array(p.Array(p.Text(), 1), 1), w.num(10**6) + w.num(10**6) * (10**6 // 3)),
        (p.Text(), w.num(2**62)),
        (p.Integer(64), b"\x80" * 10**6),
        (p.Integer(64, number=0), b"\xff" * 10**6),
        (p.Array(p.Integer(64), 1), w.num(1_000) + b"\x80" * 10**6),
        (p.Decimal(38), w.text(b"\0" * 10**6)),
        (p.Decimal(38, number=0), w.text(b"\x7f" * 10**6)),
        (p.Map(p.Null()), w.listed(*(w.text(f"{n:06}") for n in range(100_000)), w.text("000000"))),
    ],
)
def test_few_bytes_do_not_keep_it_busy(walk: p.Walk, body: bytes) -> None:
    emits = (p.WriteNumber(p.Number(0), 64),) if getattr(walk, "number", p.UNSET) == 0 else ()
    engine = ready(w.Case("", w.plan(walk, emits=emits, max_input=2_000_000), ()))
    started = time.process_time()
    told(engine, [w.text("k") + body])
    assert time.process_time() - started < 2


def test_items_that_write_or_walk_what_is_not_their_own_end_at_the_limit() -> None:
    inner = p.Each(2, p.Fixed(1), None, ())
    for emits in ((p.Copy(2, 3),), (inner,), (p.WriteText((p.Content(2, 3),)),)):
        array = p.Array(p.Fixed(1), 1, begin=2, end=3)
        plan = w.plan(array, emits=(p.Each(2, p.Fixed(1), None, emits),), max_input=500_000, max_output=500_000)
        engine = ready(w.Case("", plan, ()))
        started = time.process_time()
        results = told(
            engine, [w.text("k") + w.num(200_000) + b"a" * 200_000 + b"\0", w.text("k") + w.num(2) + b"ab\0"]
        )
        assert time.process_time() - started < 2
        assert results[0] == w.REFUSED
        assert results[1] != w.REFUSED
