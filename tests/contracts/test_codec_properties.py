"""The generated codecs against two oracles: fastavro, and the reference codec that explains refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
from generating import anything, things
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from heddle.contracts.codegen import REFUSALS
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_compiler import compile_encoder
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Node, parse_schema
from heddle.contracts.shapes import DictShape
from heddle.errors import DecodeError, EncodeError

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)
_DICTS = DictShape()
_REFUSED = "refused"


def _encoders(node: Node) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    fast = compile_encoder(node, _DICTS, DEFAULT_LIMITS, "test")

    def run(value: Any) -> Any:
        out = bytearray()
        try:
            fast(out, value)
        except REFUSALS:
            return _REFUSED
        return bytes(out)

    def explain(value: Any) -> Any:
        try:
            return encode_reference(node, _DICTS, DEFAULT_LIMITS, value)
        except EncodeError:
            return _REFUSED

    return run, explain


def _decoders(node: Node) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    action = as_written(node)
    fast = compile_decoder(action, _DICTS, DEFAULT_LIMITS, 0, "test")

    def run(data: bytes) -> Any:
        try:
            return fast(data)
        except REFUSALS:
            return _REFUSED

    def explain(data: bytes) -> Any:
        try:
            return decode_reference(action, _DICTS, DEFAULT_LIMITS, data, 0)
        except DecodeError:
            return _REFUSED

    return run, explain


@_SETTINGS
@given(st.data(), things())
def test_good_values_go_there_and_back_as_in_fastavro(data: DataObject, thing: tuple[dict[str, Any], Any]) -> None:
    schema, values = thing
    note(json.dumps(schema))
    node, parsed = parse_schema(schema, strict=True), fastavro.parse_schema(schema)
    encode, explain_encode = _encoders(node)
    decode, explain_decode = _decoders(node)
    for _ in range(3):
        value = data.draw(values)
        expected = io.BytesIO()
        fastavro.schemaless_writer(expected, parsed, value)
        encoded = encode(value)
        assert encoded == expected.getvalue()
        assert explain_encode(value) == encoded
        assert decode(encoded) == value
        assert explain_decode(encoded) == value
        assert fastavro.schemaless_reader(io.BytesIO(encoded), parsed, None) == value


@_SETTINGS
@given(st.data(), things())
def test_mutated_bytes_are_read_or_refused_alike(data: DataObject, thing: tuple[dict[str, Any], Any]) -> None:
    schema, values = thing
    node = parse_schema(schema)
    encode, _ = _encoders(node)
    decode, explain = _decoders(node)
    good = encode(data.draw(values))
    for _ in range(5):
        mutated = data.draw(_mutations(good))
        note(f"{json.dumps(schema)} {mutated!r}")
        assert repr(decode(mutated)) == repr(explain(mutated))


@_SETTINGS
@given(st.data(), things())
def test_any_value_is_written_or_refused_alike(data: DataObject, thing: tuple[dict[str, Any], Any]) -> None:
    schema, values = thing
    encode, explain = _encoders(parse_schema(schema))
    value = data.draw(values)
    place = data.draw(st.sampled_from(sorted(value)))
    for _ in range(5):
        wrong = value | {place: data.draw(anything)}
        note(f"{json.dumps(schema)} {wrong!r}")
        assert encode(wrong) == explain(wrong)


@st.composite
def _mutations(draw: st.DrawFn, good: bytes) -> bytes:
    mutated = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(mutated)))
        match draw(st.sampled_from(["flip", "cut", "insert", "delete", "max"])):
            case "flip" if at < len(mutated):
                mutated[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del mutated[at:]
            case "insert":
                mutated[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "max":
                mutated[at : at + 1] = b"\xff" * draw(st.integers(1, 10))
            case _:
                del mutated[at : at + 1]
    return bytes(mutated)
