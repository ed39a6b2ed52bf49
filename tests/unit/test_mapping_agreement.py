"""The compiled function means what the reference interpreter means: on any rules, any values, refusals included."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mapping_generating import ROUNDINGS, Draw, Rules, days, moments, paths_of, words
from mapping_support import DATE, MICROS, ORDER, array, checked, decimal, null_or, outcome, schema

from heddle.contracts.parser import parse_schema
from heddle.errors import HeddleError
from heddle.mapping import (
    all_of,
    any_of,
    default,
    each,
    equals,
    filtered,
    items,
    join,
    not_,
    record,
    required,
    to_decimal,
    to_integer,
)
from heddle.mapping.compile import compile_plan
from heddle.mapping.rules import Plan

Strategy = st.SearchStrategy[Any]

SOURCE = paths_of(parse_schema(ORDER))
LINE, PART = SOURCE.lists["lines"], SOURCE.lists["parts"]

millis = moments.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))


def cents(digits: int, scale: int) -> Strategy:
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda n: Decimal(n).scaleb(-scale))


def maybe(values: Strategy) -> Strategy:
    return st.none() | values


lines = st.fixed_dictionaries({
    "sku": words, "quantity": st.integers(-3, 3), "price": cents(6, 2), "discount": maybe(cents(4, 2)),
    "currency": st.sampled_from(["EUR", "EUR", "EUR", "USD"]), "tags": st.lists(words, max_size=2),
})  # fmt: skip
orders = st.fixed_dictionaries({
    "id": words,
    "note": maybe(words),
    "stage": st.sampled_from(["NEW", "PAID", "LOST"]),
    "mood": maybe(st.sampled_from(["GOOD", "BAD"])),
    "count": st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 2),
    "big": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    "big_or_null": maybe(st.integers(-(2**63), 2**63 - 1)),
    "price": cents(10, 2),
    "cost": maybe(cents(12, 4)),
    "rate": st.floats(allow_nan=False) | st.sampled_from([0.1, 2.675]),
    "day": days,
    "day_or_null": maybe(days),
    "at": millis,
    "seen": maybe(moments),
    "local": millis.map(lambda m: m.replace(tzinfo=None)),
    "flag": st.booleans(),
    "uid": st.uuids(),
    "attributes": st.dictionaries(st.sampled_from(["colour", "size"]), words, max_size=2),
    "customer": maybe(st.fixed_dictionaries({
        "first": words, "last": maybe(words), "address": maybe(st.fixed_dictionaries({"city": words})),
    })),
    "lines": st.lists(lines, max_size=3),
    "parts": maybe(st.lists(maybe(words), max_size=3)),
})  # fmt: skip


TARGET = schema(
    "Target",
    words=null_or("string"),
    number=null_or(decimal(60, 20)),
    whole=(null_or("int"), None),
    day=null_or(DATE),
    moment=null_or(MICROS),
    lines=array(schema("OutLine", sku="string", amount=null_or(decimal(12, 2)), tags=array("string"))),
    pair=array(null_or("string")),
    parts=null_or(array("string")),
)


def fields(draw: Draw) -> dict[str, Any]:
    """A rule for every field of TARGET."""
    root, line = Rules(draw, (SOURCE,), 3), Rules(draw, (SOURCE, LINE), 2)
    part = Rules(draw, (SOURCE, PART), 2)
    of_lines = root.among("lines", filtered("lines", where=line.condition()))
    return {
        "words": root.text(),
        "number": to_decimal(root.number(), scale=20, rounding=root.among(*ROUNDINGS)),
        "whole": to_integer(root.number(), rounding="down"),
        "day": root.day(),
        "moment": root.moment(),
        "lines": each(of_lines, record(
            sku=required(line.text()), amount=to_decimal(line.number(), scale=2, rounding="half-even"),
            tags=each("tags", join(".", root.among("^sku", "^^id", "^^note"), by="-")),
        )),
        "pair": items(root.text(), root.text()),
        "parts": each(filtered("parts", where=not_(equals(".", "a"))), default(default(".", part.cell()), "none")),
    }  # fmt: skip


quiet = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def agree(plan: Plan, values: list[dict[str, Any]]) -> None:
    function = compile_plan(plan).function
    for value in values:
        try:
            compiled: Any = function(value)
        except HeddleError as error:
            compiled = error.code, getattr(error, "path", ""), str(error)
        assert compiled == outcome(plan, value, compiled=False)


@quiet
@given(st.data())
def test_compiled_and_interpreted_agree_on_records(data: st.DataObject) -> None:
    condition = Rules(data.draw, (SOURCE,), 3).condition() if data.draw(st.booleans()) else None
    plan, problems = checked(TARGET, condition, **fields(data.draw))
    assume(not problems)
    agree(plan, data.draw(st.lists(orders, min_size=1, max_size=4)))


@quiet
@given(st.data())
def test_compiled_and_interpreted_agree_on_one_field(data: st.DataObject) -> None:
    """One rule at a time, so that the first refusal of a record hides nothing."""
    rules = Rules(data.draw, (SOURCE,), 4)
    field, draw = data.draw(st.sampled_from([
        ("words", rules.text), ("number", rules.number), ("day", rules.day), ("moment", rules.moment),
        ("whole", lambda: to_integer(rules.number(), rounding="half-even")),
    ]))  # fmt: skip
    node = next(f["type"] for f in TARGET["fields"] if f["name"] == field)
    plan, problems = checked(schema("Target", out=node), out=draw())
    assume(not problems)
    agree(plan, data.draw(st.lists(orders, min_size=1, max_size=6)))


@quiet
@given(st.data())
def test_compiled_and_interpreted_agree_on_conditions(data: st.DataObject) -> None:
    rules = Rules(data.draw, (SOURCE,), 3)
    condition = rules.among(all_of, any_of)(*rules.several(rules.condition, 2))
    plan, problems = checked(schema("Target", out="string"), condition, out="id")
    assume(not problems)
    agree(plan, data.draw(st.lists(orders, min_size=1, max_size=6)))
