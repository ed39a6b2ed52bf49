"""A mapping that cannot be right is refused when it is declared, with every problem and its line."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from mapping_support import (
    DATE,
    MILLIS,
    array,
    checked,
    decimal,
    null_or,
    problems_of,
    schema,
    symbols,
)  # fmt: skip

from heddle.errors import UsageError
from heddle.mapping import (
    Mapping,
    MappingDeclarationError,
    above,
    add,
    call,
    choose,
    constant,
    count_of,
    default,
    each,
    enum,
    equals,
    fail,
    filtered,
    first_of,
    items,
    join,
    lookup,
    multiply,
    one_of,
    record,
    required,
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
from schemas.billing import Invoice
from schemas.crm import Deal

MONEY = decimal(14, 2)
STATUS = symbols("Status", "OPEN", "VOID")


async def slow(value: str) -> str:
    return value


def unannotated(value):  # type: ignore[no-untyped-def]
    return value


def number(value: str) -> float:
    return float(value)


def maybe(value: str) -> str | None:
    return value or None


REFUSED: list[tuple[Any, Any, str]] = [
    # paths
    ("string", "idd", "path idd: Order has no field 'idd'; did you mean id?"),
    ("string", "customer.frist", "no field 'frist'; did you mean first?"),
    ("string", "id.length", "path id.length: there is no 'length' in string"),
    ("string", "lines.sku", "'sku' is inside a list; use each(), total_of() or first_of()"),
    ("string", "^id", "no list around it"),
    (MONEY, total_of("lines.pricee"), "Line has no field 'pricee'; did you mean price?"),
    (MONEY, total_of("price"), "goes through no list; it is decimal(10,2)"),
    (array("string"), each("id", "."), "works on a list, not on string"),
    # null
    ("string", "note", "may be null where string is wanted; give default(…, value) or required(…)"),
    ("string", "customer.first", "may be null where string is wanted"),
    ("string", "attributes.colour", "may be null where string is wanted"),
    ("string", upper("note"), "may be null where string is wanted"),
    ("string", text("x", take("note")), "may be null where string is wanted"),
    ("string", lookup("note", {"a": "b"}), "may be null where string is wanted"),
    ("string", enum("mood", GOOD="a", BAD="b"), "may be null where string is wanted"),
    ("string", default("note", take("customer.last")), "may be null where string is wanted"),
    ("string", choose(when(equals("id", "a"), take("note")), otherwise="x"), "may be null where string is wanted"),
    ("string", first_of("lines.sku"), "may be null where string is wanted"),
    ("string", constant(None), "is null where string is wanted"),
    ("string", call(maybe, "id"), "maybe() may return None where string is wanted"),
    (MONEY, total_of("lines.discount"), "adds a value that may be null; say default(…, 0)"),
    (array("string"), each("parts", default(".", "")), "may be null"),
    (array("string"), each(default("parts", []), "."), "may be null where string is wanted"),
    # numbers
    ("int", "big", "is long where int is wanted; use to_integer()"),
    ("double", "big", "is long where double is wanted"),
    ("float", "rate", "is double where float is wanted"),
    ("string", "count", "is int where string is wanted; use text()"),
    (MONEY, "rate", "is double where decimal(14,2) is wanted; use to_decimal(…, scale=2, rounding=…)"),
    (MONEY, "id", "is string where decimal(14,2) is wanted; use to_decimal(…"),
    (null_or(decimal(12, 2)), "cost", "state a rounding"),
    (MONEY, multiply("price", "price"), "is decimal(20,4) where decimal(14,2) is wanted; state a rounding"),
    (MONEY, total_of("lines", multiply("price", "price")), "state a rounding"),
    (decimal(9, 2), "price", "8 digits before the point do not fit 7; to_decimal(…, scale=2, rounding=…) checks each"),
    (decimal(10, 2), "count", "10 digits before the point do not fit 8"),
    (MONEY, add("price", "rate"), "add() works on decimals and whole numbers, not on double; see to_decimal()"),
    (MONEY, add("price"), "add() needs two values or more"),
    (MONEY, multiply("price", "price", rounding="bankers"), "rounding 'bankers' is none of half-even"),
    ("long", to_integer("price"), "to_integer() decimal(10,2) has digits after the point; state rounding="),
    ("int", count_of("id"), "count_of() counts a list, not string"),
    # enums and tables
    (STATUS, "id", "is string where enum Status is wanted; map the texts with lookup()"),
    (STATUS, "stage", "which lacks NEW, PAID, LOST; map the symbols with enum()"),
    (STATUS, constant("OPNE"), "enum Status has no symbol 'OPNE'; did you mean OPEN?"),
    (STATUS, enum("stage", NEW="OPEN"), "enum() does not cover PAID, LOST of enum Stage; add them, or otherwise="),
    (STATUS, enum("stage", NEW="OPEN", PIAD="OPEN", otherwise="VOID"), "no symbol 'PIAD'; did you mean PAID?"),
    (STATUS, enum("stage", NEW="OPEN", otherwise="GONE"), "enum Status has no symbol 'GONE'"),
    (STATUS, enum("id", a="OPEN"), "enum() maps an enum, not string; use lookup()"),
    (STATUS, lookup("id", {"a": "opened"}), "enum Status has no symbol 'opened'"),
    ("string", lookup("count", {"three": "3"}), "table key: str where int is wanted"),
    ("string", lookup("id", {}), "the table is empty"),
    (MONEY, constant(Decimal("1.005")), "a decimal of 1 digits before the point and 3 after"),
    (MONEY, constant(True), "bool where decimal(14,2) is wanted"),
    (MONEY, constant("5"), "str where decimal(14,2) is wanted"),
    ("int", constant(2**31), "int where int is wanted"),
    # dates
    (DATE, "at", "is timestamp-millis where date is wanted; use to_date()"),
    (DATE, to_date("at"), "to_date() state zone= whose calendar day is meant"),
    (DATE, to_date("at", zone="Berlin"), "zone 'Berlin' is not in the time zone database"),
    (DATE, to_date("id", zone="UTC"), "to_date() zone= has no meaning for string"),
    (DATE, to_date("id", format="%d.%m."), "format= names no year"),
    (MILLIS, "day", "is date where timestamp-millis is wanted; use to_timestamp()"),
    (MILLIS, to_timestamp("day"), "state zone= in which the local time is meant"),
    (MILLIS, to_timestamp("big"), "state unit= of the number: second or millisecond"),
    (MILLIS, to_timestamp("id"), 'where timestamp-millis is wanted; use truncate(…, "millisecond")'),
    (null_or(MILLIS), "seen", 'use truncate(…, "millisecond")'),
    (MILLIS, "local", "is local-timestamp-millis where timestamp-millis is wanted; use to_timestamp()"),
    (MILLIS, truncate("at", "day"), "truncate() state zone= to cut to the day"),
    (MILLIS, truncate("at", "week"), "unit 'week' is none of month, day"),  # type: ignore[arg-type]
    # records and lists
    (schema("Party", title="string"), "customer", "may be null where record Party is wanted"),
    (schema("Party", title="string"), record(name="id"), "out.name: Party has no such field; there are: title"),
    (schema("Party", title="string", city="string"), record(title="id"), "no rule makes this field, which is string"),
    ("string", record(name="id"), "record() builds a nested record, not string"),
    ("string", items("id"), "makes a list where string is wanted"),
    (array("long"), "lines", "is array of record Line where array of long is wanted; build its items with each()"),
    (MONEY, total_of("lines.price", currency="quantity"), "currency= is int, not a text in every item"),
    # text
    ("string", join("id", "rate", by=""), "double has no one obvious spelling as text"),
    ("string", upper("count"), "upper() works on text, not on int"),
    # functions
    ("string", call(slow, "id"), "call() takes a plain Python function"),
    ("string", call(len, "id"), "call() takes a plain Python function"),
    ("string", call(unannotated, "id"), "say what unannotated() returns: returns=str, or annotate it"),
    ("string", call(number, "id"), "number() returns float where string is wanted"),
    ("string", call(maybe, "id", "note"), "maybe() does not take 2 arguments"),
    # conditions
    ("string", choose(when(equals("stage", "PAYED"), "x"), otherwise="y"), "no symbol 'PAYED'; did you mean PAID?"),
    ("string", choose(when(equals("note", None), "x"), otherwise="y"), "nothing equals null; say not_(present(…))"),
    ("string", choose(when(above("id", "b"), "x"), otherwise="y"), "compare numbers, dates and times, not string"),
    ("string", choose(when(one_of("lines", "b"), "x"), otherwise="y"), "cannot be compared"),
    ("string", choose(when("stage", "x"), otherwise="y"), "str is no condition"),  # type: ignore[arg-type]
    (array("string"), each(filtered("lines", where=equals("sku", 5)), "sku"), "int where string is wanted"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "rule", "expected"), REFUSED)
def test_refused_at_import(node: Any, rule: Any, expected: str) -> None:
    problems = problems_of(node, rule)
    assert expected in "\n".join(problems)


@pytest.mark.parametrize(
    ("node", "rule"),
    [
        ("string", default("note", fail("x"))),
        ("string", default("note", required("customer.last"))),
        (decimal(9, 2), to_decimal("price", scale=2, rounding="half-even")),
        (MONEY, multiply("price", "price", rounding="half-even")),
        (MONEY, subtract(lookup("id", {"a": Decimal(550), "b": Decimal("0.01")}), "price")),
        (null_or("string"), "note"),
        (null_or("long"), "count"),
    ],
)
def test_accepted(node: Any, rule: Any) -> None:
    assert problems_of(node, rule) == []


def test_all_problems_are_reported_at_once_and_target_fields_checked() -> None:
    target = schema("Target", out="string", status=STATUS, total=MONEY, note=(null_or("string"), None))
    _, problems = checked(target, equals("stagee", "NEW"), out="note", statuss=enum("stage", NEW="OPEN"))
    assert problems == [
        "when: path stagee: Order has no field 'stagee'; did you mean stage?",
        "statuss: Target has no such field; did you mean status?",
        "out: may be null where string is wanted; give default(…, value) or required(…)",
        "status: no rule makes this field, which is enum Status and has no default",
        "total: no rule makes this field, which is decimal(14,2) and has no default",
    ]


def test_problem_names_file_line_and_nested_field() -> None:
    with pytest.raises(MappingDeclarationError) as caught:
        Mapping(
            Deal,
            Invoice,
            when=equals("stage", "WON"),
            invoice_id=text("INV-", take("deal_id")),
            deal_id="deal_id",
            customer="account",
            sales_agent="sales_agent",
            issued_on=required("closed_on"),
            product=upper(
                "prodcut",
            ),
            list_price=constant(1),
            discount=constant(1),
            total=required("close_value"),
            currency="currency",
            status=constant("OPEN"),
            changed_at="changed_at",
        )
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(.*):(\d+): (\w+): .*", problem) for problem in caught.value.problems]
    assert [m and (Path(m[1]).name, lines[int(m[2]) - 1].strip(), m[3]) for m in found] == [
        (Path(__file__).name, 'customer="account",', "customer"),
        (Path(__file__).name, "product=upper(", "product"),
    ]
    assert "2 problems" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("wrong", [5, None, Decimal(1), ["a"]])
def test_a_value_is_no_rule(wrong: Any) -> None:
    with pytest.raises(UsageError, match="where a rule or a source path belongs") as caught:
        upper(wrong)
    assert caught.value.hint == "write constant(value) for a fixed value"


def test_a_class_that_is_no_contract_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a contract type"):
        Mapping(str, Invoice)
