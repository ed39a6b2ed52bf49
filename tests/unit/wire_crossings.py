"""Mappings that stay the same from run to run: the benchmark's, the reference integration's, and one of everything."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

from mapping_support import DATE, LOCAL, MICROS, MILLIS, UUID_TEXT, array, decimal, null_or, schema, symbols
from wire_oracle import Crossing, contract_in_memory, crossing_between
from wire_values import encoded, value_of
from wire_writers import spelt_oddly

from heddle.contracts import contract_of
from heddle.mapping import (
    Mapping,
    above,
    add,
    all_of,
    any_of,
    call,
    choose,
    count_of,
    default,
    each,
    enum,
    equals,
    filtered,
    items,
    join,
    lookup,
    multiply,
    not_,
    one_of,
    present,
    record,
    subtract,
    take,
    text,
    to_date,
    to_decimal,
    total_of,
    truncate,
    upper,
    when,
)

# Two applications, of which no package has a name that the other's has.
sys.path += [str(Path(__file__).parents[2] / folder) for folder in ("", "benchmarks/app")]

from topologies.deal_to_invoice import LIST_PRICES_USD, invoice_of
from topologies.invoice_to_ledger import entry_of as entry_of_invoice
from topologies.order_to_pick import pick_of
from topologies.payment_to_ledger import entry_of as entry_of_payment

_MONEY = {"type": "fixed", "name": "Money", "size": 9, "logicalType": "decimal", "precision": 18, "scale": 4}

EVERYTHING = schema(
    "Everything",
    id="string",
    nothing="null",
    flag="boolean",
    small="int",
    big="long",
    single="float",
    double="double",
    data="bytes",
    token={"type": "fixed", "name": "Token", "size": 4},
    stage=symbols("Stage", "NEW", "PAID", "LOST"),
    day=DATE,
    clock={"type": "int", "logicalType": "time-millis"},
    fine_clock={"type": "long", "logicalType": "time-micros"},
    at=MILLIS,
    seen=null_or(MICROS),
    local=LOCAL,
    uid=UUID_TEXT,
    price=decimal(10, 2),
    money=_MONEY,
    cost=["null", decimal(30, 6)],
    note=["string", "null"],
    either=["null", "boolean", "long", "string", "bytes", schema("Boxed", label="string", weight=null_or("double"))],
    gone=schema("Gone", texts=array("string"), more={"type": "map", "values": "bytes"}),
    grid=array(array("int")),
    tokens=array({"type": "fixed", "name": "Piece", "size": 3}),
    attributes={"type": "map", "values": "string"},
    shelves={"type": "map", "values": schema("Shelf", room="int", tags=array("string"))},
    lines=array(
        schema("Line", sku="string", quantity="int", price=decimal(12, 4), kind=symbols("Kind", "SOLD", "GIVEN"))
        | {"namespace": "deep"}
    ),
    parts=null_or(array(null_or("string"))),
    customer=null_or(schema("Customer", first="string", last=null_or("string"), born=null_or(DATE))),
)

_OUT = schema(
    "Everything2",
    id="string",
    region="string",
    flag=["boolean", "null"],
    wide="long",
    single="float",
    ratio="double",
    data="bytes",
    token={"type": "fixed", "name": "Token2", "size": 4},
    stage=symbols("Stage2", "LOST", "DONE", "PAID", "NEW"),
    done=symbols("Done", "YES", "NO"),
    day=DATE,
    clock={"type": "int", "logicalType": "time-millis"},
    at=MICROS,
    seen=MICROS,
    local=LOCAL,
    uid=UUID_TEXT,
    price=decimal(12, 2),
    money=_MONEY | {"name": "Money2"},
    cost=[decimal(30, 6), "null"],
    note=null_or("string"),
    either=["null", "boolean", "long", "string", "bytes", schema("Boxed2", label="string", weight=null_or("double"))],
    grid=array(array("int")),
    tokens=array({"type": "fixed", "name": "Piece2", "size": 3}),
    attributes={"type": "map", "values": "string"},
    shelves={"type": "map", "values": schema("Shelf2", room="int", tags=array("string"))},
    colour=null_or("string"),
    lines=array(schema("Line2", article="string", pieces="long", amount=decimal(30, 4), kind="string", owner="string")),
    free=array("string"),
    parts=null_or(array("string")),
    line_count="int",
    total=decimal(30, 4),
    net=decimal(40, 4),
    name=null_or("string"),
    label="string",
    loud="string",
    month=DATE,
    size=symbols("Size", "S", "M", "L"),
    pair=array(schema("Half", what="string", amount=decimal(12, 2))),
    person=schema("Person", first="string", born=null_or(DATE)),
    checksum="string",
    added=("string", "by default"),
)


def told(*values: Any) -> str:
    """A function that sees all of its arguments."""
    return repr(values)


def _everything() -> Crossing:
    source = contract_in_memory("test.everything.v1", EVERYTHING)
    target = contract_in_memory("test.everything2.v1", _OUT, key=["id", "day", "uid"], tenant="region")
    sold = filtered("lines", where=equals("kind", "SOLD"))
    rules = {
        "id": "id",
        "region": lookup(default("attributes.colour", ""), {"red": "R", "a": "A"}, otherwise=default("note", "none")),
        "flag": "flag",
        "wide": "small",
        "single": "single",
        "ratio": "single",
        "data": "data",
        "token": "token",
        "stage": "stage",
        "done": enum("stage", NEW="NO", otherwise="YES"),
        "day": "day",
        "clock": "clock",
        "at": "at",
        "seen": default("seen", take("at")),
        "local": "local",
        "uid": "uid",
        "price": "price",
        "money": "money",
        "cost": "cost",
        "note": "note",
        "either": "either",
        "grid": "grid",
        "tokens": "tokens",
        "attributes": "attributes",
        "shelves": "shelves",
        "colour": "attributes.colour",
        "lines": each(sold, record(
            article="sku", pieces="quantity", amount=multiply("quantity", "price"), kind="kind", owner="^id",
        )),
        "free": each(filtered("lines", where=not_(above("price", 0))), text("free ", upper("sku"))),
        "parts": each("parts", default(".", "?")),
        "line_count": count_of("lines"),
        "total": total_of("lines", multiply("quantity", "price")),
        "net": subtract(add("money", default("cost", 0)), "price", rounding="half-even"),
        "name": join("customer.first", "customer.last", by=" "),
        "label": text("no ", join("small", "stage", "price", "day", by=", ")),
        "loud": upper(join("id", "attributes.size", by="/")),
        "month": truncate(to_date("at", zone="UTC"), "month"),
        "size": choose(
            when(all_of(above("price", 1000), one_of("stage", "NEW", "PAID")), "L"),
            when(any_of(above("price", 10), present("customer.born")), "M"),
            otherwise="S",
        ),
        "pair": items(
            record(what="id", amount="price"),
            record(what=default("customer.last", "nobody"), amount=to_decimal("price", scale=1, rounding="up")),
        ),
        "person": record(first=default("customer.first", "?"), born="customer.born"),
        "checksum": call(told, "either", "shelves", "cost", "clock", "grid"),
    }  # fmt: skip
    return crossing_between(source, target, rules, (EVERYTHING,), when=not_(equals("note", "red")))


def crossing_of(mapping: Mapping[Any, Any]) -> Crossing:
    """A declared mapping, whose source is written by its own contract."""
    source, target = contract_of(mapping.source), contract_of(mapping.target)
    return Crossing(source, target, mapping.plan, (source.source,))


CROSSINGS = {
    "benchmark": crossing_of(pick_of),
    "deal to invoice": crossing_of(invoice_of),
    "invoice to ledger": crossing_of(entry_of_invoice),
    "payment to ledger": crossing_of(entry_of_payment),
    "everything": _everything(),
}

_USUAL: dict[str, dict[str, list[Any]]] = {
    "deal to invoice": {"product": list(LIST_PRICES_USD), "currency": ["USD"], "stage": ["WON", "WON", "LOST"]},
    "invoice to ledger": {"status": ["OPEN"]},
    "payment to ledger": {"status": ["SUCCEEDED"]},
}


def honest_records(name: str, count: int, dice: Random, *, odd: bool, max_bytes: int = 1500) -> list[bytes]:
    """Records of a crossing that refuses none of them; with `odd` one in four is spelt oddly."""
    crossing = CROSSINGS[name]
    ((frame, node),) = crossing.nodes.items()
    found: list[bytes] = []
    while len(found) < count:
        value = value_of(node, dice) | {field: dice.choice(usual) for field, usual in _USUAL.get(name, {}).items()}
        record = frame + (spelt_oddly(node, value, dice) if odd and dice.random() < 0.25 else encoded(node, value))
        if len(record) <= max_bytes and crossing.answer(record).refusal is None:
            found.append(record)
    return found
