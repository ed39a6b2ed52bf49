"""From a record key back to the values that made it: all that is left of an entity whose tombstone comes."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from building import record
from hypothesis import given
from hypothesis import strategies as st

from heddle.contracts.keys import compile_key, compile_key_parser
from heddle.contracts.parser import parse_schema
from heddle.contracts.refusals import BadKeyError
from heddle.contracts.schema import Record

_KIND = {"type": "enum", "name": "Kind", "symbols": ["OPEN", "VOID"]}
_FIELDS: list[tuple[str, Any]] = [
    ("text", "string"),
    ("number", "long"),
    ("day", {"type": "int", "logicalType": "date"}),
    ("id", {"type": "string", "logicalType": "uuid"}),
    ("kind", _KIND),
    ("owner", "string"),
]
_VALUES = st.fixed_dictionaries(
    {
        "text": st.text(),
        "number": st.integers(-(2**63), 2**63 - 1),
        "day": st.dates(),
        "id": st.uuids(),
        "kind": st.sampled_from(["OPEN", "VOID"]),
        "owner": st.text(),
    }
)


@pytest.fixture(scope="module")
def root() -> Record:
    parsed = parse_schema(record(_FIELDS, "Thing", "things.v1"))
    assert isinstance(parsed, Record)
    return parsed


@pytest.mark.parametrize("key", [("text",), ("number",), ("day",), ("id",), ("kind",), ("text", "number", "day", "id")])
@pytest.mark.parametrize("tenant", [None, "owner"])
def test_a_key_gives_the_values_that_made_it(root: Record, key: tuple[str, ...], tenant: str | None) -> None:
    write, read = compile_key(key, tenant), compile_key_parser(root, key, tenant)

    @given(_VALUES)
    def there_and_back(values: dict[str, Any]) -> None:
        wanted = {path: values[path] for path in (*key, *([tenant] if tenant else []))}
        assert read(write(values)) == wanted

    there_and_back()


def test_values_have_the_types_that_the_contract_gives_them(root: Record) -> None:
    read = compile_key_parser(root, ("number", "day", "id", "kind"), None)
    raw = b"default/7%2F2026-01-02%2F0b8f4c1e-0000-4000-8000-000000000001%2FVOID"
    assert read(raw) == {
        "number": 7,
        "day": date(2026, 1, 2),
        "id": UUID("0b8f4c1e-0000-4000-8000-000000000001"),
        "kind": "VOID",
    }


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"7",
        b"default",
        b"other/7",
        b"default/07",
        b"default/seven",
        b"default/7/8",
        b"default/\xff",
        b"default/%FF",
        b"default/%37",
    ],
)
def test_a_key_that_the_contract_would_not_write_is_refused(root: Record, key: bytes | None) -> None:
    with pytest.raises(BadKeyError):
        compile_key_parser(root, ("number",), None)(key)


def test_a_symbol_that_the_contract_does_not_have_is_refused(root: Record) -> None:
    with pytest.raises(BadKeyError):
        compile_key_parser(root, ("kind",), None)(b"default/PAID")
