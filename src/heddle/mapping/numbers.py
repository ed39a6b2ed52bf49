"""Exact arithmetic. No result is rounded unless a rounding was stated; floats never take part."""

from __future__ import annotations

import decimal
import re
from collections.abc import Callable
from decimal import Context, Decimal
from functools import reduce
from typing import Any, Final

from heddle.contracts.schema import Array, Map, Node
from heddle.mapping.refusals import Refused
from heddle.mapping.rules import Operation
from heddle.mapping.types import BYTES, DOUBLE, INT, LONG, STRING, Type, Unfit, decimal_of, is_integer, name_of
from heddle.mapping.types import decimal as decimal_type

ROUNDINGS: Final = {
    "half-even": decimal.ROUND_HALF_EVEN,
    "half-up": decimal.ROUND_HALF_UP,
    "half-down": decimal.ROUND_HALF_DOWN,
    "up": decimal.ROUND_UP,
    "down": decimal.ROUND_DOWN,
    "ceiling": decimal.ROUND_CEILING,
    "floor": decimal.ROUND_FLOOR,
}
EXACT: Final = Context(prec=10_000)
"""Python's default context keeps 28 digits and rounds the rest away in silence; a contract may hold more."""

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?", re.ASCII)
ZERO: Final = Decimal(0)

Types = tuple[Type, ...]
Params = dict[str, Any]


def check_rounding(name: str) -> None:
    if name not in ROUNDINGS:
        raise Unfit(f"rounding {name!r} is none of {', '.join(ROUNDINGS)}")


def digits_of(given: Type) -> tuple[int, int]:
    """Digits before and after the point. Raises `Unfit` for what is no exact number."""
    logical = decimal_of(given.node)
    if logical is None:
        raise Unfit(f"works on decimals and whole numbers, not on {given}; see to_decimal()")
    if logical.precision == 0:
        raise Unfit("a decimal that a function returns has no known scale; wrap it in to_decimal()")
    return logical.precision - logical.scale, logical.scale


def _result(types: Types, params: Params, whole: int, scale: int) -> Type:
    rounding = params.get("rounding", "")
    if rounding:
        check_rounding(rounding)
    if all(is_integer(t.node) for t in types):
        return Type(LONG, computed=True)
    return Type(decimal_type(whole + scale, scale), rounding=rounding, computed=True)


def _at_least_two(types: Types) -> None:
    if len(types) < 2:
        raise Unfit("needs two values or more")


def sum_type(types: Types, params: Params) -> Type:
    _at_least_two(types)
    digits = [digits_of(t) for t in types]
    return _result(types, params, max(w for w, _ in digits) + len(types) - 1, max(s for _, s in digits))


def _product_type(types: Types, params: Params) -> Type:
    _at_least_two(types)
    digits = [digits_of(t) for t in types]
    return _result(types, params, sum(w for w, _ in digits), sum(s for _, s in digits))


def _folded(exact: Callable[[Any, Any], Decimal], whole: Callable[[int, int], int]) -> Any:
    def make(types: Types, _params: Params) -> Callable[..., Any]:
        if all(is_integer(t.node) for t in types):
            return lambda *values: in_64_bits(reduce(whole, values))
        return exact if len(types) == 2 else lambda *values: reduce(exact, values)

    return make


def in_64_bits(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise Refused("range", "the result does not fit 64 bits")


ADD = Operation("add", sum_type, _folded(EXACT.add, int.__add__), True)
SUBTRACT = Operation("subtract", sum_type, _folded(EXACT.subtract, int.__sub__), True)
MULTIPLY = Operation("multiply", _product_type, _folded(EXACT.multiply, int.__mul__), True)


def rounder(scale: int, rounding: str) -> Callable[[Any], Decimal]:
    unit, mode = Decimal((0, (1,), -scale)), ROUNDINGS[rounding]
    return lambda value: value.quantize(unit, mode, EXACT)


def _rounds_to(_types: Types, params: Params) -> str:
    return f"rounds {params['rounding']} to {params['scale']} digits"


def _divide_type(types: Types, params: Params) -> Type:
    check_rounding(params["rounding"])
    (whole, _), (_, scale_of_divisor) = map(digits_of, types)
    return Type(decimal_type(whole + scale_of_divisor + params["scale"], params["scale"]), computed=True)


def _divider(_types: Types, params: Params) -> Callable[[Any, Any], Decimal]:
    scale, mode = params["scale"], ROUNDINGS[params["rounding"]]

    def divide(of: Any, by: Any) -> Decimal:
        if not by:
            raise Refused("zero", "division by zero")
        top, bottom = Decimal(of).as_integer_ratio()
        by_top, by_bottom = Decimal(by).as_integer_ratio()
        negative = (top < 0) != (by_top < 0)
        quotient, rest = divmod(abs(top) * abs(by_bottom) * 10**scale, abs(bottom) * abs(by_top))
        # A quarter below, at or above the half stands for the endless rest: every rounding decides the same on it.
        half = 2 * rest - abs(bottom) * abs(by_top)
        part = ZERO if not rest else Decimal("0.25" if half < 0 else "0.5" if half == 0 else "0.75")
        near = EXACT.add(quotient, part)
        return EXACT.scaleb((-near if negative else near).to_integral_value(mode, EXACT), -scale)

    return divide


DIVIDE = Operation("divide", _divide_type, _divider, True, _rounds_to)


def _to_decimal_type(types: Types, params: Params) -> Type:
    check_rounding(params["rounding"])
    (given,) = types
    scale: int = params["scale"]
    if not 0 <= scale <= 100:
        raise Unfit("scale is a number of digits from 0 to 100")
    logical = decimal_of(given.node)
    if logical is None and given.node != STRING and name_of(given.node) not in ("float", "double"):
        raise Unfit(f"makes a decimal of numbers and text, not of {given}")
    whole = logical.precision - logical.scale if logical and logical.precision else 100
    return Type(decimal_type(whole + 1 + scale, scale), computed=True)


def _to_decimal(types: Types, params: Params) -> Callable[[Any], Decimal]:
    rounded = rounder(params["scale"], params["rounding"])
    node = types[0].node
    if node == STRING:
        return lambda value: rounded(_parsed(value))
    if decimal_of(node) is None:
        return lambda value: rounded(_from_float(value))
    return lambda value: rounded(Decimal(value)) if value.__class__ is int else rounded(value)


def _parsed(value: str) -> Decimal:
    if _PLAIN_NUMBER.fullmatch(value) is None:
        raise Refused("number", "the text is no plain number")
    return Decimal(value)


def _from_float(value: float) -> Decimal:
    exact = Decimal(repr(value))
    if not exact.is_finite():
        raise Refused("number", "the float is not finite")
    return exact


def _to_decimal_loss(types: Types, params: Params) -> str:
    logical = decimal_of(types[0].node)
    kept = logical is not None and logical.precision > 0 and logical.scale <= params["scale"]
    return "" if kept else _rounds_to(types, params)


TO_DECIMAL = Operation("to_decimal", _to_decimal_type, _to_decimal, True, _to_decimal_loss)


def _to_integer_type(types: Types, params: Params) -> Type:
    (given,) = types
    rounding = params.get("rounding", "")
    if rounding:
        check_rounding(rounding)
    if given.node != STRING and not is_integer(given.node):
        _, scale = digits_of(given)
        if scale and not rounding:
            raise Unfit(f"{given} has digits after the point; state rounding=")
    return Type(LONG, computed=True)


def _to_integer(types: Types, params: Params) -> Callable[[Any], int]:
    node = types[0].node
    if is_integer(node):
        return int
    mode = ROUNDINGS[params.get("rounding", "half-even")]
    if node == STRING:
        return lambda value: in_64_bits(_whole(_parsed(value), mode, "rounding" in params))
    return lambda value: in_64_bits(int(value.to_integral_value(mode, EXACT)))


def _whole(value: Decimal, mode: str, may_round: bool) -> int:
    rounded = value.to_integral_value(mode, EXACT)
    if rounded != value and not may_round:
        raise Refused("number", "the text is no whole number")
    return int(rounded)


def _to_integer_loss(_types: Types, params: Params) -> str:
    return f"rounds {params['rounding']} to whole numbers" if "rounding" in params else ""


TO_INTEGER = Operation("to_integer", _to_integer_type, _to_integer, True, _to_integer_loss)


def _count_type(types: Types, _params: Params) -> Type:
    if not isinstance(types[0].node, Array | Map):
        raise Unfit(f"counts a list, not {types[0]}")
    return Type(INT)


COUNT = Operation("count_of", _count_type, lambda _types, _params: len, loses="all but the number")

# What `fit` puts between a rule and its target. Their parameters are made there, so nothing is left to infer.


def _stated(node: Node) -> Callable[[Types, Params], Type]:
    return lambda _types, _params: Type(node)


def _fixed(function: Callable[..., Any]) -> Callable[[Types, Params], Callable[..., Any]]:
    return lambda _types, _params: function


def _in_digits(_types: Types, params: Params) -> Callable[[Any], Any]:
    limit = 10 ** params["digits"]

    def check(value: Any) -> Any:
        if -limit < value < limit:
            return value
        raise Refused("range", f"the result has more than {params['digits']} digits before the point")

    return check


def _in_32_bits(value: int) -> int:
    if -(2**31) <= value < 2**31:
        return value
    raise Refused("range", "the number does not fit 32 bits")


def _round(_types: Types, params: Params) -> Callable[[Any], Decimal]:
    return rounder(params["scale"], params["rounding"])


ROUND = Operation("round", _stated(BYTES), _round, loses=_rounds_to, internal=True)
IN_DIGITS = Operation("in_digits", _stated(BYTES), _in_digits, True, internal=True)
IN_32_BITS = Operation("in_32_bits", _stated(INT), _fixed(_in_32_bits), True, internal=True)
AS_DECIMAL = Operation("as_decimal", _stated(BYTES), _fixed(Decimal), internal=True)
AS_FLOAT = Operation("as_float", _stated(DOUBLE), _fixed(float), internal=True)
