"""`--where`: what it selects, and that nothing but its own language gets through."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from dlq_views import entry
from hypothesis import given
from hypothesis import strategies as st

from heddle.broker.log import Record
from heddle.contracts.schema import MISSING
from heddle.operations.dead_letters.where import FIELDS, MAX_CHARS, Where, WhereError

DEAL: dict[str, Any] = {
    "product": "GTXPro",
    "amount": Decimal("100.10"),
    "ratio": 0.1,
    "closed": None,
    "won": True,
    "from": "crm",
    "when": datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
    "day": date(2026, 3, 1),
    "id": UUID(int=5),
    "lines": [{"sku": "a", "class": "x"}, {"sku": "b"}],
    "tags": {"tier": "gold"},
    "raw": b"\xff\x00",
}
RECORD = Record("in", 0, 7, b"k", b"v", [("x-tenant", b"old"), ("x-tenant", b"acme")], 0)
VIEW = entry(
    7, "default/D-1", failure_class="contract", code="lookup", path="lines[0].sku", attempts=3, message="no such SKU",
    first_failed_at="2026-03-01T09:30:00.000000Z", fingerprint="abc", record=RECORD, contract="crm.deal.v1",
)  # fmt: skip


def holds(text: str) -> bool:
    return Where(text).holds(VIEW, lambda _: DEAL)


@pytest.mark.parametrize(
    "text",
    [
        'value.product == "GTXPro" and attempts >= 3',
        "class in ['contract', 'poison']",
        "class == 'contract' and value.lines[0].class == 'x'",
        "value.from == 'crm'",
        "value['from'] == 'crm'",
        "value.lines[-1].sku == 'b'",
        "'tier' in value.tags and value.tags.tier == 'gold'",
        "headers['x-tenant'] == 'acme'",
        "'x-other' not in headers",
        "'SKU' in message and not 'timeout' in message",
        "value.amount == 100.10 and value.amount > 100 and value.ratio == 0.1",
        "-1 < attempts <= 3",
        "value.closed == null and value.nothing == None and value.lines[9].sku == null",
        "value.nothing != 'x'",
        "value.won and value.won == true",
        "value.when == '2026-03-01T09:30:00Z' and value.when >= '2026-03-01' and value.day == '2026-03-01'",
        "first_failed_at < '2026-03-01T10:31:00+01:00' and last_failed_at == null",
        "value.id == '00000000-0000-0000-0000-000000000005'",
        "key == 'default/D-1' and state == 'dead' and id == 'ledger/0-7'",
        "value.product in ('GTXPro',) or false",
        "(value.product == 'x' or\n attempts == 3)",
        "'é' != message and 'x' != contract",
    ],
)
def test_what_is_so_is_selected(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "value.product < 3",
        "value.nothing > 0",
        "value.nothing <= 0",
        "value.lines > 'a'",
        "value.product.name == 'x'",
        "value[0] == 'x'",
        "value.nothing",
        "'x' in value.nothing",
        "3 in message",
        "value.raw == 'x'",
    ],
)
def test_what_cannot_be_compared_is_not_selected_and_never_an_error(text: str) -> None:
    assert not holds(text)


def test_an_entry_whose_payload_cannot_be_decoded_has_nothing_in_it() -> None:
    assert not Where("value.product == 'x'").holds(VIEW, lambda _: MISSING)
    assert Where("value.product == null").holds(VIEW, None)


def test_bodies_are_read_only_for_expressions_that_need_them() -> None:
    assert not Where("attempts > 1 and class == 'contract'").needs_record
    assert Where("attempts > 1 or value.x").needs_record
    assert Where("headers.a == 'b'").needs_record


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("len(value)", 1, "a call is not allowed"),
        ("attempts > 1 + 1", 12, "arithmetic is not allowed"),
        ("attempts >", 11, "invalid syntax"),
        ("'é' == code and clas == 'x'", 17, "no field clas"),
        ("value.x is null", 1, "`is` is not an operator"),
        ("value[1:2] == 1", 1, "only a position or a quoted name"),
        ("value[attempts] == 1", 1, "only a position or a quoted name"),
        ("attempts.real == 1", 1, "attempts has no parts"),
        ("first_failed_at < 'yesterday'", 19, "no time"),
        ("[1, [2]] == value", 5, "literals only"),
        ("(lambda: 1) == value", 2, "a function is not allowed"),
        ("f'{value}' == 'x'", 1, "an f-string is not allowed"),
        ("{'a': 1} == value", 1, "a dictionary is not allowed"),
        ("'x'.upper == value", 1, "a path begins with a name"),
        ("__import__ == 1", 1, "no field __import__"),
        ("_____ == 1", 1, "no field _____"),
    ],
)
def test_what_is_not_of_the_language_is_refused_where_it_stands(text: str, at: int, why: str) -> None:
    with pytest.raises(WhereError) as caught:
        Where(text)
    assert f"character {at}" in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text", ["x" * (MAX_CHARS + 1), "(" * 300 + "1" + ")" * 300, "not " * 90 + "true", " or ".join(["true"] * 300), ""]
)
def test_what_is_too_large_is_refused(text: str) -> None:
    with pytest.raises(WhereError):
        Where(text)


def test_every_field_can_be_asked_for_and_a_near_miss_is_told() -> None:
    for name in FIELDS:
        assert Where(f"{name} == null or {name} != null").holds(VIEW)
    with pytest.raises(WhereError) as caught:
        Where("fingerprnt == 'x'")
    assert "did you mean fingerprint?" in caught.value.hint


@given(st.text(max_size=60) | st.text("valueheadrs.()[]'\"=<>!andornti 0159,\\\n", max_size=60))
def test_any_text_is_an_expression_or_a_refusal(text: str) -> None:
    try:
        where = Where(text)
    except WhereError:
        return
    assert where.holds(VIEW, lambda _: DEAL) in (True, False)
