"""What each rule makes of values, interpreted and compiled alike."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from mapping_support import (
    DATE,
    LINE,
    MICROS,
    MILLIS,
    ORDER_VALUE,
    array,
    decimal,
    made,
    null_or,
    plan_of,
    run,
    schema,
    symbols,
)  # fmt: skip

from heddle.errors import ContractError, FailureClass, HeddleError
from heddle.mapping import (
    CallError,
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
    take,
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

TEXT = "string"
MAYBE = null_or("string")
MONEY = decimal(14, 2)


def later(value: datetime, days: int) -> date:
    return date.fromordinal(value.toordinal() + days)


def shout(value: str | None) -> str | None:
    return None if value is None else value + "!"


def broken(value: str) -> str:
    raise ZeroDivisionError(value)


def refusing(value: str) -> str:
    raise ContractError("no such customer", path="customer")


def liar(value: str) -> str:
    return 5  # type: ignore[return-value]


CASES: list[tuple[str, Any, Any, dict[str, Any], Any]] = [
    ("take", TEXT, "id", {}, "O-1"),
    ("nested", MAYBE, "customer.address.city", {}, "Köln"),
    ("nested null", MAYBE, "customer.address.city", {"customer": None}, None),
    ("map key", MAYBE, "attributes.colour", {}, "red"),
    ("map key missing", MAYBE, "attributes.size", {}, None),
    ("enum as text", TEXT, "stage", {}, "PAID"),
    ("enum in wider enum", symbols("Wider", "LOST", "PAID", "NEW", "OLD"), "stage", {}, "PAID"),
    ("int as long", "long", "count", {}, 3),
    ("int as double", "double", "count", {}, 3.0),
    ("int as decimal", MONEY, "count", {}, Decimal(3)),
    ("constant", MONEY, constant(5), {}, Decimal(5)),
    ("constant symbol", symbols("Status", "OPEN", "VOID"), constant("VOID"), {}, "VOID"),
    ("constant list", array("string"), constant(["a"]), {}, ["a"]),
    ("default of null", TEXT, default("note", "none"), {}, "none"),
    ("default unused", TEXT, default("note", "none"), {"note": ""}, ""),
    ("default of default", TEXT, default("note", default("customer.last", take("id"))), {}, "O-1"),
    ("default looked up", TEXT, default("note", lookup("stage", {"PAID": "paid"})), {}, "paid"),
    ("required", TEXT, required("note"), {"note": "x"}, "x"),
    ("required null", TEXT, required("note"), {}, ("required", "out")),
    ("fail", TEXT, default("note", fail("no-note")), {}, ("no-note", "out")),
    ("text", TEXT, text("INV-", take("id"), 7), {}, "INV-O-17"),
    ("text of null", MAYBE, text("INV-", take("note")), {}, None),
    ("text of decimal", TEXT, text(take("price")), {"price": Decimal("1E+3")}, "1000"),
    ("text of date", TEXT, text(take("day")), {}, "2024-03-31"),
    ("text of uuid", TEXT, text(take("uid")), {}, "12345678-1234-5678-1234-567812345678"),
    ("join leaves null out", MAYBE, join("customer.first", "customer.last", by=" "), {}, "Ada"),
    ("join of nulls", MAYBE, join("note", "customer.last", by=" "), {}, None),
    ("join", TEXT, join("id", "note", "count", by="/"), {}, "O-1/3"),
    ("upper", MAYBE, upper("customer.address.city"), {}, "KÖLN"),
    ("lower", TEXT, lower("id"), {}, "o-1"),
    ("strip", MAYBE, strip("note"), {"note": " x\t"}, "x"),
    ("lookup", MONEY, lookup("id", {"O-1": 5, "O-2": Decimal("6.5")}), {}, Decimal(5)),
    ("lookup missing", MONEY, lookup("id", {"O-2": 5}), {}, ("lookup", "out")),
    ("lookup otherwise", MONEY, lookup("id", {"O-2": 5}, otherwise=take("price")), {}, Decimal("19.99")),
    ("lookup null", MAYBE, lookup("note", {"a": "b"}), {}, None),
    ("lookup of number", TEXT, lookup("count", {3: "three"}), {}, "three"),
    ("enum", symbols("Status", "OPEN", "VOID"), enum("stage", NEW="OPEN", PAID="VOID", LOST="VOID"), {}, "VOID"),
    ("enum fails", TEXT, enum("stage", NEW="o", PAID=fail("paid-twice"), LOST="l"), {}, ("paid-twice", "out")),
    ("enum otherwise", TEXT, enum("stage", NEW="o", otherwise=take("id")), {}, "O-1"),
    ("enum outside", TEXT, enum("stage", NEW="o", PAID="p", LOST="l"), {"stage": "WILD"}, ("enum", "out")),
    ("add", MONEY, add("price", "price", constant(1)), {}, Decimal("40.98")),
    ("add of null", null_or(decimal(14, 4)), add("price", "cost"), {"cost": None}, None),
    ("add whole", "long", add("count", "big"), {}, 5_000_000_003),
    ("add overflow", "long", add("big", "big"), {"big": 2**62}, ("range", "out")),
    ("subtract", MONEY, subtract("price", constant(Decimal("20.00"))), {}, Decimal("-0.01")),
    ("multiply rounds", null_or(MONEY), multiply("price", "cost", rounding="half-up"), {}, Decimal("24.68")),
    ("multiply overflow", decimal(10, 2), multiply("price", constant(10**7)), {}, ("range", "out")),
    ("divide", MONEY, divide("price", "count", scale=2, rounding="half-even"), {}, Decimal("6.66")),
    ("divide by zero", MONEY, divide("price", "count", scale=2, rounding="up"), {"count": 0}, ("zero", "out")),
    ("to_decimal of text", MONEY, to_decimal("id", scale=2, rounding="half-up"), {"id": "1.005"}, Decimal("1.01")),
    ("to_decimal refuses", MONEY, to_decimal("id", scale=2, rounding="up"), {"id": "1e5"}, ("number", "out")),
    ("to_decimal of float", MONEY, to_decimal("rate", scale=2, rounding="half-even"), {"rate": 2.675}, Decimal("2.68")),
    ("to_decimal of nan", MONEY, to_decimal("rate", scale=2, rounding="up"), {"rate": float("nan")}, ("number", "out")),
    ("to_integer of text", "int", to_integer("id"), {"id": "-12"}, -12),
    ("to_integer refuses", "int", to_integer("id"), {"id": "1.5"}, ("number", "out")),
    ("to_integer rounds", "long", to_integer("price", rounding="floor"), {}, 19),
    ("long to int", "int", to_integer("big"), {"big": 7}, 7),
    ("long past int", "int", to_integer("big"), {}, ("range", "out")),
    ("cents", "long", to_integer(multiply("price", constant(100)), rounding="half-even"), {}, 1999),
    ("to_date in zone", DATE, to_date("at", zone="Europe/Berlin"), {}, date(2024, 4, 1)),
    ("to_date of text", DATE, to_date("id", format="%d.%m.%Y"), {"id": "31.12.2023"}, date(2023, 12, 31)),
    ("to_date refuses", DATE, to_date("id"), {"id": "2024-02-30"}, ("date", "out")),
    ("to_timestamp of date", MILLIS, to_timestamp("day", zone="Europe/Berlin"), {},
     datetime(2024, 3, 30, 23, tzinfo=UTC)),
    ("to_timestamp of local", MILLIS, to_timestamp("local", zone="America/New_York"), {},
     datetime(2024, 7, 1, 16, tzinfo=UTC)),
    ("to_timestamp of text", MICROS, to_timestamp("id"), {"id": "2024-01-01T00:00:00+02:00"},
     datetime(2023, 12, 31, 22, tzinfo=UTC)),
    ("to_timestamp naive", MICROS, to_timestamp("id"), {"id": "2024-01-01T00:00:00"}, ("zone", "out")),
    ("to_timestamp of seconds", MILLIS, to_timestamp("big", unit="second"), {"big": -1},
     datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("to_timestamp past", MILLIS, to_timestamp("big", unit="second"), {"big": 2**60}, ("range", "out")),
    ("truncate day", MILLIS, truncate("at", "day", zone="Europe/Berlin"), {}, datetime(2024, 3, 31, 22, tzinfo=UTC)),
    ("truncate minute", MILLIS, truncate("at", "minute"), {}, datetime(2024, 3, 31, 22, 30, tzinfo=UTC)),
    ("truncate micros", null_or(MILLIS), truncate("seen", "millisecond"), {},
     datetime(2024, 10, 27, 0, 30, 0, 123_000, tzinfo=UTC)),
    ("truncate month", DATE, truncate("day", "month"), {}, date(2024, 3, 1)),
    ("count", "int", count_of("lines"), {}, 2),
    ("total of path", MONEY, total_of("lines.price"), {}, Decimal("10.95")),
    ("total of product", MONEY, total_of("lines", multiply("quantity", "price")), {}, Decimal("21.00")),
    ("total of none", MONEY, total_of("lines.price"), {"lines": []}, Decimal(0)),
    ("total of whole", "long", total_of("lines.quantity"), {}, 3),
    ("total of defaults", MONEY, total_of("lines", default("discount", 0)), {}, Decimal("0.10")),
    ("total in one currency", MONEY, total_of("lines.price", currency="currency"), {}, Decimal("10.95")),
    ("total in two", MONEY, total_of("lines.price", currency="currency"),
     {"lines": [LINE, {**LINE, "currency": "USD"}]}, ("currency", "out")),
    ("total of some", MONEY, total_of(filtered("lines", where=equals("sku", "B2")), "price"), {}, Decimal("0.90")),
    ("total of null list", "int", default(count_of("parts"), 0), {"parts": None}, 0),
    ("each", array("string"), each("lines", lower("sku")), {}, ["a1", "b2"]),
    ("each to records", array(schema("Item", article="string", of="string")),
     each("lines", {"article": "sku", "of": "^id"}), {},
     [{"article": "A1", "of": "O-1"}, {"article": "B2", "of": "O-1"}]),
    ("each fails at index", array("string"), each("lines", lookup("sku", {"A1": "x"})), {}, ("lookup", "out[1]")),
    ("each nested", array(array("string")), each("lines", each("tags", upper("."))), {}, [["RED", "BIG"]] * 2),
    ("each of null", null_or(array("string")), each("parts", default(".", "?")), {"parts": None}, None),
    ("each of nulls", null_or(array("string")), each("parts", default(".", "?")), {}, ["a", "?", "b"]),
    ("filter then fail", array("string"), each(filtered("lines", where=above("quantity", 1)), fail("no")), {},
     ("no", "out[0]")),
    ("filtered", null_or(array(null_or("string"))), filtered("parts", where=present(".")), {}, ["a", "b"]),
    ("first", MAYBE, first_of("lines", "sku"), {}, "A1"),
    ("first of none", MAYBE, first_of("lines.sku"), {"lines": []}, None),
    ("first that matches", MAYBE, first_of(filtered("lines", where=present("discount")), "sku"), {}, "B2"),
    ("record", schema("Party", name="string", city=null_or("string")),
     record(name="id", city="customer.address.city"), {}, {"name": "O-1", "city": "Köln"}),
    ("items", array("string"), items("id", constant("x")), {}, ["O-1", "x"]),
    ("items fail at index", array("string"), items("id", required("note")), {}, ("required", "out[1]")),
    ("choose", TEXT, choose(when(equals("stage", "NEW"), "new"), when(above("price", 5), take("id")), otherwise="no"),
     {}, "O-1"),
    ("choose otherwise", TEXT, choose(when(present("note"), "a"), otherwise="b"), {}, "b"),
    ("choose after failing test", TEXT,
     choose(when(equals(required("note"), "x"), "a"), otherwise="b"), {}, ("required", "out")),
    ("call", DATE, call(later, "at", "count"), {}, date(2024, 4, 3)),
    ("call with null", MAYBE, call(shout, "note"), {}, None),
    ("call inside", MAYBE, upper(call(shout, "id")), {}, "O-1!"),
    ("call that lies", TEXT, call(liar, "id"), {}, ("call-type", "out")),
    ("call that refuses", TEXT, call(refusing, "id"), {}, ("contract", "customer")),
    ("call that breaks", TEXT, call(broken, "id"), {}, ("call", "out")),
]  # fmt: skip


@pytest.mark.parametrize(("node", "rule", "changes", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_rule(node: Any, rule: Any, changes: dict[str, Any], expected: Any) -> None:
    result = made(node, rule, **changes)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (equals("stage", "PAID"), True),
        (equals("note", "x"), False),
        (not_(equals("note", "x")), True),
        (equals("note", take("customer.last")), False),
        (equals("price", take("count")), False),
        (equals("flag", True), True),
        (one_of("stage", "NEW", "PAID"), True),
        (one_of("note", "a"), False),
        (present("customer.last"), False),
        (present(constant(0)), True),
        (one_of(constant("a"), "a", "b"), True),
        (above("price", Decimal("19.98")), True),
        (above("cost", take("price")), False),
        (below("big_or_null", 5), False),
        (below("day", date(2024, 4, 1)), True),
        (above("at", datetime(2024, 4, 1, tzinfo=UTC)), False),
        (all_of(), True),
        (any_of(), False),
        (all_of(present("id"), not_(present("note"))), True),
        (all_of(present("id"), present("note")), False),
        (any_of(present("note"), present("id")), True),
        (any_of(present("note"), all_of(present("id"), present("customer.last"))), False),
        (any_of(present("note"), equals(default("note", "d"), "d")), True),
        # The second condition would refuse the record, but is never asked.
        (any_of(present("id"), equals(required("note"), "d")), True),
        (all_of(present("note"), equals(required("note"), "d")), False),
    ],
)
def test_condition_decides_whether_there_is_output(condition: Any, holds: bool) -> None:
    assert run(plan_of(schema("Target", out="string"), condition, out="id")) == ({"out": "O-1"} if holds else None)


def test_condition_can_refuse_the_record() -> None:
    plan = plan_of(schema("Target", out="string"), all_of(present("id"), equals(required("note"), "d")), out="id")
    assert run(plan) == ("required", "", "when: the source value is null")


@pytest.mark.parametrize("rounding", ["half-even", "half-up", "half-down", "up", "down", "ceiling", "floor"])
@pytest.mark.parametrize("top", [-10, -9, -8, -5, -1, 0, 1, 4, 5, 7, 9, 10])
def test_division_rounds_once_and_exactly(rounding: Any, top: int) -> None:
    expected = made(decimal(20, 1), to_decimal(constant(Decimal(top) / 4), scale=1, rounding=rounding))
    assert made(decimal(20, 1), divide(constant(top), constant(4), scale=1, rounding=rounding)) == expected
    # A division that rounded twice would make a half of this, and half to even is 0.
    thirds = made(
        decimal(40, 0), divide(constant(10**25 * 3 // 2 * 2 + 1), constant(6 * 10**25), scale=0, rounding="half-even")
    )
    assert thirds == 1


def test_sums_of_more_digits_than_pythons_default_context_stay_exact() -> None:
    wide = Decimal("12345678901234567890123456789.25")
    total = made(decimal(60, 2), total_of("lines", add("price", constant(wide))))
    assert total == Decimal("24691357802469135780246913589.45")


def test_hour_is_cut_within_its_own_half_of_a_repeated_hour() -> None:
    def hour(utc_hour: int) -> Any:
        return made(
            null_or(MILLIS), truncate("seen", "hour", zone="Europe/Berlin"),
            seen=datetime(2024, 10, 27, utc_hour, 30, tzinfo=UTC),
        )  # fmt: skip

    assert (hour(0), hour(1)) == (datetime(2024, 10, 27, 0, tzinfo=UTC), datetime(2024, 10, 27, 1, tzinfo=UTC))


def test_exception_of_a_function_is_unknown_and_attached() -> None:
    plan = plan_of(schema("Target", out="string"), out=call(broken, "id"))
    with pytest.raises(CallError) as caught:
        compile_plan(plan).function(ORDER_VALUE)
    assert isinstance(caught.value.error, ZeroDivisionError)
    assert caught.value.failure_class is FailureClass.UNKNOWN
    assert "O-1" not in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        lookup("id", {"x": "y"}),
        required("note"),
        text(to_date("id")),
        text(to_decimal("id", scale=2, rounding="up")),
        call(liar, "id"),
    ],
)
def test_refusals_hold_no_content(rule: Any) -> None:
    plan = plan_of(schema("Target", out="string"), out=rule)
    with pytest.raises(HeddleError) as caught:
        compile_plan(plan).function({**ORDER_VALUE, "id": "secret"})
    assert "secret" not in str(caught.value)
    assert caught.value.failure_class is FailureClass.CONTRACT


def test_names_and_texts_of_a_mapping_never_become_code() -> None:
    evil = "'] + __import__('os').system('true') + ['"
    plan = plan_of(schema("Target", out="string"), out=default(take(f"attributes.{evil.replace('.', '')}"), evil))
    assert run(plan) == {"out": evil}


def test_functions_of_a_mapping_do_not_change_the_source() -> None:
    before = repr(ORDER_VALUE)
    run(plan_of(schema("Target", out=array("string")), out=each(filtered("lines", where=present("sku")), "sku")))
    assert repr(ORDER_VALUE) == before
