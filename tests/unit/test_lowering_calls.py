"""What is refused, record keys, and calls."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from lowering_support import (
    KIND,
    VALUES,
    Between,
    between,
    one_field,
)
from mapping_support import (
    DATE,
    LINE,
    ORDER_VALUE,
    UUID_TEXT,
    decimal,
    null_or,
    schema,
)

from heddle.mapping import (
    above,
    add,
    any_of,
    call,
    choose,
    constant,
    count_of,
    default,
    each,
    enum,
    equals,
    fail,
    first_of,
    join,
    lookup,
    multiply,
    present,
    record,
    required,
    subtract,
    take,
    text,
    to_integer,
    total_of,
    upper,
    when,
)
from heddle.wire import plan as wire


def broken(value: str) -> str:
    raise ZeroDivisionError(value)


BIG = {"big": 2**62, "lines": [LINE | {"quantity": 2**31 - 1}] * 3}
REFUSED: list[tuple[str, Any, Any]] = [
    ("beside a null", null_or("string"), text(lookup("id", {"x": "y"}), take("note"))),
    ("beside a null, in a text", null_or("string"),
     text(text(enum("stage", NEW="x", otherwise=fail("f"))), take("note"))),
    ("beside a null, in a sum", null_or(decimal(30, 2)),
     add(enum("stage", NEW=1, otherwise=fail("f")), "big_or_null")),
    ("too large beside a null", null_or("long"), add(multiply("big", "big"), "big_or_null")),
    ("too large where it is compared", "string",
     choose(when(above(multiply("big", "big"), 0), "x"), otherwise="y")),
    ("too large where it is present", "string", choose(when(present(multiply("big", "big")), "x"), otherwise="y")),
    ("too large on the way", "long", subtract(multiply("big", "big"), multiply("big", "big"))),
    ("too large on the way to a decimal", decimal(60, 0), add(constant(Decimal(0)), multiply("big", "big"))),
    ("too large a key of a table", "string", lookup(multiply("big", "big"), {1: "x"}, otherwise="y")),
    ("too large a total", "long", total_of("lines", multiply("quantity", "quantity"))),
    ("in a list that is counted", "int", count_of(each("lines", required("discount")))),
    ("in a list that is present", "string",
     choose(when(present(each("lines", required("discount"))), "x"), otherwise="y")),
    ("in a part of a join", null_or("string"), join(lookup("stage", {"NEW": "n"}), "note", by="-")),
    ("in a function whose answer decides nothing", "string",
     choose(when(any_of(equals(call(broken, "id"), "x"), present("count")), "x"), otherwise="y")),
    ("in a function that is asked for null or null", null_or("string"),
     choose(when(equals(call(broken, "id"), "x"), None), otherwise=None)),
    ("with 33 bits", "int", to_integer("big")),
    ("with too many digits", decimal(4, 2), add("price", "big")),
    ("with too many digits, rescaled", decimal(9, 4), add("price", "big")),
]  # fmt: skip


@pytest.mark.parametrize(("node", "rule"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_the_object_path_refuses_is_refused_also_where_its_value_would_not_matter(node: Any, rule: Any) -> None:
    given = one_field(node, rule)
    assert given.agree(given.written(ORDER_VALUE | BIG)) == [None]


def test_bounds_of_what_is_computed_are_those_of_the_object_path() -> None:
    long, small, money = (one_field(node, rule) for node, rule in (
        ("long", add("big", "count")), ("int", to_integer("big")), (decimal(4, 2), add("price", constant(0))),
    ))  # fmt: skip
    edges = [(2**63 - 1, 0), (2**63 - 1, 1), (-(2**63), 0), (-(2**63), -1), (-(2**63), 2**31 - 1)]
    outputs = long.agree(long.written(*(ORDER_VALUE | {"big": big, "count": count} for big, count in edges)))
    assert [output is None for output in outputs] == [False, True, False, True, False]
    edges_of_int = [2**31 - 1, 2**31, -(2**31), -(2**31) - 1]
    outputs = small.agree(small.written(*(ORDER_VALUE | {"big": big} for big in edges_of_int)))
    assert [output is None for output in outputs] == [False, True, False, True]
    prices = [Decimal(price).scaleb(-2) for price in (9999, 10000, -9999, -10000, -128, 127, 128, -129, 0)]
    outputs = money.agree(money.written(*(ORDER_VALUE | {"price": price} for price in prices)))
    assert [output is None for output in outputs] == [False, True, False, True, *[False] * 5]


def test_a_rule_that_permits_less_than_its_target_is_held_to_what_it_permits() -> None:
    narrow = one_field(decimal(5, 2), add("price", "count"))
    wide = one_field(decimal(14, 4), "price")
    given = Between(narrow.source, wide.target, narrow.plan)
    prices = [Decimal("996.99"), Decimal("997.00"), Decimal("-1002.99"), Decimal("-1003.00")]
    outputs = given.agree(given.written(*(ORDER_VALUE | {"price": price} for price in prices)))
    assert [output is None for output in outputs] == [False, True, False, True]


def test_when_is_asked_before_a_field_refuses() -> None:
    given = one_field("string", required("note"), equals("stage", "NEW"))
    values = [ORDER_VALUE, ORDER_VALUE | {"stage": "NEW"}, ORDER_VALUE | {"stage": "NEW", "note": "n"}]
    outputs = given.agree(given.written(*values))
    assert [output is None for output in outputs] == [True, True, False]
    outputs, failures = given.objects.transcode(given.written(values[0]))
    assert (list(outputs), failures) == ([None], [])


KEYS: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    ("number", "long", "big", {"key": ["out"]}, "instructions"),
    ("symbol", KIND, "stage", {"key": ["out"]}, "instructions"),
    ("symbol of a table", KIND, enum("stage", NEW="DONE", PAID="LOST", LOST=fail("x")), {"key": ["out"]},
     "instructions"),
    ("day", DATE, "day", {"key": ["out"]}, "call"),
    ("constant day", DATE, constant(date(2024, 2, 29)), {"key": ["out"]}, "instructions"),
    ("uuid", UUID_TEXT, "uid", {"key": ["out"]}, "instructions"),
    ("text", "string", text(take("id"), "/ä "), {"key": ["out"]}, "instructions"),
    ("required", "string", required("note"), {"key": ["out"]}, "instructions"),
    ("required sum", "int", to_integer(add(required("big_or_null"), "count")), {"key": ["out"]}, "instructions"),
    ("default", "string", default("note", "none"), {"key": ["out"]}, "call"),
    ("lookup", "string", lookup("id", {"O-1": "a/b"}, otherwise="c"), {"key": ["out"]}, "call"),
    ("called", "string", upper("id"), {"key": ["out"]}, "call"),
    ("several", "long", "big", {"key": ["id", "out"]}, "instructions"),
    ("several, one called", "string", upper("id"), {"key": ["id", "out"]}, "call"),
    ("with tenant", "string", default("note", "none"), {"key": ["id"], "tenant": "out"}, "call"),
    ("with plain tenant", KIND, "stage", {"key": ["id"], "tenant": "out"}, "instructions"),
    ("nested", schema("Inner", deep="string"), record(deep="id"), {"key": ["out.deep"]}, "instructions"),
    ("nested, called", schema("Inner", deep="string", other="string"), record(deep=upper("id"), other="id"),
     {"key": ["out.deep", "id"]}, "call"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "rule", "metadata", "way"), [k[1:] for k in KEYS], ids=[k[0] for k in KEYS])
def test_the_record_key_is_that_of_the_object_path(node: Any, rule: Any, metadata: dict[str, Any], way: str) -> None:
    given = between(schema("Target", id="string", out=node), metadata=metadata, id="id", out=rule)
    assert given.way("record key") == way
    given.agree(given.written(*VALUES))


def test_a_key_inside_of_a_record_that_is_taken_whole() -> None:
    inner = schema("Inner", other="int", deep="string")
    source, target = schema("Source", id="string", out=inner), schema("Target", id="string", out=inner)
    given = between(target, source=source, metadata={"key": ["out.deep"]}, id="id", out="out")
    assert given.agree(given.written({"id": "i", "out": {"other": 1, "deep": "x y"}}))[0] == (
        b"default/x%20y",
        given.writer.frame + b"\x02i\x02\x06x y",
    )


def calls_of(given: Between) -> tuple[wire.Call, ...]:
    return given.wire_plan().calls


def test_a_call_gets_no_more_than_it_reads() -> None:
    def told(*values: Any) -> str:
        return repr(values)

    given = one_field("string", call(told, "customer.last", upper("customer.address.city"), "customer.last", "lines"))
    (made,) = calls_of(given)
    assert len(made.arguments) == 3
    assert made.does.startswith("out: ")
    outputs = given.agree(given.written(*VALUES))
    assert b"(None, None, None, [])" in (outputs[1] or (b"", b""))[1]
    whole = one_field("string", call(told, "customer", "customer.last", "attributes.colour", "attributes"))
    assert len(calls_of(whole)[0].arguments) == 2
    whole.agree(whole.written(*VALUES))
    record_itself = one_field("string", call(told, ".", "id", first_of("lines", text(take("^id"), take("sku")))))
    assert len(calls_of(record_itself)[0].arguments) == 1
    record_itself.agree(record_itself.written(*VALUES))
    nothing = one_field("string", call(told))
    assert calls_of(nothing)[0].arguments == ()
    nothing.agree(nothing.written(*VALUES))


def test_a_call_that_became_part_of_a_larger_one_is_not_made() -> None:
    rule = choose(when(equals(upper("id"), "O-1"), upper("note")), otherwise="x")
    assert len(calls_of(one_field(null_or("string"), rule))) == 1
    refusing = one_field("string", "id", any_of(equals(upper("id"), "x"), equals(required("note"), "y")))
    assert [made.does for made in calls_of(refusing)] == [
        'upper(id) is "x" or note, required is "y"',
    ]
    refusing.agree(refusing.written(*VALUES))
