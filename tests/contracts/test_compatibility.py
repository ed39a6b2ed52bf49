"""Compatibility against the answers of the Avro project, of registries, and of the specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heddle.contracts.compatibility import check_level, unreadable
from heddle.contracts.parser import parse_schema
from heddle.contracts.schema_diff import schema_changes

DATA = Path(__file__).parent / "data"


def _cases(file: str, key: str) -> list[Any]:
    cases: list[Any] = json.loads((DATA / file).read_text())[key]
    return cases


@pytest.mark.parametrize("case", _cases("compatibility_pairs.json", "cases"))
def test_pairs_of_reader_and_writer(case: dict[str, Any]) -> None:
    problems = unreadable(parse_schema(case["writer"]), parse_schema(case["reader"]), meaning=False)
    assert (not problems) == case["compatible"], case["why"]


@pytest.mark.parametrize("case", _cases("compatibility_levels.json", "cases"))
def test_levels_over_a_history(case: dict[str, Any]) -> None:
    history = [parse_schema(schema) for schema in case["history"]]
    problems = check_level(parse_schema(case["candidate"]), history, case["level"])
    assert (not problems) == case["compatible"], case["why"]


@pytest.mark.parametrize("case", _cases("apicurio_compatibility-test-data.json", "tests"), ids=lambda c: c["id"][:20])
def test_as_apicurio_decides(case: dict[str, Any]) -> None:
    original, updated = parse_schema(case["original"]), parse_schema(case["updated"])
    backward = not check_level(updated, [original], "BACKWARD", meaning=False)
    forward = not check_level(updated, [original], "FORWARD", meaning=False)
    expected = {"backward": (True, False), "forward": (False, True), "both": (True, True), "none": (False, False)}
    assert (backward, forward) == expected[case["compatibility"]]


@pytest.mark.parametrize("case", _cases("logical_types.json", "cases"), ids=lambda c: c["name"])
def test_logical_types_may_not_change_their_meaning(case: dict[str, Any]) -> None:
    """Plain checkers let a changed scale or unit through. A uuid on a plain string is checked value by value."""
    writer, reader = parse_schema(case["writer"]), parse_schema(case["reader"])
    assert (not unreadable(writer, reader, meaning=False)) == case["avro_java_1_12_0_checker"]
    expected = case["name"] in ("decimal same precision and scale", "string to uuid")
    assert (not unreadable(writer, reader)) == expected


def test_more_digits_before_the_point_are_no_change_of_meaning() -> None:
    def decimal(precision: int) -> dict[str, Any]:
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2}

    assert not unreadable(parse_schema(decimal(10)), parse_schema(decimal(14)))
    assert unreadable(parse_schema(decimal(14)), parse_schema(decimal(10)))


def test_problems_name_the_field() -> None:
    def shape(kind: str) -> dict[str, Any]:
        inner = {"type": "record", "name": "I", "fields": [{"name": "x", "type": kind}]}
        return {"type": "record", "name": "R", "fields": [{"name": "l", "type": {"type": "array", "items": inner}}]}

    assert list(map(str, unreadable(parse_schema(shape("string")), parse_schema(shape("int"))))) == [
        "l[].x: string cannot be read as int"
    ]


def test_changes_in_words() -> None:
    def shape(*fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "record", "name": "R", "fields": list(fields)}

    kept = {"name": "kept", "type": "int"}
    before = shape(kept, {"name": "old", "type": "int"}, {"name": "n", "type": "int"})
    after = shape(kept, {"name": "new", "type": ["null", "string"], "default": None}, {"name": "n", "type": "long"})
    changes = schema_changes(parse_schema(before), parse_schema(after))
    assert changes == ["adds new", "n: int → long", "removes old"]
    assert schema_changes(parse_schema(before), parse_schema(before)) == ["documentation or layout only"]
