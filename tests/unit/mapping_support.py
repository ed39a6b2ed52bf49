"""A wide source contract for mapping tests, and one way to run a rule: interpreted and compiled, which must agree."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Record
from heddle.errors import HeddleError
from heddle.mapping.check import Checker
from heddle.mapping.compile import compile_plan
from heddle.mapping.interpret import interpret
from heddle.mapping.language import as_rule
from heddle.mapping.rules import Build, Condition, Plan

DATE = {"type": "int", "logicalType": "date"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-millis"}
UUID_TEXT = {"type": "string", "logicalType": "uuid"}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def null_or(node: Any) -> list[Any]:
    return ["null", node]


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def symbols(name: str, *listed: str) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(listed)}


def schema(name: str, /, **fields: Any) -> dict[str, Any]:
    """A record; a field whose value is a pair has (type, default)."""
    listed = []
    for field, node in fields.items():
        pair = {"type": node[0], "default": node[1]} if isinstance(node, tuple) else {"type": node}
        listed.append({"name": field, **pair})
    return {"type": "record", "name": name, "fields": listed}


ORDER = schema(
    "Order",
    id="string",
    note=null_or("string"),
    stage=symbols("Stage", "NEW", "PAID", "LOST"),
    mood=null_or(symbols("Mood", "GOOD", "BAD")),
    count="int",
    big="long",
    big_or_null=null_or("long"),
    price=decimal(10, 2),
    cost=null_or(decimal(12, 4)),
    rate="double",
    day=DATE,
    day_or_null=null_or(DATE),
    at=MILLIS,
    seen=null_or(MICROS),
    local=LOCAL,
    flag="boolean",
    uid=UUID_TEXT,
    attributes={"type": "map", "values": "string"},
    customer=null_or(schema(
        "Customer", first="string", last=null_or("string"), address=null_or(schema("Address", city="string")),
    )),
    lines=array(schema(
        "Line", sku="string", quantity="int", price=decimal(10, 2), discount=null_or(decimal(10, 2)), currency="string",
        tags=array("string"),
    )),
    parts=null_or(array(null_or("string"))),
)  # fmt: skip

LINE: dict[str, Any] = {
    "sku": "A1", "quantity": 2, "price": Decimal("10.05"), "discount": None, "currency": "EUR", "tags": ["red", "big"],
}  # fmt: skip
ORDER_VALUE: dict[str, Any] = {
    "id": "O-1",
    "note": None,
    "stage": "PAID",
    "mood": "GOOD",
    "count": 3,
    "big": 5_000_000_000,
    "big_or_null": None,
    "price": Decimal("19.99"),
    "cost": Decimal("1.2345"),
    "rate": 0.1,
    "day": date(2024, 3, 31),
    "day_or_null": None,
    "at": datetime(2024, 3, 31, 22, 30, 15, 250_000, tzinfo=UTC),
    "seen": datetime(2024, 10, 27, 0, 30, 0, 123_456, tzinfo=UTC),
    "local": datetime(2024, 7, 1, 12, 0),
    "flag": True,
    "uid": UUID("12345678-1234-5678-1234-567812345678"),
    "attributes": {"colour": "red"},
    "customer": {"first": "Ada", "last": None, "address": {"city": "Köln"}},
    "lines": [LINE, {**LINE, "sku": "B2", "quantity": 1, "price": Decimal("0.90"), "discount": Decimal("0.10")}],
    "parts": ["a", None, "b"],
}


def checked(target: dict[str, Any], when: Condition | None = None, **rules: Any) -> tuple[Plan, list[str]]:
    """The plan from ORDER to a target schema, and the problems found."""
    roots = parse_schema(ORDER), parse_schema(target)
    assert isinstance(roots[0], Record)
    assert isinstance(roots[1], Record)
    checker = Checker(*roots)
    build = Build(tuple((name, as_rule(rule)) for name, rule in rules.items()))
    return checker.plan("test.order.v1", "test.target.v1", when, build), [str(problem) for problem in checker.problems]


def plan_of(target: dict[str, Any], when: Condition | None = None, **rules: Any) -> Plan:
    plan, problems = checked(target, when, **rules)
    assert problems == []
    return plan


def problems_of(node: Any, rule: Any) -> list[str]:
    """What is wrong with one rule for a field `out` of a type."""
    return checked(schema("Target", out=node), out=rule)[1]


def outcome(plan: Plan, value: dict[str, Any], *, compiled: bool) -> Any:
    """The output, or (code, path, message) of the refusal."""
    try:
        return compile_plan(plan).function(value) if compiled else interpret(plan, value)
    except HeddleError as error:
        return error.code, getattr(error, "path", ""), str(error)


def run(plan: Plan, value: dict[str, Any] | None = None) -> Any:
    """What interpreter and compiled function agree on."""
    given = ORDER_VALUE if value is None else value
    interpreted = outcome(plan, given, compiled=False)
    assert outcome(plan, given, compiled=True) == interpreted
    return interpreted


def made(node: Any, rule: Any, **changes: Any) -> Any:
    """What one rule makes of the sample order for a field of a type: the value, or (code, path)."""
    result = run(plan_of(schema("Target", out=node), out=rule), {**ORDER_VALUE, **changes})
    return result["out"] if isinstance(result, dict) else result[:2]
