"""Readers of a contract read what every compatible writer wrote, as fastavro would; and the limits on foreign bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro
import pytest
from building import codec_of, make_contract, record, types_of, write_contract

from heddle.contracts import AvroCodec, Contract, MemoryRegistry, contract_of, load_contract
from heddle.contracts.schema_diff import schema_changes
from heddle.errors import ContractError, DecodeError, EncodeError

COLOURS = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "BLUE"]}
FEWER = {"type": "enum", "name": "Colour", "symbols": ["GREEN", "OTHER"], "default": "OTHER"}


class Written(MemoryRegistry):
    """A registry in which schema 7 is whatever a test says that a writer wrote with."""

    def __init__(self, contract: Contract, writer: dict[str, Any]) -> None:
        super().__init__([contract])
        self._writer = writer

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self._writer if schema_id == 7 else super().schema(schema_id)


def framed(writer: dict[str, Any], value: dict[str, Any]) -> bytes:
    out = io.BytesIO(b"\x00\x00\x00\x00\x07")
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(writer), value)
    return out.getvalue()


@pytest.mark.parametrize(
    ("written", "value", "read"),
    [
        ([("n", "int")], {"n": 5}, [("n", "long")]),
        ([("n", "int")], {"n": 5}, [("n", "double")]),
        ([("n", "long")], {"n": 2**53}, [("n", "float")]),
        ([("n", "float")], {"n": 0.5}, [("n", "double")]),
        ([("n", "string")], {"n": "ü"}, [("n", "bytes")]),
        ([("n", "bytes")], {"n": "ü".encode()}, [("n", "string")]),
        ([("n", "int")], {"n": 5}, [("n", ["null", "int"])]),
        ([("n", "int")], {"n": 5}, [("n", ["null", "string", "long"])]),
        ([("n", ["int", "null"])], {"n": 5}, [("n", ["null", "long"])]),
        ([("n", ["null", "int"])], {"n": None}, [("n", ["null", "long"])]),
        ([("gone", "string"), ("n", "int")], {"gone": "x", "n": 1}, [("n", "int")]),
        ([("b", "int"), ("a", "int")], {"a": 1, "b": 2}, [("a", "int"), ("b", "int")]),
        ([("n", "int")], {"n": 1}, [("n", "int"), {"name": "more", "type": "string", "default": "d"}]),
        ([("n", "int")], {"n": 1}, [("n", "int"), {"name": "more", "type": ["null", "string"], "default": None}]),
        (
            [("n", "int")],
            {"n": 1},
            [("n", "int"), {"name": "l", "type": {"type": "array", "items": "int"}, "default": [1, 2]}],
        ),
        (
            [("n", "int")],
            {"n": 1},
            [("n", "int"), {"name": "m", "type": {"type": "map", "values": "int"}, "default": {"a": 1}}],
        ),
        (
            [("n", "int")],
            {"n": 1},
            [("n", "int"), {"name": "r", "type": record([("x", "int")], "Inner"), "default": {"x": 3}}],
        ),
        ([("old", "int")], {"old": 1}, [{"name": "new", "type": "int", "aliases": ["old"]}]),
        ([("c", COLOURS)], {"c": "GREEN"}, [("c", FEWER)]),
        ([("c", COLOURS)], {"c": "RED"}, [("c", FEWER)]),
        ([("l", {"type": "array", "items": "int"})], {"l": [1, 2]}, [("l", {"type": "array", "items": "double"})]),
        ([("m", {"type": "map", "values": "int"})], {"m": {"a": 1}}, [("m", {"type": "map", "values": "long"})]),
        (
            [("r", record([("x", "int"), ("y", "int")], "Inner"))],
            {"r": {"x": 1, "y": 2}},
            [("r", record([("y", "long"), {"name": "z", "type": "int", "default": 9}], "Inner"))],
        ),
    ],
)
def test_compatible_writers_are_read(
    tmp_path: Path, written: list[Any], value: dict[str, Any], read: list[Any]
) -> None:
    writer = record([("id", "string"), *written])
    contract = make_contract(tmp_path, read)
    data = framed(writer, {"id": "x", **value})
    expected = fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(writer), contract.schema)
    assert AvroCodec[Any](contract, Written(contract, writer)).decode_dict(data) == expected


def test_types_are_filled_from_defaults(tmp_path: Path) -> None:
    inner = record([("x", "int")], "Inner")
    fields = [
        {"name": "list", "type": {"type": "array", "items": inner}, "default": [{"x": 1}]},
        {"name": "one", "type": ["null", "Inner"], "default": None},
        {"name": "map", "type": {"type": "map", "values": "string"}, "default": {}},
    ]
    write_contract(tmp_path, record([("id", "string"), *fields]))
    module = types_of(tmp_path)
    contract = contract_of(module.Thing)
    writer = record([("id", "string")])
    codec = AvroCodec[Any](contract, Written(contract, writer))
    read = codec.decode(framed(writer, {"id": "x"}))
    assert read == module.Thing(id="x") == module.Thing(id="x", list=(module.Inner(x=1),), one=None, map={})
    again = codec.decode(framed(writer, {"id": "x"}))
    assert read.map is not again.map


@pytest.mark.parametrize(
    ("written", "read", "path"),
    [
        ([], [("n", "int")], "n"),
        ([("n", "string")], [("n", "int")], "n"),
        ([("c", COLOURS)], [("c", {**COLOURS, "symbols": ["RED"]})], "c"),
        ([("l", {"type": "array", "items": "string"})], [("l", {"type": "array", "items": "int"})], "l[]"),
        (
            [("n", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 4})],
            [("n", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})],
            "n",
        ),
        (
            [("t", {"type": "long", "logicalType": "timestamp-millis"})],
            [("t", {"type": "long", "logicalType": "timestamp-micros"})],
            "t",
        ),
    ],
)
def test_incompatible_writers_are_refused_before_any_value(
    tmp_path: Path, written: list[Any], read: list[Any], path: str
) -> None:
    writer = record([("id", "string"), *written])
    contract = make_contract(tmp_path, read)
    with pytest.raises(ContractError) as caught:
        AvroCodec[Any](contract, Written(contract, writer)).decode_dict(b"\x00\x00\x00\x00\x07\x02x")
    assert (caught.value.code, caught.value.path) == ("incompatible-writer", path)


def test_a_schema_is_asked_for_once(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, [])
    asked: list[int] = []

    class Counting(MemoryRegistry):
        def schema(self, schema_id: int) -> dict[str, Any]:
            asked.append(schema_id)
            return super().schema(schema_id)

    codec = AvroCodec[Any](contract, Counting([contract]))
    data = codec.encode_dict({"id": "x"})
    for _ in range(3):
        codec.decode_dict(data)
    assert asked == [1]


NODE = record([("value", "int"), ("next", ["null", "Node"])], "Node")


def test_records_may_contain_themselves(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, [("head", NODE), ("also", ["null", "Node"])]))
    value = {"id": "x", "head": {"value": 1, "next": {"value": 2, "next": None}}, "also": None}
    assert codec.decode_dict(codec.encode_dict(value)) == value


def test_types_may_contain_themselves(tmp_path: Path) -> None:
    write_contract(tmp_path, record([("id", "string"), ("head", NODE)]))
    module = types_of(tmp_path)
    value = module.Thing(id="x", head=module.Node(value=1, next=module.Node(value=2, next=None)))
    codec = codec_of(contract_of(module.Thing))
    assert codec.decode(codec.encode(value)) == value


def test_nesting_without_end_is_refused_both_ways(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, [("head", ["null", NODE])]))
    deep: dict[str, Any] | None = None
    for _ in range(10_000):
        deep = {"value": 1, "next": deep}
    with pytest.raises(EncodeError) as caught:
        codec.encode_dict({"id": "x", "head": deep})
    assert caught.value.code == "too-deep"
    with pytest.raises(DecodeError) as read:
        codec.decode_dict(codec.frame + b"\x02x" + b"\x02\x02" * 100_000 + b"\x00")
    assert read.value.code == "over-limit"
    assert len(read.value.path) < 200


def test_what_may_be_written_may_be_read(tmp_path: Path) -> None:
    """The deepest record that the encoder takes is one that the decoder takes."""
    codec = codec_of(make_contract(tmp_path, [("head", ["null", NODE])]))
    head: dict[str, Any] | None = None
    deepest = None
    for _ in range(200):
        head = {"value": 1, "next": head}
        try:
            deepest = codec.encode_dict({"id": "x", "head": head})
        except EncodeError:
            break
        assert codec.decode_dict(deepest)["head"] == head
    assert deepest is not None


@pytest.mark.timeout(10)
def test_a_tiny_record_cannot_claim_endless_items(tmp_path: Path) -> None:
    """Items of no bytes, items that are not there, and blocks that lie about their size."""
    nothing = {"type": "array", "items": record([], "Nothing")}
    byte = {"type": "array", "items": {"type": "fixed", "name": "Byte", "size": 1}}
    endless = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    many = b"\xc0\x96\xb1\x02" + b"\x80\x96\xb1\x02\x00" * 1000 + b"\x00"
    contract = make_contract(tmp_path, [])
    for inner in (nothing, byte):
        writer = record([("id", "string"), ("n", {"type": "array", "items": inner})])
        codec = AvroCodec[Any](contract, Written(contract, writer))
        for body in (b"\x02" + endless + b"\x00\x00", endless, many, b"\x01" + b"\xff" * 9 + b"\x01"):
            with pytest.raises(DecodeError):
                codec.decode_dict(b"\x00\x00\x00\x00\x07\x02x" + body)


def test_more_bytes_than_any_honest_record_are_refused(tmp_path: Path) -> None:
    codec = codec_of(make_contract(tmp_path, []))
    with pytest.raises(DecodeError) as caught:
        codec.decode_dict(codec.frame + b"\x02x" + bytes(2**24))
    assert caught.value.code == "over-limit"


def test_a_schema_that_doubles_on_each_level_stays_small(tmp_path: Path) -> None:
    """Records used twice become functions: the generated code grows with the schema, not with its expansion."""
    inner: Any = "int"
    name = ""
    for level in range(40):
        first = inner if level == 0 else record([("a", inner), ("b", name or inner)], f"Level{level}")
        inner, name = first, "int" if level == 0 else f"Level{level}"
    schema = record([("id", "string"), ("v", ["null", inner]), ("l", {"type": "array", "items": name})])
    codec = codec_of(load_contract(write_contract(tmp_path, schema)))
    value = {"id": "x", "v": None, "l": []}
    assert codec.decode_dict(codec.encode_dict(value)) == value
    assert schema_changes(codec.contract.root, codec.contract.root) == ["documentation or layout only"]


def test_deeply_nested_lists_are_within_pythons_limits(tmp_path: Path) -> None:
    inner: Any = "int"
    value: Any = 7
    for level in range(30):
        inner = {"type": "array", "items": inner} if level % 2 else {"type": "map", "values": ["null", inner]}
        value = [value] if level % 2 else {"k": value}
    codec = codec_of(make_contract(tmp_path, [("v", inner)]))
    assert codec.decode_dict(codec.encode_dict({"id": "x", "v": value})) == {"id": "x", "v": value}
