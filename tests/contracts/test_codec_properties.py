"""The generated codecs against two oracles: fastavro, and the reference codec that explains refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fastavro
from building import codec_of, types_of, write_contract
from generating import anything, things
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from heddle.contracts import AvroCodec, contract_of
from heddle.contracts.codegen import REFUSALS
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_compiler import compile_encoder
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Node
from heddle.contracts.shapes import DictShape, TypeShape
from heddle.errors import ContractError, DecodeError, EncodeError, HeddleError
from schemas.ledger import Entry, Line

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)
_DICTS = DictShape()
_REFUSED = "refused"
_ENTRIES: AvroCodec[Entry] = codec_of(contract_of(Entry))


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


@settings(_SETTINGS, max_examples=20)
@given(st.data(), things())
def test_types_carry_what_dicts_carry(data: DataObject, thing: tuple[dict[str, Any], Any]) -> None:
    schema, values = thing
    note(json.dumps(schema))
    with TemporaryDirectory() as folder:
        write_contract(Path(folder), schema)
        contract = contract_of(types_of(Path(folder)).Thing)
    codec = codec_of(contract)
    shape = TypeShape(contract.type, contract.major)
    for _ in range(3):
        framed = codec.encode_dict(data.draw(values))
        value = codec.decode(framed)
        assert type(value) is contract.type
        assert codec.encode(value) == framed
        assert decode_reference(as_written(contract.root), shape, DEFAULT_LIMITS, framed, 5) == value
        assert encode_reference(contract.root, shape, DEFAULT_LIMITS, value) == framed[5:]


@_SETTINGS
@given(st.data())
def test_mutated_frames_of_the_reference_contracts_raise_only_our_errors(data: DataObject) -> None:
    """The whole codec, frame included: a value or a `HeddleError`, whatever the bytes."""
    entry = Entry(
        entry_id="invoice:1",
        source_id="1",
        kind="INVOICE",
        booked_at=datetime(2024, 1, 1, tzinfo=UTC),
        currency="USD",
        lines=(Line(account="revenue", debit=Decimal(0), credit=Decimal("12.34")),) * 3,
    )
    mutated = data.draw(_mutations(_ENTRIES.encode(entry)) | st.binary(max_size=40))
    for decode in (_ENTRIES.decode, _ENTRIES.decode_dict):
        refused = None
        try:
            read = decode(mutated)
        except HeddleError as error:
            refused = error
        if refused is None:
            assert read is not None
        else:
            assert isinstance(refused, ContractError)
            assert refused.code != ContractError.code


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
