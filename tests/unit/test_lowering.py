"""Rules, conditions and lists: which way each is made, and that its bytes are those of the object path."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from lowering_support import (
    ITEM,
    KIND,
    MONEY,
    VALUES,
    Between,
    between,
    one_field,
    shout,
)
from mapping_support import (
    DATE,
    MICROS,
    ORDER,
    ORDER_VALUE,
    UUID_TEXT,
    array,
    decimal,
    null_or,
    schema,
)

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
    subtract,
    take,
    text,
    to_decimal,
    to_integer,
    total_of,
    truncate,
    upper,
    when,
)
from heddle.mapping.rules import Condition
from heddle.wire import plan as wire


def broken(value: str) -> str:
    raise ZeroDivisionError(value)


RULES: list[tuple[str, Any, Any, str]] = [
    ("text", "string", take("id"), "copied"),
    ("null or text", null_or("string"), take("note"), "copied"),
    ("double", "double", take("rate"), "copied"),
    ("uuid", UUID_TEXT, take("uid"), "copied"),
    ("date", DATE, take("day"), "copied"),
    ("int as long", "long", take("count"), "copied"),
    ("decimal with more room", decimal(14, 2), take("price"), "copied"),
    ("map", {"type": "map", "values": "string"}, take("attributes"), "copied"),
    ("list", null_or(array(null_or("string"))), take("parts"), "copied"),
    ("null on the other side", ["string", "null"], take("note"), "instructions"),
    ("value as union", ["null", "string"], take("id"), "copied"),
    ("value as one of several", ["long", "null", "string"], take("id"), "copied"),
    ("through null", null_or("string"), take("customer.address.city"), "instructions"),
    ("enum in another order", KIND, take("stage"), "instructions"),
    ("enum as text", "string", take("stage"), "instructions"),
    ("enum as text or null", null_or("string"), take("mood"), "instructions"),
    ("millis as micros", MICROS, take("at"), "instructions"),
    ("int as decimal", MONEY, take("count"), "instructions"),
    ("decimal upwards", MONEY, take("price"), "instructions"),
    ("decimal fixed", {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 15, "scale": 3},
     take("price"), "instructions"),
    ("int as double", "double", take("count"), "call"),
    ("map key", null_or("string"), take("attributes.colour"), "call"),
    ("constant", MONEY, constant(Decimal("-1.28")), "constant"),
    ("constant or null", ["string", "null"], constant(None), "constant"),
    ("default", "string", default("note", "none"), "instructions"),
    ("default of another field", "string", default("note", default("customer.last", take("id"))), "instructions"),
    ("required", "string", required("note"), "instructions"),
    ("required of a map key", "string", required("attributes.colour"), "call"),
    ("always refused", "string", fail("no"), "instructions"),
    ("enum table", KIND, enum("stage", NEW="NEW", PAID="DONE", LOST="LOST"), "instructions"),
    ("enum table with a hole", KIND, enum("stage", NEW="NEW", PAID="DONE", LOST=fail("lost")), "instructions"),
    ("enum table with null", null_or("string"), enum("stage", NEW=None, otherwise="x"), "instructions"),
    ("enum table of rules", "string", enum("stage", NEW=take("id"), otherwise=default("note", "?")), "instructions"),
    ("flag table", "int", lookup("flag", {True: 1, False: -1}), "instructions"),
    ("lookup", MONEY, lookup("id", {"O-1": 5, "": Decimal("0.5")}), "instructions"),
    ("lookup otherwise", null_or("string"), lookup("note", {"O-1": "x"}, otherwise="y"), "instructions"),
    ("lookup but", "string", lookup("id", {"O-1": fail("no"), "O-2": "x"}, otherwise="y"), "instructions"),
    ("lookup of number", "string", lookup("count", {3: "three", -5: take("id")}, otherwise="many"), "instructions"),
    ("lookup of day", "string", lookup("day", {date(2024, 3, 31): "a"}, otherwise="b"), "instructions"),
    ("lookup of lookup", "string", lookup(lookup("id", {"O-1": "a"}, otherwise="b"), {"a": "A", "b": "B"}),
     "instructions"),
    ("lookup of text that is made", "string", lookup(text("x", take("id")), {"xO-1": "a"}, otherwise="b"), "call"),
    ("text of all kinds", "string", text("<", take("id"), 7, take("stage"), take("price"), take("count"), take("uid")),
     "instructions"),
    ("text of null", null_or("string"), text("INV-", take("note")), "instructions"),
    ("text of a sum", "string", text(add("price", "count")), "instructions"),
    ("text of a product", "string", text(multiply("price", "count")), "call"),
    ("text of a total", "string", text(total_of("lines.price")), "call"),
    ("text of a whole total", "string", text(total_of("lines.quantity")), "instructions"),
    ("text of a date", "string", text(take("day")), "call"),
    ("join", null_or("string"), join("customer.first", "customer.last", "note", by=", "), "instructions"),
    ("join of all or none", null_or("string"), join("note", "mood", by="/"), "instructions"),
    ("join with what is always there", "string", join("note", "id", "stage", by=""), "instructions"),
    ("join of defaults", null_or("string"), join(default("note", "customer.last"), "mood", by="-"), "instructions"),
    ("add", MONEY, add("price", "count", constant(Decimal("0.5"))), "instructions"),
    ("add null", null_or(decimal(20, 4)), add("price", "cost"), "instructions"),
    ("subtract", MONEY, subtract("count", "price"), "instructions"),
    ("multiply", decimal(30, 4), multiply("price", "count", "price"), "instructions"),
    ("too large a product", "long", multiply("big", "count"), "instructions"),
    ("a sum of what may be too large", "long", add(add("big", constant(-1)), constant(1)), "instructions"),
    ("narrowed", "int", to_integer("big"), "instructions"),
    ("digits guarded", decimal(5, 2), add("price", "count"), "instructions"),
    ("scaled", decimal(20, 4), to_decimal("price", scale=3, rounding="up"), "instructions"),
    ("rounded", decimal(20, 1), to_decimal("price", scale=1, rounding="up"), "call"),
    ("divided", MONEY, divide("price", constant(3), scale=2, rounding="up"), "call"),
    ("difference to a lookup", MONEY, subtract(lookup("id", {"O-1": 5, "": 7}), required("cost")), "instructions"),
    ("count", "int", count_of("lines"), "instructions"),
    ("count or null", null_or("int"), count_of("parts"), "instructions"),
    ("count of a map", "int", count_of("attributes"), "call"),
    ("count of a part", "int", count_of(filtered("lines", where=equals("sku", "A1"))), "call"),
    ("total", MONEY, total_of("lines.price"), "instructions"),
    ("total of products", MONEY, total_of("lines", multiply("quantity", add("price", constant(1)))), "instructions"),
    ("whole total", "long", total_of("lines.quantity"), "instructions"),
    ("total of counts", "long", total_of("lines", count_of("tags")), "instructions"),
    ("total of what may be null", MONEY, total_of("lines", default("discount", 0)), "call"),
    ("total with what is outside", MONEY, total_of("lines", multiply("quantity", "^price")), "call"),
    ("total in one currency", MONEY, total_of("lines.price", currency="currency"), "call"),
    ("total of a part", MONEY, total_of(filtered("lines", where=equals("sku", "A1")), "price"), "call"),
    ("first", null_or("string"), first_of("lines.sku"), "call"),
    ("upper", "string", upper("id"), "call"),
    ("upper of an enum", "string", lower("stage"), "instructions"),
    ("function", null_or("string"), call(shout, "note"), "call"),
    ("broken function", "string", call(broken, "id"), "call"),
    ("cut", MICROS, truncate("at", "hour", zone="UTC"), "call"),
    ("chosen", "string", choose(when(equals("stage", "NEW"), "new"), when(present("note"), required("note")),
                                otherwise=take("id")), "instructions"),
    ("chosen by Python", "string", choose(when(equals(upper("id"), "O-1"), "one"), otherwise=take("id")),
     "instructions"),
    ("chosen record", ITEM, choose(when(present("note"), record(article="id", pieces="count", price="price")),
                                   otherwise=record(article="stage", pieces=constant(1), price=constant(Decimal(0)))),
     "instructions"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "rule", "way"), [case[1:] for case in RULES], ids=[case[0] for case in RULES])
def test_a_rule_goes_its_way_and_the_bytes_are_those_of_the_object_path(node: Any, rule: Any, way: str) -> None:
    given = one_field(node, rule)
    assert given.way() == way
    given.agree(given.written(*VALUES))


CONDITIONS: list[tuple[str, Condition, str]] = [
    ("present", present("customer.last"), "instructions"),
    ("always present", present("id"), "instructions"),
    ("number", above("price", 0), "instructions"),
    ("numbers of two scales", below("price", take("cost")), "instructions"),
    ("constant first", above(constant(3), take("count")), "instructions"),
    ("constant moment first", below(constant(datetime(2024, 1, 1, tzinfo=UTC)), take("seen")), "instructions"),
    ("sum", above(add("price", "count"), 1), "instructions"),
    ("sum that may be too large", above(add("big", "count"), 1), "call"),
    ("day", below("day", date(2024, 4, 1)), "instructions"),
    ("days", equals("day", take("day_or_null")), "instructions"),
    ("moment", above("at", datetime(2024, 1, 1, tzinfo=UTC)), "instructions"),
    ("moments", below("seen", take("at")), "instructions"),
    ("moment in a zone", above("at", datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))), "instructions"),
    ("moment that a zone has twice", equals("at", datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))),
     "call"),
    ("flag", equals("flag", True), "instructions"),
    ("symbol", equals("stage", "NEW"), "instructions"),
    ("symbol or null", not_(equals("mood", "GOOD")), "instructions"),
    ("symbols", equals("stage", take("stage")), "instructions"),
    ("text", equals("note", "O-1"), "instructions"),
    ("texts", equals("note", take("id")), "call"),
    ("uuid", one_of("uid", ORDER_VALUE["uid"]), "instructions"),
    ("one of texts", one_of("note", "häßlich", "x"), "instructions"),
    ("one of none", one_of("note"), "instructions"),
    ("one of symbols", one_of("stage", "NEW", "LOST"), "instructions"),
    ("one of numbers", one_of("price", Decimal("-1.28"), take("cost")), "instructions"),
    ("null with null", equals("note", take("customer.last")), "call"),
    ("looked up", equals(lookup("id", {"O-1": "a", "": "b"}, otherwise="c"), "b"), "instructions"),
    ("looked up or refused", equals(lookup("id", {"O-1": "a"}), "a"), "call"),
    ("table of numbers", above(enum("stage", NEW=1, PAID=2, LOST=3), 2), "instructions"),
    ("table of rules", equals(enum("stage", NEW=take("note"), otherwise="x"), "x"), "instructions"),
    ("all", all_of(present("note"), equals("note", "O-1"), above("count", 0)), "instructions"),
    ("any", any_of(equals("mood", "BAD"), not_(present("customer")), not_(above("cost", 1))), "instructions"),
    ("of none", all_of(), "instructions"),
    ("never", any_of(), "instructions"),
    ("partly Python", all_of(equals("stage", "PAID"), equals(upper("id"), "O-1")), "call"),
    ("float", above("rate", 0.05), "call"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "way"), [case[1:] for case in CONDITIONS], ids=[case[0] for case in CONDITIONS])
def test_a_condition_leaves_out_what_the_object_path_leaves_out(condition: Condition, way: str) -> None:
    given = one_field("string", "id", condition)
    assert given.way("when") == way
    given.agree(given.written(*VALUES))


def test_a_condition_that_is_known_is_not_asked() -> None:
    assert one_field("string", "id", all_of()).wire_plan().when is None
    assert one_field("string", "id", present("id")).wire_plan().when is None
    assert one_field("string", "id", any_of()).wire_plan().when == wire.AnyOf(())


def test_only_the_part_of_a_condition_that_needs_python_is_called() -> None:
    found = one_field("string", "id", all_of(equals("stage", "PAID"), equals(upper("id"), "O-1"))).wire_plan()
    assert found.when == wire.All((wire.AmongNumbers(0, (1,)), wire.Holds(0)))
    assert [call.does for call in found.calls] == ['upper(id) is "O-1"']


def test_what_lies_side_by_side_is_one_copy() -> None:
    target = schema(
        "Target", id="string", note=null_or("string"), inner=schema("Inner", stage=ORDER["fields"][2]["type"]),
        count="int", price=decimal(10, 2), big="long", fixed="string", kind="string",
    )  # fmt: skip
    given = between(
        target, id="id", note="note", inner=record(stage="stage"), count="count", price="price", big="big",
        fixed=constant("ä"), kind=constant("b"),
    )  # fmt: skip
    found = given.wire_plan().emits
    assert [type(emit) for emit in found] == [wire.Copy, wire.Copy, wire.Copy, wire.Copy, wire.Raw]
    assert found[-1] == wire.Raw(b"\x04\xc3\xa4\x02b")
    given.agree(given.written(*VALUES))


def test_a_record_whose_fields_are_all_copied_is_copied_whole_and_with_its_neighbours() -> None:
    inner = schema("Inner", a="string", b="int")
    source = schema("Source", id="string", first=inner, second=schema("Second", c="long"), last="string")
    target = schema(
        "Target", id="string", one=inner | {"name": "One"}, two="long", three=schema("Three", four="string")
    )
    given = between(
        target, source=source, id="id", one=record(a="first.a", b="first.b"), two="second.c", three=record(four="last")
    )
    assert [type(emit) for emit in given.wire_plan().emits] == [wire.Copy]
    given.agree(given.written({"id": "i", "first": {"a": "x", "b": 5}, "second": {"c": 7}, "last": "l"}))


UNIONS: list[tuple[str, Any, Any, list[Any], str]] = [
    ("told apart by class", ["null", "long", "string"], None, [None, 5, "x"], "copied"),
    ("in another order", ["null", "long", "string"], ["string", "null", "long"], [None, 5, "x"], "instructions"),
    ("into a wider one", ["long", "string"], ["string", "null", "boolean", "long"], [5, "x"], "instructions"),
    ("not told apart", ["null", "int", "long"], None, [None, 5, 2**40], "call"),
    ("records", [schema("A", a="int"), schema("B", b="int")], [schema("C", a="int"), schema("D", b="int")],
     [{"a": 1}, {"b": 2}], "call"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "into", "held", "way"), [u[1:] for u in UNIONS], ids=[u[0] for u in UNIONS])
def test_a_union_is_copied_where_every_value_tells_its_branch(node: Any, into: Any, held: list[Any], way: str) -> None:
    given = one_field(into or node, "u", source=schema("Source", id="string", u=node))
    assert given.way() == way
    given.agree(given.written(*({"id": "i", "u": value} for value in held)))


def lines_to(item: dict[str, Any], rule: Any, of: Any = "lines") -> Between:
    return one_field(array(item), each(of, rule))


LISTS: list[tuple[str, Between, str, type[wire.Emit]]] = [
    ("renamed", one_field(array(schema("Out", a="string", b="int", c=decimal(10, 2), d=null_or(decimal(10, 2)),
                                       e="string", f=array("string"))),
                          each("lines", record(a="sku", b="quantity", c="price", d="discount", e="currency",
                                               f="tags"))),
     "copied", wire.Copy),
    ("one dropped", lines_to(ITEM, record(article="sku", pieces="quantity", price="price")),
     "instructions", wire.Each),
    ("turned round", lines_to(ITEM | {"fields": ITEM["fields"][::-1]},
                              record(article="sku", pieces="quantity", price="price")), "instructions", wire.Each),
    ("filtered", lines_to(ITEM, record(article="sku", pieces="quantity", price="price"),
                          filtered("lines", where=above("quantity", 1))), "instructions", wire.Each),
    ("filtered twice", lines_to(schema("Out", a="string"), record(a="sku"), filtered(
        filtered("lines", where=above("quantity", 0)), where=present("discount"))), "instructions", wire.Each),
    ("filtered alone", one_field(null_or(array(null_or("string"))), filtered("parts", where=present("."))),
     "instructions", wire.If),
    ("filtered by what is outside", lines_to(schema("Out", a="string"), record(a="sku"),
                                             filtered("lines", where=below("quantity", take("^count")))),
     "instructions", wire.Each),
    ("with what is outside", lines_to(schema("Out", a="string", b="string"),
                                      record(a=text(take("^id"), "/", take("sku")), b=default("^note", "none"))),
     "instructions", wire.Each),
    ("lists in lists", lines_to(schema("Out", n="int", t=array("string")), record(
        n=count_of("tags"), t=each("tags", text(take("^^id"), take("^sku"), take("."))))), "instructions", wire.Each),
    ("sums in lists", lines_to(schema("Out", n=decimal(30, 4)), record(n=add("price", default("discount", 0)))),
     "instructions", wire.Each),
    ("refused items", lines_to(schema("Out", n=decimal(10, 2)), record(n=required("discount"))), "instructions",
     wire.Each),
    ("null items", one_field(null_or(array("string")), each("parts", default(".", "-"))), "instructions", wire.If),
    ("other items", one_field(null_or(array(["string", "null"])), take("parts")), "instructions", wire.If),
    ("called", lines_to(schema("Out", a="string"), record(a=upper("sku"))), "call", wire.Spliced),
    ("called filter", lines_to(schema("Out", a="string"), record(a="sku"),
                               filtered("lines", where=equals(upper("sku"), "A1"))), "call", wire.Spliced),
    ("refusing filter", lines_to(schema("Out", a="string"), record(a="sku"),
                                 filtered("lines", where=equals(required("discount"), Decimal(1)))), "call",
     wire.Spliced),
    ("fixed items", one_field(array("string"), default(each("parts", constant("x")), [])), "instructions", wire.If),
]  # fmt: skip


@pytest.mark.parametrize(("given", "way", "emit"), [case[1:] for case in LISTS], ids=[case[0] for case in LISTS])
def test_a_list_is_copied_whole_or_made_item_by_item_or_called(given: Between, way: str, emit: type) -> None:
    assert given.way() == way
    assert isinstance(given.wire_plan().emits[-1], emit)
    given.agree(given.written(*VALUES))


def test_fields_inside_a_called_list_are_told_as_parts_of_it() -> None:
    given = lines_to(schema("Out", a="string", b="string"), record(a=upper("sku"), b="sku"))
    assert {field.path: field.way for field in given.lowered().fields} == {
        "id": "copied", "out": "call", "out[].a": "call", "out[].b": "call", "record key": "instructions",
    }  # fmt: skip
    assert given.why("out[].b") == "as a part of out: upper() is done in Python"


def test_each_item_of_a_fixed_list_goes_its_own_way() -> None:
    given = one_field(array("string"), items("id", constant("x"), upper("id"), default("note", "")))
    assert {field.path: field.way for field in given.lowered().fields} == {
        "id": "copied", "out[0]": "copied", "out[1]": "constant", "out[2]": "call", "out[3]": "instructions",
        "record key": "instructions",
    }  # fmt: skip
    given.agree(given.written(*VALUES))
    empty = one_field(array("string"), items())
    empty.agree(empty.written(*VALUES))
