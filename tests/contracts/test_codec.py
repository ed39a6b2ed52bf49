"""The codec on values: round trips, the frame, and an error of its own for everything that a contract refuses."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from building import codec_of, make_contract, record, types_of, write_contract

from heddle.contracts import AvroCodec, MemoryRegistry, body_hash, contract_of, decode_any, load_contract
from heddle.errors import (
    ContractError,
    DecodeError,
    EncodeError,
    FailureClass,
    ForeignBytesError,
    TruncatedError,
    UnknownSchemaIdError,
)
from schemas.crm import Deal
from schemas.ledger import Entry, Line

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
STAGE = {"type": "enum", "name": "Stage", "symbols": ["OPEN", "DONE"]}
LINE = record([("amount", DECIMAL), ("note", ["null", "string"])], "Line")
FIELDS: list[Any] = [
    ("flag", "boolean"),
    ("small", "int"),
    ("big", "long"),
    ("ratio", "double"),
    ("rough", "float"),
    ("data", "bytes"),
    ("code", {"type": "fixed", "name": "Code", "size": 3}),
    ("amount", DECIMAL),
    ("stage", STAGE),
    ("day", {"type": "int", "logicalType": "date"}),
    ("clock", {"type": "int", "logicalType": "time-millis"}),
    ("at", {"type": "long", "logicalType": "timestamp-millis"}),
    ("local", {"type": "long", "logicalType": "local-timestamp-micros"}),
    ("token", {"type": "string", "logicalType": "uuid"}),
    ("lines", {"type": "array", "items": LINE}),
    ("tags", {"type": "map", "values": "long"}),
    ("either", ["null", "string", "long", DECIMAL]),
    {"name": "currency", "type": "string", "default": "USD"},
]
GOOD: dict[str, Any] = {
    "id": "thing 1",
    "flag": True,
    "small": -(2**31),
    "big": 2**63 - 1,
    "ratio": 0.1,
    "rough": 0.5,
    "data": b"\x00\xff",
    "code": b"abc",
    "amount": Decimal("-1234.56"),
    "stage": "DONE",
    "day": date(2024, 2, 29),
    "clock": time(23, 59, 59, 999000),
    "at": datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC),
    "local": datetime(1969, 12, 31, 23, 59, 59, 999999),
    "token": UUID("12345678-1234-5678-1234-567812345678"),
    "lines": [{"amount": Decimal("1.00"), "note": None}, {"amount": Decimal("2.50"), "note": "ü"}],
    "tags": {"a": 1, "b": -1},
    "either": Decimal("9.99"),
    "currency": "EUR",
}


@pytest.fixture
def codec(tmp_path: Path) -> AvroCodec[Any]:
    return codec_of(make_contract(tmp_path, FIELDS))


def test_dicts_make_the_bytes_that_fastavro_makes(codec: AvroCodec[Any]) -> None:
    framed = codec.encode_dict(GOOD)
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, codec.contract.schema, GOOD)
    assert framed[5:] == expected.getvalue()
    assert codec.decode_dict(framed) == GOOD


def test_frame_is_a_zero_byte_and_the_registered_id(tmp_path: Path) -> None:
    ours, other = make_contract(tmp_path / "a", []), make_contract(tmp_path / "b", [("n", "int")])
    registry = MemoryRegistry([ours])
    assert AvroCodec[Any](ours, registry).encode_dict({"id": "x"}) == b"\x00\x00\x00\x00\x01\x02x"
    with pytest.raises(ContractError):
        AvroCodec[Any](other, registry).encode_dict({"id": "x", "n": 1})


def test_wire_frames_of_the_registry_format(tmp_path: Path) -> None:
    document = json.loads((Path(__file__).parent / "data/wire_frames.json").read_text())
    frame = document["frames"][0]

    class Registry(MemoryRegistry):
        def schema(self, schema_id: int) -> dict[str, Any]:
            assert schema_id == frame["schema_id"]
            return dict(frame["schema"])

    assert decode_any(bytes.fromhex(frame["frame_hex"]), Registry()) == {
        **frame["value"],
        "amount": Decimal(frame["value"]["amount"]),
    }


def test_values_of_the_reference_contracts_survive() -> None:
    deal = Deal(
        deal_id="D1",
        stage="WON",
        sales_agent="Ada",
        product="GTX",
        closed_on=date(2017, 3, 1),
        close_value=Decimal("1054.00"),
        changed_at=datetime(2017, 3, 1, 9, 30, tzinfo=UTC),
    )
    codec: AvroCodec[Deal] = codec_of(contract_of(Deal))
    read = codec.decode(codec.encode(deal))
    assert read == deal
    assert type(read) is Deal
    assert hash(read) == hash(deal)
    with pytest.raises(AttributeError):
        read.stage = "LOST"  # type: ignore[misc]


def test_nested_records_become_tuples_of_their_type() -> None:
    lines = (
        Line(account="receivables", debit=Decimal("10.00"), credit=Decimal("0.00")),
        Line(account="revenue", debit=Decimal("0.00"), credit=Decimal("10.00")),
    )
    entry = Entry(
        entry_id="invoice:1",
        source_id="1",
        kind="INVOICE",
        booked_at=datetime(2024, 1, 1, tzinfo=UTC),
        currency="USD",
        lines=lines,
    )
    codec: AvroCodec[Entry] = codec_of(contract_of(Entry))
    read = codec.decode(codec.encode(entry))
    assert read == entry
    assert all(type(line) is Line for line in read.lines)


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("flag", 1, "wrong-type"),
        ("flag", None, "wrong-type"),
        ("small", 2**31, "out-of-range"),
        ("small", True, "wrong-type"),
        ("small", "1", "wrong-type"),
        ("big", 2**63, "out-of-range"),
        ("big", 1.0, "wrong-type"),
        ("ratio", "1", "wrong-type"),
        ("ratio", Decimal(1), "wrong-type"),
        ("ratio", 10**400, "out-of-range"),
        ("rough", 1e300, "out-of-range"),
        ("data", "text", "wrong-type"),
        ("code", b"four", "wrong-length"),
        ("amount", 1, "wrong-type"),
        ("amount", 1.5, "wrong-type"),
        ("amount", Decimal("10000"), "decimal-precision"),
        ("amount", Decimal("1E+999999"), "decimal-precision"),
        ("amount", Decimal("NaN"), "decimal-precision"),
        ("amount", Decimal("-Infinity"), "decimal-precision"),
        ("amount", Decimal("0.001"), "decimal-scale"),
        ("amount", Decimal("1E-999999"), "decimal-scale"),
        ("stage", "GONE", "unknown-symbol"),
        ("stage", 0, "wrong-type"),
        ("stage", [], "wrong-type"),
        ("day", datetime(2024, 1, 1, tzinfo=UTC), "wrong-type"),
        ("day", "2024-01-01", "wrong-type"),
        ("clock", time(1, tzinfo=UTC), "wrong-type"),
        ("at", datetime(2024, 1, 1), "naive-datetime"),
        ("at", date(2024, 1, 1), "wrong-type"),
        ("local", datetime(2024, 1, 1, tzinfo=UTC), "naive-datetime"),
        ("token", "12345678-1234-5678-1234-567812345678", "wrong-type"),
        ("id", "\ud800", "invalid-text"),
        ("id", b"bytes", "wrong-type"),
        ("lines", "ab", "wrong-type"),
        ("lines[0]", {"amount": Decimal(1)}, "missing-field"),
        ("lines[0]", {"amount": Decimal(1), "note": None, "secret": 1}, "unknown-field"),
        ("lines[0]", 7, "wrong-type"),
        ("lines[1].amount", "2.50", "wrong-type"),
        ("lines[1].note", 1, "wrong-type"),
        ("tags", [1], "wrong-type"),
        ("tags{}", "1", "wrong-type"),
        ("either", 1.5, "wrong-type"),
    ],
)
def test_every_refusal_names_code_path_and_type(codec: AvroCodec[Any], path: str, value: Any, code: str) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode_dict(_with(GOOD, path, value))
    error = caught.value
    assert error.code == code
    assert error.path == (f"{path}.note" if code == "missing-field" else path)
    assert error.failure_class is FailureClass.CONTRACT
    if code == "wrong-type":
        assert f" is {type(value).__name__}," in str(error)


def _with(value: Any, path: str, new: Any) -> Any:
    """A copy of a value with one place changed."""
    if not path:
        return new
    step, rest = re.fullmatch(r"\.?(\w+|\[\d+\]|\{\})(.*)", path, re.ASCII).groups()  # type: ignore[union-attr]
    if step == "{}":
        return {"k": new}
    if step.startswith("["):
        return [_with(item, rest, new) if i == int(step[1:-1]) else item for i, item in enumerate(value)]
    return {**value, step: _with(value[step], rest, new)}


def test_no_refusal_shows_what_the_value_holds(codec: AvroCodec[Any]) -> None:
    secret = "hunter2"
    for path, value in [
        ("stage", secret),
        ("lines[1].amount", secret),
        ("lines[0]", {secret: secret}),
        ("lines[0]", {"amount": Decimal(1), "note": secret, secret: 1}),
        ("either", {secret: 1}),
        ("id", secret.encode()),
        ("token", secret),
    ]:
        with pytest.raises(EncodeError) as caught:
            codec.encode_dict(_with(GOOD, path, value))
        assert secret not in f"{caught.value} {caught.value.hint} {caught.value.path}"


def test_a_missing_field_is_an_error_unless_it_has_a_default(codec: AvroCodec[Any]) -> None:
    without = {name: value for name, value in GOOD.items() if name != "currency"}
    assert codec.decode_dict(codec.encode_dict(without))["currency"] == "USD"
    for missing in GOOD.keys() - {"currency"}:
        with pytest.raises(EncodeError) as caught:
            codec.encode_dict({name: value for name, value in GOOD.items() if name != missing})
        assert (caught.value.code, caught.value.path) == ("missing-field", missing)


def test_a_misspelt_optional_field_is_not_passed_over(codec: AvroCodec[Any]) -> None:
    misspelt = {("curency" if name == "currency" else name): value for name, value in GOOD.items()}
    with pytest.raises(EncodeError) as caught:
        codec.encode_dict(misspelt)
    assert caught.value.code == "unknown-field"


def test_near_types_are_taken_for_what_they_are(codec: AvroCodec[Any]) -> None:
    class Stage(StrEnum):
        DONE = "DONE"

    class Number(IntEnum):
        SEVEN = 7

    near = GOOD | {"stage": Stage.DONE, "small": Number.SEVEN, "ratio": 3, "lines": tuple(GOOD["lines"])}
    assert codec.decode_dict(codec.encode_dict(near)) == GOOD | {"small": 7, "ratio": 3.0}


def test_a_moment_is_the_same_in_every_zone(codec: AvroCodec[Any]) -> None:
    there = GOOD["at"].astimezone(timezone(timedelta(hours=-5)))
    assert codec.encode_dict(GOOD | {"at": there}) == codec.encode_dict(GOOD)


def test_decimals_are_exact_whatever_the_arithmetic_context(tmp_path: Path) -> None:
    wide = {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 30}
    codec = codec_of(make_contract(tmp_path, [("amount", wide)]))
    amount = Decimal("123456789012345678901234567890.123456789012345678901234567891")
    assert codec.decode_dict(codec.encode_dict({"id": "", "amount": amount}))["amount"] == amount


def test_an_event_larger_than_its_topic_takes_is_refused(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, [], toml="[topic]\nmax_message_bytes = 1024\n"))
    assert len(codec.encode_dict({"id": "x" * 1017})) == 1024
    with pytest.raises(EncodeError) as caught:
        codec.encode_dict({"id": "x" * 1018})
    assert caught.value.code == "too-large"


def test_bytes_that_are_no_record_each_have_their_error(codec: AvroCodec[Any]) -> None:
    good = codec.encode_dict(GOOD)
    cases: list[tuple[bytes | None, type[ContractError], str]] = [
        (None, DecodeError, "tombstone"),
        (b"", ForeignBytesError, "foreign-bytes"),
        (b'{"id": "x"}', ForeignBytesError, "foreign-bytes"),
        (good[:3], TruncatedError, "truncated"),
        (good[:5], TruncatedError, "truncated"),
        (good[:-1], TruncatedError, "truncated"),
        (good + b"\x00", DecodeError, "trailing-bytes"),
        (b"\x00\x00\x00\x00\x63" + good[5:], UnknownSchemaIdError, "unknown-schema-id"),
    ]
    for data, error, code in cases:
        with pytest.raises(error) as caught:
            codec.decode_dict(data)
        assert caught.value.code == code


def test_a_refused_record_says_at_which_byte_and_by_which_schema(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, [("v", "string")]))
    good = codec.encode_dict({"id": "a", "v": "bc"})
    (failure,) = codec.decode_dict_batch([good, good[:-1] + b"\xff"])[1]
    assert isinstance(failure.error, DecodeError)
    assert (failure.error.offset, failure.error.writer) == (len(good), int.from_bytes(good[1:5], "big"))
    assert failure.message.endswith(f"(byte {len(good)}, schema {failure.error.writer})")


@pytest.mark.parametrize(
    ("fields", "body", "code", "path"),
    [
        ([("v", "boolean")], b"\x02", "bad-value", "v"),
        ([("v", "int")], b"\xff\xff\xff\xff\x1f", "out-of-range", "v"),
        ([("v", "long")], b"\xff" * 10 + b"\x01", "bad-varint", "v"),
        ([("v", "long")], b"\xff" * 9 + b"\x03", "out-of-range", "v"),
        ([("v", "string")], b"\x01", "bad-value", "v"),
        ([("v", "string")], b"\x02\xff", "invalid-utf8", "v"),
        ([("v", "string")], b"\x08ab", "truncated", "v"),
        ([("v", "double")], b"\x00" * 7, "truncated", "v"),
        ([("v", STAGE)], b"\x04", "bad-index", "v"),
        ([("v", STAGE)], b"\x01", "bad-index", "v"),
        ([("v", ["null", "string"])], b"\x04", "bad-index", "v"),
        ([("v", ["null", "string"])], b"\x01", "bad-index", "v"),
        ([("v", DECIMAL)], b"\x00", "bad-value", "v"),
        ([("v", DECIMAL)], b"\x08\x7f\xff\xff\xff", "out-of-range", "v"),
        ([("v", {"type": "int", "logicalType": "date"})], b"\xfe\xff\xff\xff\x0f", "out-of-range", "v"),
        ([("v", {"type": "int", "logicalType": "time-millis"})], b"\x01", "out-of-range", "v"),
        (
            [("v", {"type": "long", "logicalType": "timestamp-micros"})],
            b"\xfe" + b"\xff" * 8 + b"\x01",
            "out-of-range",
            "v",
        ),
        ([("v", {"type": "string", "logicalType": "uuid"})], b"\x04ab", "bad-value", "v"),
        ([("v", {"type": "array", "items": "string"})], b"\x04\x02a\x02\xff\x00", "invalid-utf8", "v[1]"),
        ([("v", {"type": "map", "values": "boolean"})], b"\x02\x02a\x07\x00", "bad-value", "v{}"),
        ([("v", {"type": "array", "items": LINE})], b"\x02\x02\x01\x06\x00", "bad-index", "v[0].note"),
    ],
)
def test_bytes_that_no_value_has_are_refused_with_their_place(
    tmp_path: Path, fields: list[Any], body: bytes, code: str, path: str
) -> None:
    codec = codec_of(make_contract(tmp_path, fields))
    with pytest.raises(DecodeError) as caught:
        codec.decode_dict(codec.frame + b"\x02x" + body)
    assert (caught.value.code, caught.value.path) == (code, path)


def test_lists_may_come_in_blocks_with_their_size(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, [("v", {"type": "array", "items": "int"})]))
    blocks = b"\x03\x04\x02\x04" + b"\x02\x06" + b"\x00"
    assert codec.decode_dict(codec.frame + b"\x02x" + blocks)["v"] == [1, 2, 3]


def test_batches_keep_their_places(codec: AvroCodec[Any]) -> None:
    good = codec.encode_dict(GOOD)
    values, failures = codec.decode_dict_batch([good, None, good[:-1], good])
    assert [value is None for value in values] == [False, True, True, False]
    assert [(failure.index, failure.code) for failure in failures] == [(1, "tombstone"), (2, "truncated")]
    assert all(failure.failure_class is FailureClass.CONTRACT for failure in failures)


def test_typed_batches(tmp_path: Path) -> None:
    write_contract(tmp_path, record([("id", "string"), ("n", "int")]))
    thing = types_of(tmp_path).Thing
    codec = codec_of(contract_of(thing))
    framed, failures = codec.encode_batch([thing(id="a", n=1), thing(id="b", n=2**40), "no thing"])
    assert [value is None for value in framed] == [False, True, True]
    assert [(f.index, f.code, f.path) for f in failures] == [(1, "out-of-range", "n"), (2, "wrong-type", "")]
    assert codec.decode_batch(framed)[0] == [thing(id="a", n=1), None, None]


def test_body_hash_leaves_the_frame_out(codec: AvroCodec[Any]) -> None:
    framed = codec.encode_dict(GOOD)
    assert body_hash(framed) == body_hash(b"\x00\x00\x00\x00\x63" + framed[5:])
    assert body_hash(framed) != body_hash(codec.encode_dict(GOOD | {"id": "other"}))
    assert len(body_hash(framed)) == 16


def test_a_record_of_another_contract_is_refused(tmp_path: Path) -> None:
    ours = make_contract(tmp_path, [])
    theirs = load_contract(write_contract(tmp_path, record([("id", "string")], namespace="other.v1"), "other/thing.v1"))
    registry = MemoryRegistry([ours, theirs])
    framed = AvroCodec[Any](theirs, registry).encode_dict({"id": "x"})
    with pytest.raises(ContractError) as caught:
        AvroCodec[Any](ours, registry).decode_dict(framed)
    assert caught.value.code == "incompatible-writer"
    assert decode_any(framed, registry) == {"id": "x"}


def test_nothing_is_asked_of_the_registry_before_the_first_record(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, [])
    codec = AvroCodec[Any](contract, MemoryRegistry())
    with pytest.raises(ContractError) as caught:
        codec.encode_dict({"id": "x"})
    assert caught.value.code == "not-registered"
    assert "heddle apply" in caught.value.hint
