"""Short cuts of the generated codecs, for moments, decimals and lengths, where they could be wrong."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from heddle.contracts.codegen import REFUSALS
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_compiler import compile_encoder
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Node
from heddle.contracts.shapes import DictShape
from heddle.errors import ContractError

DICTS = DictShape()
REFUSED = "refused"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def node(kind: Any) -> Node:
    return parse_schema(
        {"type": "record", "name": "Thing", "namespace": "test.v1", "fields": [{"name": "x", "type": kind}]}
    )


def written(thing: Node, value: Any) -> bytes | str:
    """By the generated encoder, and the same by the reference."""
    out = bytearray()
    fast: bytes | str
    try:
        compile_encoder(thing, DICTS, DEFAULT_LIMITS, "test")(out, {"x": value})
        fast = bytes(out)
    except REFUSALS:
        fast = REFUSED
    try:
        assert encode_reference(thing, DICTS, DEFAULT_LIMITS, {"x": value}) == fast
    except ContractError:
        assert fast == REFUSED
    return fast


@pytest.mark.parametrize(("unit", "per_second"), [("millis", 1_000), ("micros", 1_000_000)])
def test_moments_are_exact_also_where_a_float_is_used(unit: str, per_second: int) -> None:
    thing = node({"type": "long", "logicalType": f"timestamp-{unit}"})
    encode = compile_encoder(thing, DICTS, DEFAULT_LIMITS, "test")
    decode = compile_decoder(as_written(thing), DICTS, DEFAULT_LIMITS, 0, "test")
    most, dice = per_second << 31, random.Random(1)
    numbers = [n + d for n in (0, most // 2, most) for d in range(-2_000, 2_000)]
    numbers += [dice.randrange(most - most // 1_000, most) for _ in range(20_000)]
    numbers += [dice.randrange(-most, most << 6) for _ in range(20_000)]
    for number in numbers:
        moment = EPOCH + timedelta(0, number // per_second, number % per_second * (1_000_000 // per_second))
        out = bytearray()
        encode(out, {"x": moment})
        found = decode(bytes(out))["x"]
        assert found == moment
        assert found.tzinfo is UTC


@pytest.mark.parametrize(("precision", "scale"), [(14, 2), (4, 4), (1, 0), (30, 9), (2, 1)])
def test_decimals_are_refused_exactly_where_digits_would_be_lost(precision: int, scale: int) -> None:
    thing = node({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
    decode = compile_decoder(as_written(thing), DICTS, DEFAULT_LIMITS, 0, "test")
    most = 10**precision - 1
    good = [f"{most}e-{scale}", f"-{most}e-{scale}", "0", "-0", "0E+50", "0E-50"]
    bad = [f"{most + 1}e-{scale}", f"-{most + 1}e-{scale}", f"{most}1e-{scale + 1}", "1E+999999", "-1E+999999"]
    bad += ["1E-400", "NaN", "sNaN", "Infinity", "-Infinity"]
    assert {written(thing, Decimal(text)) for text in bad} == {REFUSED}
    assert REFUSED not in {written(thing, Decimal(text)) for text in good}
    dice = random.Random(precision)
    chance = [f"{dice.randrange(10 ** dice.randrange(1, 18))}e{dice.randrange(-18, 16)}" for _ in range(500)]
    kept = 0
    for value in map(Decimal, [*good, *chance]):
        found = written(thing, value)
        if isinstance(found, bytes):
            kept += 1
            assert decode(found) == {"x": value} == decode_reference(as_written(thing), DICTS, DEFAULT_LIMITS, found, 0)
    assert kept > len(good)


def test_what_is_not_written_as_short_as_it_could_be_is_read_too() -> None:
    """A length or a symbol's index in more bytes than needed; odd ones, which would be negative, are refused."""
    thing = node({"type": "array", "items": "string"})
    decode = compile_decoder(as_written(thing), DICTS, DEFAULT_LIMITS, 0, "test")
    assert decode(b"\x82\x00\x82\x80\x00a\x00") == {"x": ["a"]}
    for odd in (b"\x02\x01a\x00", b"\x02\x81\x00a\x00", b"\x02\x83\x80\x00a\x00"):
        with pytest.raises(REFUSALS):
            decode(odd)
    symbols = node({"type": "enum", "name": "E", "symbols": ["A", "B"]})
    decode = compile_decoder(as_written(symbols), DICTS, DEFAULT_LIMITS, 0, "test")
    assert decode(b"\x82\x00") == {"x": "B"}
    for odd in (b"\x01", b"\x83\x00"):
        with pytest.raises(REFUSALS):
            decode(odd)
