"""A body field by field, and what of it is masked."""

from __future__ import annotations

from typing import Any

import pytest

from heddle.contracts.parser import parse_schema
from heddle.contracts.shapes import Chosen
from heddle.operations.dead_letters.differences import ABSENT, Difference
from heddle.operations.dead_letters.fields import FieldRow, Mark, compare
from heddle.operations.dead_letters.masking import MASK, Masking


def thing(*fields: Any, name: str = "Thing", **more: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [f if isinstance(f, dict) else _field(*f) for f in fields],
        **more,
    }


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Stage", "symbols": list(symbols), **more}


def rows(writer: Any, reader: Any, value: Any) -> dict[str, FieldRow]:
    found = compare(parse_schema(writer), None if reader is None else parse_schema(reader), value)
    assert len({row.path for row in found}) == len(found)
    return {row.path: row for row in found}


def marks(found: dict[str, FieldRow]) -> dict[str, Mark]:
    return {path: row.mark for path, row in found.items() if row.mark is not None}


def test_missing_extra_wrong_and_unknown_are_marked_and_nothing_else_is() -> None:
    old = thing(("id", "string"), ("gone", "long"), ("total", "string"), ("stage", enum("NEW", "WON")))
    new = thing(
        ("id", "string"), ("total", "long"), ("stage", enum("NEW", "LOST")), ("needed", "string"),
        {"name": "note", "type": "string", "default": "-"},
    )  # fmt: skip
    found = rows(old, new, {"id": "a", "gone": 5, "total": "x", "stage": "WON"})
    assert marks(found) == {
        "gone": Mark.EXTRA, "total": Mark.WRONG_TYPE, "stage": Mark.UNKNOWN_SYMBOL, "needed": Mark.MISSING,
        "note": Mark.DEFAULT,
    }  # fmt: skip
    assert found["id"] == FieldRow("id", "a", "string", "string")
    assert (found["total"].written, found["total"].expected) == ("string", "long")
    assert found["stage"].note == "known: NEW, LOST"
    assert (found["needed"].value, found["note"].value) == (ABSENT, "-")


def test_a_known_symbol_a_default_and_an_alias_are_no_failures() -> None:
    reader = thing(("stage", enum("NEW", "OTHER", default="OTHER")), {"name": "b", "type": "long", "aliases": ["a"]})
    found = rows(thing(("stage", enum("NEW", "WON")), ("a", "int")), reader, {"stage": "WON", "a": 1})
    assert marks(found) == {"stage": Mark.DEFAULT}
    assert not Mark.DEFAULT.fails
    assert found["stage"].note == "read as OTHER"
    assert found["b"] == FieldRow("b", 1, "int", "long")


def test_lists_maps_and_unions_are_walked_by_their_values() -> None:
    line = thing(("sku", "string"), name="Line")
    newer = thing(("sku", "string"), ("price", "long"), name="Line")
    kinds = {"type": "array", "items": line}, {"type": "map", "values": "string"}, ["null", "string", "long"]
    wanted = {"type": "array", "items": newer}, {"type": "map", "values": "string"}, ["null", "string"]
    names = ("lines", "tags", "either")
    value = {"lines": [{"sku": "a"}, {"sku": "b"}], "tags": {"x y": "1"}, "either": Chosen(2, 7)}
    writer, reader = thing(*zip(names, kinds, strict=True)), thing(*zip(names, wanted, strict=True))
    found = rows(writer, reader, value)
    assert list(found) == [
        "lines[0].sku", "lines[0].price", "lines[1].sku", "lines[1].price", "tags['x y']", "either",
    ]  # fmt: skip
    assert marks(found) == {"lines[0].price": Mark.MISSING, "lines[1].price": Mark.MISSING, "either": Mark.WRONG_TYPE}
    assert not marks(rows(writer, writer, value))
    assert "either" not in marks(rows(writer, reader, value | {"either": Chosen(0, None)}))
    assert "lines" in rows(writer, reader, value | {"lines": []})


def test_another_contracts_record_is_told_whole() -> None:
    found = rows(thing(("id", "string"), name="Other"), thing(("id", "string")), {"id": "a"})
    assert list(found) == [""]
    assert found[""].mark is Mark.WRONG_TYPE


def test_without_a_contract_nothing_is_marked() -> None:
    found = rows(thing(("id", "string"), ("none", ["null", "long"])), None, {"id": "a", "none": Chosen(0, None)})
    assert [(row.path, row.value, row.mark) for row in found.values()] == [("id", "a", None), ("none", None, None)]


ROWS = [
    FieldRow("contact.email", "ada@example.org", "string", "string"),
    FieldRow("lines[1].account", "DE0012345", "string", "string"),
    FieldRow("by['a.b'].account", "DE0099999", "string", "string"),
    FieldRow("contact.name", "Ada", "string", "string"),
    FieldRow("contacts", "x", "string", "string"),
    FieldRow("old", {"mail": "bob@example.org"}, "Old", "", Mark.EXTRA),
    FieldRow("closed", None, "null", "null"),
]


def test_classified_fields_are_masked_wherever_they_stand() -> None:
    masking = Masking(("contact.email", "lines.account", "by.account", "closed"))
    shown = [row.value for row in masking.rows(ROWS)]
    assert shown == [MASK, MASK, MASK, "Ada", "x", MASK, None]
    assert Masking().rows(ROWS) == ROWS
    assert masking.text("refused: ada@example.org and bob@example.org, Ada") == f"refused: {MASK} and {MASK}, Ada"


@pytest.mark.parametrize("path", ["contact", "contact.email.user", ""])
def test_a_part_or_a_whole_of_a_classified_field_is_masked_too(path: str) -> None:
    (row,) = Masking(("contact.email",)).rows([FieldRow(path, {"email": "ada@example.org"}, "Contact", "Contact")])
    assert row.value == MASK


def test_raw_documents_keep_their_form_only_where_something_is_classified() -> None:
    document = {"a": ["text", 5, None], "b": {"c": True}}
    assert Masking().whole(document) == document
    assert Masking(("x",)).whole(document) == {"a": [MASK, MASK, None], "b": {"c": MASK}}


def test_differences_are_masked_by_path_or_all_of_raw_ones() -> None:
    found = [Difference("contact.email", "ada@example.org", "bob@example.org"), Difference("name", "a", ABSENT)]
    masking = Masking(("contact.email",))
    assert masking.differences(found, of_raw=False) == [Difference("contact.email", MASK, MASK), found[1]]
    assert masking.differences(found, of_raw=True)[1] == Difference("name", MASK, ABSENT)
    assert Masking().differences(found, of_raw=True) == found
