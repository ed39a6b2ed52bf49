"""Whether a value of one type may be written where another is wanted, and what must be done to it on the way."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.schema import Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union
from heddle.contracts.values import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN
from heddle.mapping import numbers
from heddle.mapping.rules import Apply, Constant, Operation, Rule, typed
from heddle.mapping.types import (
    DATE,
    DOUBLE,
    INT,
    LONG,
    MICROS,
    MILLIS,
    NEVER,
    STRING,
    Type,
    Unfit,
    closest,
    decimal_of,
    is_integer,
    logical_of,
    name_of,
    same,
    type_of,
)

_WIDER = ((INT, LONG), (MILLIS, MICROS))


def fit(rule: Rule, want: Type) -> Rule:
    """The rule with the conversions that its target needs. Raises `Unfit` for what would fail or lose unasked."""
    have = typed(rule)
    if have.node == NEVER:
        return rule
    if have.nullable and not want.nullable:
        raise Unfit(f"may be null where {want} is wanted; give default(…, value) or required(…)")
    if same(have.node, want.node):
        return rule
    if isinstance(want.node, Union):
        raise Unfit(f"is {have}, and the target is a {want}; use call()")
    target = decimal_of(want.node)
    if target is not None and not is_integer(want.node):
        return _fit_decimal(rule, have, want, target)
    if want.node == INT and have == Type(LONG, have.nullable, have.rounding, True):
        return _convert(rule, numbers.IN_32_BITS, want)
    if (have.node, want.node) in ((INT, LONG), (MILLIS, MICROS)) or (
        want.node == STRING and isinstance(have.node, Enum)
    ):
        return rule
    if want.node == DOUBLE and (have.node == INT or have.node == Primitive("float")):
        return _convert(rule, numbers.AS_FLOAT, want)
    raise Unfit(f"is {have} where {want} is wanted{_advice(have.node, want.node)}")


def _fit_decimal(rule: Rule, have: Type, want: Type, target: Logical) -> Rule:
    given = decimal_of(have.node)
    if given is None or given.precision == 0:
        raise Unfit(f"is {have} where {want} is wanted; use to_decimal(…, scale={target.scale}, rounding=…)")
    if is_integer(have.node):
        rule = _convert(rule, numbers.AS_DECIMAL, want)
    if given.scale > target.scale:
        if not have.rounding:
            raise Unfit(f"is {have} where {want} is wanted; state a rounding, for example rounding='half-even'")
        rule = _convert(rule, numbers.ROUND, want, scale=target.scale, rounding=have.rounding)
    room = target.precision - target.scale
    digits = given.precision - given.scale + (given.scale > target.scale)
    if digits <= room:
        return rule
    if not have.computed:
        raise Unfit(
            f"is {have} where {want} is wanted: {digits} digits before the point do not fit {room}; "
            f"to_decimal(…, scale={target.scale}, rounding=…) checks each value"
        )
    return _convert(rule, numbers.IN_DIGITS, want, digits=room)


def _convert(rule: Rule, operation: Operation, want: Type, **params: Any) -> Rule:
    return Apply(operation, (rule,), tuple(params.items()), want._replace(nullable=typed(rule).nullable))


def _advice(have: Node, want: Node) -> str:
    match have, want:
        case _, Enum() if have == STRING:
            return "; map the texts with lookup()"
        case Enum(), Enum():
            missing = [s for s in have.symbols if s not in want.symbols]
            return f", which lacks {', '.join(missing)}; map the symbols with enum()"
        case Record(), Record():
            return "; build it with record()"
        case Array(), Array():
            return "; build its items with each()"
        case Primitive(), _ if want == STRING:
            return "; use text()"
    if want == DATE:
        return "; use to_date()"
    if have == MICROS and want == MILLIS:
        return '; use truncate(…, "millisecond")'
    if logical_of(want).startswith("timestamp-"):
        return "; use to_timestamp()"
    return "; use to_integer()" if is_integer(want) else ""


def constant_type(value: Any) -> Type:
    """The type of a constant that stands where nothing is wanted in particular. Raises `Unfit`."""
    match value:
        case bool():
            return Type(Primitive("boolean"))
        case int():
            return Type(LONG)
        case float():
            return Type(DOUBLE)
        case str():
            return Type(STRING)
        case Decimal():
            whole, scale = _digits(value)
            return Type(Primitive("bytes", Logical("decimal", max(whole, 0) + scale or 1, scale)))
        case datetime():
            return Type(MICROS)
        case date():
            return Type(DATE)
        case _:
            raise Unfit(f"a constant {type(value).__name__} cannot stand here")


def fit_constant(value: Any, want: Type) -> Constant:
    """The value as the target's codec wants it. Raises `Unfit` for one that the target cannot hold."""
    if value is None:
        if not want.nullable:
            raise Unfit(f"is null where {want} is wanted")
        return Constant(None, Type(want.node, nullable=True))
    return Constant(_native(value, want.node), Type(want.node))


def _native(value: Any, node: Node) -> Any:
    match node:
        case Enum():
            if value not in node.symbols:
                raise Unfit(
                    f"enum {node.name.rpartition('.')[2]} has no symbol {value!r}{closest(str(value), node.symbols)}"
                )
            return str(value)
        case Array() if isinstance(value, list | tuple):
            return [_native_item(item, node.items) for item in value]
        case Map() if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: _native_item(item, node.values) for key, item in value.items()}
        case Fixed(logical=None) if isinstance(value, bytes) and len(value) == node.size:
            return value
    if logical_of(node) == "decimal" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _decimal(Decimal(value), node)
    if isinstance(node, Primitive) and _fits_primitive(value, node):
        return float(value) if node.kind in ("float", "double") else value
    raise Unfit(f"{_kind(value)} where {name_of(node)} is wanted")


def _kind(value: Any) -> str:
    if not isinstance(value, datetime):
        return type(value).__name__
    return "a datetime without zone" if value.utcoffset() is None else "a datetime to the microsecond"


def _native_item(value: Any, node: Node) -> Any:
    return fit_constant(value, type_of(node)).value


def _digits(value: Decimal) -> tuple[int, int]:
    if not value.is_finite():
        raise Unfit("a decimal that is not finite")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return len(digits) + exponent, max(-exponent, 0)


def _decimal(value: Decimal, node: Node) -> Decimal:
    limits = decimal_of(node)
    whole, scale = _digits(value)
    if limits is None or scale > limits.scale or (value and whole > limits.precision - limits.scale):
        raise Unfit(f"a decimal of {whole} digits before the point and {scale} after where {name_of(node)} is wanted")
    return value


def _fits_primitive(value: Any, node: Primitive) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match node.kind, logical_of(node):
        case "string", "uuid":
            return isinstance(value, UUID)
        case "int", "date":
            return isinstance(value, date) and not isinstance(value, datetime)
        case "long", "timestamp-millis" | "timestamp-micros" as unit:
            aware = isinstance(value, datetime) and value.utcoffset() is not None
            return aware and (unit == "timestamp-micros" or value.microsecond % 1000 == 0)
        case "int", "":
            return whole and INT_MIN <= value <= INT_MAX
        case "long", "":
            return whole and LONG_MIN <= value <= LONG_MAX
        case "float" | "double", "":
            return whole or isinstance(value, float)
        case kind, "":
            expected = {"boolean": bool, "string": str, "bytes": bytes}.get(kind)
            return expected is not None and isinstance(value, expected)
    return False


UNKNOWN_DECIMAL = Primitive("bytes", Logical("decimal"))
"""A decimal whose scale only the function that returns it knows."""

RETURNED: dict[Any, Node] = {
    str: STRING, int: LONG, float: DOUBLE, bool: Primitive("boolean"), bytes: Primitive("bytes"), date: DATE,
    datetime: MICROS, Decimal: UNKNOWN_DECIMAL, UUID: Primitive("string", Logical("uuid")),
}  # fmt: skip


def accepts_python(returned: type, node: Node) -> bool:
    """Whether a codec of `node` may accept values of a Python type; how far is its own check."""
    match node:
        case Enum():
            return returned is str
        case Array():
            return returned in (list, tuple)
        case Map() | Record():
            return returned is dict
        case Union():
            return any(accepts_python(returned, branch) for branch in node.branches)
    if logical_of(node) == "decimal":
        return returned is Decimal
    if node in (MILLIS, MICROS) or logical_of(node).startswith("local-timestamp-"):
        return returned is datetime
    if isinstance(node, Fixed):
        return returned is bytes
    wanted = RETURNED.get(returned)
    return wanted == node or (wanted == LONG and node == INT) or (wanted == DOUBLE and node == Primitive("float"))
