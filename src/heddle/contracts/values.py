"""Python values of Avro's logical types, and the defaults that schemas give as JSON.

These conversions are the one definition; generated codecs inline the same arithmetic."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any, Final
from uuid import UUID

from heddle.contracts.schema import MISSING, Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union
from heddle.errors import ContractError

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
FLOAT_MAX: Final = 3.4028234663852886e38
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH: Final = datetime(1970, 1, 1)
EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
DAY_US: Final = 86_400_000_000
# Wide enough that no contract's decimal is ever rounded by arithmetic of ours.
EXACT: Final = Context(prec=999_999)


def from_number(logical: str, number: int) -> Any:
    """The value of an int or long with a logical type. Raises ValueError or OverflowError when there is none."""
    match logical:
        case "date":
            return date.fromordinal(number + EPOCH_ORDINAL)
        case "timestamp-millis":
            return EPOCH + timedelta(0, number // 1000, number % 1000 * 1000)
        case "timestamp-micros":
            return EPOCH + timedelta(0, 0, number)
        case "local-timestamp-millis":
            return LOCAL_EPOCH + timedelta(0, number // 1000, number % 1000 * 1000)
        case "local-timestamp-micros":
            return LOCAL_EPOCH + timedelta(0, 0, number)
        case "time-millis":
            return time_of(number * 1000)
        case _:
            return time_of(number)


def time_of(microseconds: int) -> time:
    """Time of day. Raises ValueError outside of one day."""
    seconds, us = divmod(microseconds, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, us)


def from_unscaled(unscaled: int, logical: Logical) -> Decimal:
    """Raises ValueError when `unscaled` has more digits than the precision."""
    if abs(unscaled) >= 10**logical.precision:
        raise ValueError("more digits than the precision")
    return Decimal(unscaled).scaleb(-logical.scale, EXACT)


def default_value(node: Node, default: Any) -> Any:
    """A JSON default as the value that decoding gives (records as dicts). Call `check_default` before."""
    match node:
        case Primitive(kind="bytes") | Fixed():
            data = default.encode("latin-1")
            return from_unscaled(int.from_bytes(data, "big", signed=True), node.logical) if node.logical else data
        case Primitive(kind="string"):
            return UUID(default) if node.logical else default
        case Primitive(kind="float" | "double"):
            return float(default)
        case Primitive():
            return from_number(node.logical.name, default) if node.logical else default
        case Union():
            return default_value(branch_of_default(node, default), default)
        case Array():
            return [default_value(node.items, item) for item in default]
        case Map():
            return {key: default_value(node.values, item) for key, item in default.items()}
        case Record():
            return {f.name: default_value(f.type, default.get(f.name, f.default)) for f in node.fields}
        case Enum():
            return default


def branch_of_default(node: Union, default: Any) -> Node:
    """The branch that a union's default is of: the first that fits (Avro 1.12; before, only the first could)."""
    for branch in node.branches:
        if fits(branch, default):
            return branch
    raise ContractError("the default fits no branch of its union")


def check_default(node: Node, default: Any, where: str) -> None:
    """Raises `ContractError` when a default is not of its field's type."""
    if not fits(node, default):
        raise ContractError(
            f"default of {where} is not a valid {node}", hint="a union's null default is null, not 'null'"
        )
    default_value(node, default)


def fits(node: Node, default: Any) -> bool:
    """Whether a JSON default is of this type."""
    match node:
        case Primitive() | Fixed():
            return _fits_scalar(node, default)
        case Enum():
            return default in node.symbols
        case Union():
            return any(fits(branch, default) for branch in node.branches)
        case Array():
            return isinstance(default, list) and all(fits(node.items, item) for item in default)
        case Map():
            return isinstance(default, dict) and all(fits(node.values, item) for item in default.values())
        case Record():
            return isinstance(default, dict) and all(
                _fits_field(f.type, default.get(f.name, f.default)) for f in node.fields
            )


def _fits_field(node: Node, default: Any) -> bool:
    return default is not MISSING and fits(node, default)


def _fits_scalar(node: Primitive | Fixed, default: Any) -> bool:
    kind = node.kind if isinstance(node, Primitive) else "fixed"
    number = isinstance(default, int | float) and not isinstance(default, bool)
    match kind:
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            low, high = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
            valid = number and isinstance(default, int) and low <= default <= high
        case "float" | "double":
            return number and (kind == "double" or not math.isfinite(default) or abs(default) <= FLOAT_MAX)
        case _:
            valid = isinstance(default, str)
            if valid and kind != "string":
                valid = all(ord(c) < 256 for c in default)
                valid = valid and (not isinstance(node, Fixed) or len(default) == node.size)
    if valid and node.logical is not None:
        return _converts(node, default)
    return bool(valid)


def _converts(node: Node, default: Any) -> bool:
    try:
        default_value(node, default)
    except (ValueError, OverflowError):
        return False
    return True
