"""Column values: exact, or that record's contract failure."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.contracts.schema import NULL, Array, Logical, Node, Primitive, Union
from heddle.errors import ContractError
from heddle.sources.postgres.values import fitted_reader, reader_of

STRING, DOUBLE = Primitive("string"), Primitive("double")
DECIMAL = Primitive("bytes", Logical("decimal", 20, 4))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bool", "t", True),
        ("int8", "-9223372036854775808", -(2**63)),
        ("numeric", "12345678901234567890.12345678901234567890", Decimal("12345678901234567890.12345678901234567890")),
        ("numeric", "0.10", Decimal("0.10")),
        ("float8", "1e-07", 1e-07),
        ("date", "0001-01-01", date(1, 1, 1)),
        ("time", "23:59:59.999999", time(23, 59, 59, 999999)),
        ("timestamp", "2026-02-03 04:05:06.7", datetime(2026, 2, 3, 4, 5, 6, 700000)),
        ("timestamptz", "2026-02-03 04:05:06.000007+00", datetime(2026, 2, 3, 4, 5, 6, 7, UTC)),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("bytea", "\\x00ff", b"\0\xff"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("mood", "happy", "happy"),
        ("int4[]", "{}", ()),
        ("int4[]", "{1,NULL,-3}", (1, None, -3)),
        ("int4[]", "[0:1]={1,2}", (1, 2)),
        ("int4[]", "{{1,2},{3,4}}", ((1, 2), (3, 4))),
        ("text[]", '{a,"b,c","NULL","",NULL,"\\"\\\\{}"}', ("a", "b,c", "NULL", "", None, '"\\{}')),
        ("box[]", "{(1,1),(0,0);(2,2),(1,1)}", ("(1,1),(0,0)", "(2,2),(1,1)")),
        ("box[]", "{(1,1),(0,0);NULL}", ("(1,1),(0,0)", None)),
        ("point[]", '{"(1,2)","(3,4)"}', ("(1,2)", "(3,4)")),
        ("numeric[]", "{0.10}", (Decimal("0.10"),)),
        ("timestamptz[]", '{"2026-01-01 00:00:00+00"}', (datetime(2026, 1, 1, tzinfo=UTC),)),
    ],
)
def test_a_value_is_read_exactly(kind: str, text: str, value: Any) -> None:
    found = reader_of(kind)(text)
    assert (type(found), found) == (type(value), value)
    if isinstance(value, Decimal):
        assert found.as_tuple() == value.as_tuple()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("timestamptz", "infinity"),
        ("timestamptz", "2026-01-01 00:00:00"),
        ("timestamp", "-infinity"),
        ("timestamp", "10000-01-01 00:00:00"),
        ("date", "infinity"),
        ("date", "0044-03-15 BC"),
        ("time", "24:00:00"),
        ("numeric", "NaN"),
        ("numeric", "Infinity"),
        ("bytea", "raw"),
        ("bool", "maybe"),
        ("uuid", "no"),
        ("int4[]", "{1,2"),
        ("int4[]", "{1,,2}"),
        ("int4[]", "{1}x"),
        ("int4[]", '{"1'),
        ("int4[]", "{" * 5000),
        ("date[]", "{infinity}"),
    ],
)
def test_what_has_no_value_is_a_contract_failure(kind: str, text: str) -> None:
    with pytest.raises(ContractError):
        reader_of(kind)(text)


@given(st.sampled_from(["bool", "numeric", "date", "timestamptz", "uuid", "bytea", "int4[]", "text[]"]), st.text())
def test_any_text_is_a_value_or_a_contract_failure(kind: str, text: str) -> None:
    with contextlib.suppress(ContractError):
        reader_of(kind)(text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.text()))
def test_arrays_of_any_text_are_read_back(texts: list[str]) -> None:
    assert reader_of("text[]")("{" + ",".join(map(_quoted, texts)) + "}") == tuple(texts)


@pytest.mark.parametrize(
    ("kind", "node", "text", "value"),
    [
        ("numeric", STRING, "0.10", "0.10"),
        ("uuid", Union((NULL, STRING)), "x", "x"),
        ("int4", Union((NULL, DECIMAL)), "7", Decimal(7)),
        ("numeric", DOUBLE, "0.5", 0.5),
        ("int4", DOUBLE, "7", 7.0),
        ("int4[]", Array(STRING), "{1,2}", ("1", "2")),
        ("int4[]", Array(DECIMAL), "{1}", (Decimal(1),)),
    ],
)
def test_a_field_takes_what_can_be_exact_in_it(kind: str, node: Node, text: str, value: Any) -> None:
    found = fitted_reader(kind, node)(text)
    assert (type(found), found) == (type(value), value)
