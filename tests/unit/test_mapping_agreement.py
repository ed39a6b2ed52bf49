"""The compiled function means what the reference interpreter means: on any rules, any values, refusals included."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mapping_support import DATE, MICROS, array, checked, decimal, null_or, outcome, schema

from heddle.errors import ContractError, HeddleError
from heddle.mapping import (
    above,
    add,
    all_of,
    any_of,
    below,
    call,
    choose,
    constant,
    count_of,
    default,
    divide,
    each,
    enum,
    equals,
    fail,
    filtered,
    first_of,
    items,
    join,
    lookup,
    lower,
    multiply,
    not_,
    one_of,
    present,
    record,
    required,
    strip,
    subtract,
    text,
    to_date,
    to_decimal,
    to_integer,
    to_timestamp,
    total_of,
    truncate,
    upper,
    when,
)  # fmt: skip
from heddle.mapping.compile import compile_plan
from heddle.mapping.rules import Plan

Strategy = st.SearchStrategy[Any]

WORDS = ["", "a", "A", "red", " x ", "12", "12.505", "2024-02-30", "2024-03-31", "2024-03-31T02:30:00", "ß"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]
ROUNDINGS = ["half-even", "half-up", "half-down", "up", "down", "ceiling", "floor"]

words = st.sampled_from(WORDS)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
millis = moments.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))
days = st.dates(date(1900, 1, 1), date(2100, 1, 1))


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


def same(value: str | None) -> str | None:
    return value


def picky(value: str) -> str:
    if value == "a":
        raise ContractError("picky", path="somewhere")
    if value == "A":
        raise KeyError(value)
    return value if value else None  # type: ignore[return-value]


class Rules:
    """Draws rules by what they yield, at the root or inside a line; `depth` bounds nesting."""

    def __init__(self, draw: Callable[[Strategy], Any], depth: int, inside: bool = False) -> None:
        self.draw, self.depth, self.inside = draw, depth, inside

    def deeper(self, inside: bool | None = None) -> Rules:
        return Rules(self.draw, self.depth - 1, self.inside if inside is None else inside)

    def pick(self, *options: Callable[[], Any]) -> Any:
        """One option, the first where nothing may be nested any more."""
        return options[0 if self.depth <= 0 else self.draw(st.integers(0, len(options) - 1))]()

    def among(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def path(self, root: list[str], line: list[str]) -> Any:
        return self.among(*line, *(f"^{path}" for path in root)) if self.inside else self.among(*root)

    def word(self) -> str:
        return str(self.draw(words))

    def several(self, one: Callable[[], Any], least: int = 0) -> list[Any]:
        return [one() for _ in range(self.among(*range(least, 4)))]

    def text(self) -> Any:
        root = ["id", "note", "stage", "mood", "customer.first", "customer.last", "customer.address.city"]
        go = self.deeper()
        return self.pick(
            lambda: self.path([*root, "attributes.colour"], ["sku", "currency"]),
            lambda: default(go.text(), self.among(self.word(), upper(go.text()), fail("no-text"))),
            lambda: join(*self.several(go.anything, 1), by=self.word()),
            lambda: text("<", *(default(go.anything(), None) for _ in range(2))),
            lambda: self.among(upper, lower, strip, required)(go.text()),
            lambda: lookup(go.text(), dict.fromkeys(self.several(self.word, 1), self.word())),
            lambda: lookup(go.text(), {self.word(): go.cell(), self.word(): go.cell()}, otherwise=go.cell()),
            lambda: lookup(go.number(), {0: self.word(), 1: fail("one")}, otherwise=go.cell()),
            lambda: enum("^stage" if self.inside else "stage", NEW=go.cell(), otherwise=go.cell()),
            lambda: enum("^mood" if self.inside else "mood", GOOD=go.cell(), BAD=go.cell()),
            lambda: choose(*(when(go.condition(), go.cell()) for _ in range(self.among(1, 2, 3))), otherwise=go.cell()),
            lambda: call(same, go.text()),
            lambda: call(picky, required(go.text())),
            lambda: upper(call(same, go.text())),
            lambda: self.path(["id"], ["sku"]) if self.inside else first_of(go.line_list(), self.deeper(True).text()),
        )

    def cell(self) -> Any:
        """What may stand in a value position."""
        return self.pick(self.word, lambda: upper(self.deeper().text()), lambda: fail(self.among("f", "g")))

    def number(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path(["price", "cost", "count", "big", "big_or_null"], ["price", "discount", "quantity"]),
            lambda: constant(self.among(0, 1, -7, Decimal("0.01"), Decimal("1234.5"))),
            lambda: self.among(add, multiply)(*self.several(go.number, 2)),
            lambda: subtract(go.number(), go.number()),
            lambda: divide(go.number(), go.number(), scale=3, rounding=self.among(*ROUNDINGS)),
            lambda: to_decimal(go.number(), scale=self.among(0, 1, 4), rounding=self.among(*ROUNDINGS)),
            lambda: to_decimal(upper(go.text()), scale=2, rounding=self.among(*ROUNDINGS)),
            lambda: to_integer(go.number(), rounding=self.among(*ROUNDINGS)),
            lambda: default(go.number(), self.among(0, constant(5), fail("no-number"))),
            lambda: choose(when(go.condition(), default(go.number(), 0)), otherwise=default(go.number(), 1)),
            *([] if self.inside else [
                lambda: total_of(go.line_list(), default(self.deeper(True).number(), 0)),
                lambda: total_of(go.line_list(), "price", currency="currency"),
                lambda: total_of(go.line_list(), "quantity"),
                lambda: count_of(self.among(go.line_list(), "parts")),
            ]),
        )  # fmt: skip

    def day(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path(["day", "day_or_null"], []),
            lambda: to_date(go.moment(), zone=self.among(*ZONES)),
            lambda: to_date(upper(go.text())),
            lambda: truncate(go.day(), "month"),
            lambda: default(go.day(), self.draw(days)),
        )

    def moment(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path(["at", "seen"], []),
            lambda: to_timestamp(go.day(), zone=self.among(*ZONES)),
            lambda: to_timestamp(upper(go.text())),
            lambda: to_timestamp(self.path(["local"], []), zone=self.among(*ZONES)),
            lambda: to_timestamp(self.path(["big"], []), unit=self.among("second", "millisecond")),
            lambda: truncate(go.moment(), self.among("minute", "second", "millisecond")),
            lambda: truncate(go.moment(), self.among("hour", "day", "month"), zone=self.among(*ZONES)),
        )

    def anything(self) -> Any:
        return self.pick(self.text, self.number, self.day)

    def line_list(self) -> Any:
        one_line = self.deeper(True)
        return self.pick(
            lambda: "lines",
            lambda: filtered("lines", where=one_line.condition()),
            lambda: default(filtered("lines", where=one_line.condition()), []),
        )

    def condition(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: present(self.path(["note", "customer.first"], ["discount"])),
            lambda: present(go.anything()),
            lambda: equals(go.text(), default(go.text(), None)),
            lambda: equals(lower(go.text()), self.word()),
            lambda: one_of(strip(go.text()), self.word(), upper(go.text())),
            lambda: self.among(above, below)(go.number(), self.among(0, default(go.number(), None))),
            lambda: above(go.moment(), self.draw(moments)),
            lambda: below(go.day(), self.draw(days)),
            lambda: not_(go.condition()),
            lambda: all_of(*self.several(go.condition)),
            lambda: any_of(*self.several(go.condition)),
        )


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


def fields(draw: Callable[[Strategy], Any]) -> dict[str, Any]:
    """A rule for every field of TARGET."""
    root, line = Rules(draw, 3), Rules(draw, 2, inside=True)
    return {
        "words": root.text(),
        "number": to_decimal(root.number(), scale=20, rounding=root.among(*ROUNDINGS)),
        "whole": to_integer(root.number(), rounding="down"),
        "day": root.day(),
        "moment": root.moment(),
        "lines": each(root.line_list(), record(
            sku=required(line.text()), amount=to_decimal(line.number(), scale=2, rounding="half-even"),
            tags=each("tags", join(".", root.among("^sku", "^^id", "^^note"), by="-")),
        )),
        "pair": items(root.text(), root.text()),
        "parts": each(filtered("parts", where=not_(equals(".", "a"))), default(".", root.cell())),
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
    condition = Rules(data.draw, 3).condition() if data.draw(st.booleans()) else None
    plan, problems = checked(TARGET, condition, **fields(data.draw))
    assume(not problems)
    agree(plan, data.draw(st.lists(orders, min_size=1, max_size=4)))


@quiet
@given(st.data())
def test_compiled_and_interpreted_agree_on_one_field(data: st.DataObject) -> None:
    """One rule at a time, so that the first refusal of a record hides nothing."""
    rules = Rules(data.draw, 4)
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
    rules = Rules(data.draw, 3)
    condition = rules.among(all_of, any_of)(*rules.several(rules.condition, 2))
    plan, problems = checked(schema("Target", out="string"), condition, out="id")
    assume(not problems)
    agree(plan, data.draw(st.lists(orders, min_size=1, max_size=6)))
