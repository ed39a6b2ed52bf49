"""Other people's data: every datum taken as it is by every engine, as fastavro reads it and writes it.

A sample's schema becomes the type of one field `value` of a contract, behind a field `id` for the key: a record adds no
bytes of its own, so a datum is spliced in as it was found."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from mapping_support import schema
from wire_engines import CODECS, Run
from wire_oracle import Crossing, contract_in_memory, crossing_between
from wire_values import encoded, value_of

from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import resolve
from heddle.contracts.schema import Node, Record, Union
from heddle.errors import ContractError

SAMPLES = Path(__file__).parents[1] / "data/avro"
CONTRACTS = Path(__file__).parents[1] / "contracts/data"
ID = b"\x02x"


def taken(writer: Any, reader: Any) -> Crossing:
    """A reader's type taken as it is, from records of one writer."""
    written, read = (schema("Sample", id="string", value=node) for node in (writer, reader))
    source, target = (contract_in_memory(f"test.{name}.v1", read) for name in ("sample", "taken"))
    return crossing_between(source, target, {"id": "id", "value": "value"}, (written,))


def framed(crossing: Crossing, datum: bytes) -> bytes:
    (frame,) = crossing.nodes
    return frame + ID + datum


def datums(container: Path) -> Iterator[bytes]:
    """The bytes of each datum in an object container file."""
    with container.open("rb") as file:
        for block in fastavro.block_reader(file):
            data = block.bytes_
            for _ in range(block.num_records):
                start = data.tell()
                fastavro.schemaless_reader(data, block.writer_schema, None)
                yield data.getvalue()[start : data.tell()]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ["weather.avro", "weather-deflate.avro"])
def test_datums_of_containers(name: str, codec: str) -> None:
    weather = json.loads((SAMPLES / "weather.avsc").read_text())
    crossing = taken(weather, weather)
    found = list(datums(SAMPLES / name))
    run = Run(crossing, codec)
    answers = run.transcode([framed(crossing, datum) for datum in found])
    assert run.refused == []
    told = [json.loads(line) for line in (SAMPLES / "weather.json").read_text().splitlines()]
    for answer, datum, value in zip(answers, found, told, strict=True):
        assert answer == crossing.fastavro_answer(framed(crossing, datum))
        assert answer.output == (b"default/x", crossing.writer.frame + ID + datum)
        assert fastavro.schemaless_reader(io.BytesIO(datum), fastavro.parse_schema(weather), None) == value


@pytest.mark.parametrize("codec", CODECS)
def test_the_datum_of_a_message_in_single_object_encoding(codec: str) -> None:
    source = json.loads((SAMPLES / "messageV1/test_schema.avsc").read_text())
    message = (SAMPLES / "messageV1/test_message.bin").read_bytes()
    known = fingerprint(to_parsing_canonical_form(source), "CRC-64-AVRO")
    assert message[:10] == b"\xc3\x01" + bytes.fromhex(known)
    crossing = taken(source, source)
    record = framed(crossing, message[10:])
    run = Run(crossing, codec)
    assert run.transcode([record]) == [crossing.fastavro_answer(record)]
    assert run.refused == []
    assert crossing.decoded(record)["value"] == {"id": 42, "name": "Bill", "tags": ["dog_lover", "cat_hater"]}


@pytest.mark.parametrize("codec", CODECS)
def test_the_frame_of_a_registry(codec: str) -> None:
    (sample,) = json.loads((CONTRACTS / "wire_frames.json").read_text())["frames"]
    crossing = taken(sample["schema"], sample["schema"])
    record = framed(crossing, bytes.fromhex(sample["frame_hex"])[5:])
    run = Run(crossing, codec)
    assert run.transcode([record]) == [crossing.fastavro_answer(record)]
    assert run.refused == []


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "case", json.loads((CONTRACTS / "logical_types.json").read_text())["cases"], ids=lambda case: case["name"]
)
def test_logical_types(case: dict[str, Any], codec: str) -> None:
    """What changes its meaning is refused, whatever engine there is; what is read is read as fastavro reads it."""
    crossing = taken(case["writer"], case["reader"])
    record = framed(crossing, bytes.fromhex(case["encoded_hex"]))
    (answer,) = Run(crossing, codec).transcode([record])
    assert answer == crossing.answer(record)
    if case["name"] == "decimal same precision and scale":
        assert answer == crossing.fastavro_answer(record)
        assert repr(crossing.decoded(record)["value"]) == case["fastavro_1_13_1_reads"]
    else:
        assert answer.refusal in (("incompatible-writer", "value"), ("bad-value", "value"))


def _has_values(node: Node, inside: tuple[str, ...] = ()) -> bool:
    """False for a record that holds itself wherever one looks."""
    match node:
        case Record(name=name, fields=fields):
            return name not in inside and all(_has_values(field.type, (*inside, name)) for field in fields)
        case Union(branches=branches):
            return any(_has_values(branch, inside) for branch in branches)
    return True


def _pairs() -> Iterator[tuple[Any, Any]]:
    for case in json.loads((CONTRACTS / "compatibility_pairs.json").read_text())["cases"]:
        try:
            writer, reader = parse_schema(case["writer"]), parse_schema(case["reader"], strict=True)
        except ContractError:
            continue  # an enum's default that is none of its symbols is no contract's
        if _has_values(writer) and not resolve(writer, reader)[1]:
            yield case["writer"], case["reader"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("writer", "reader"), [*_pairs()])
def test_pairs_of_writer_and_reader_of_other_test_suites(writer: Any, reader: Any, codec: str) -> None:
    crossing = taken(writer, reader)
    node = parse_schema(writer)
    dice = Random(1)
    records = [framed(crossing, encoded(node, value_of(node, dice))) for _ in range(20)]
    run = Run(crossing, codec)
    answers = run.transcode([*records])
    for index, record in enumerate(records):
        assert answers[index] == crossing.answer(record)
        if answers[index].refusal is None:
            assert answers[index] == crossing.fastavro_answer(record)
            assert index not in run.refused


def _schemas() -> dict[str, Any]:
    files = sorted((CONTRACTS / "schema_validity/pass").iterdir())
    schemas = {file.name: json.loads(file.read_text()) for file in files}
    return {name: source for name, source in schemas.items() if _has_values(parse_schema(source))}


SCHEMAS = _schemas()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_of_avros_own_test_suite(name: str, codec: str) -> None:
    crossing = taken(SCHEMAS[name], SCHEMAS[name])
    node, dice = parse_schema(SCHEMAS[name]), Random(name)
    records = [framed(crossing, encoded(node, value_of(node, dice))) for _ in range(20)]
    run = Run(crossing, codec)
    assert run.transcode([*records]) == [crossing.answer(record) for record in records]
    (frame,) = crossing.nodes
    if crossing.lowered(frame).plan is None:
        assert name in ("interop.avsc", "namespace_recursive", "recursive_record")
    else:
        assert run.refused == []
