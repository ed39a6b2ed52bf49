"""Which branch of a union a value belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.schema import MISSING, Array, Enum, Fixed, Map, Node, Primitive, Record, Union
from heddle.contracts.shapes import Shape
from heddle.contracts.values import INT_MAX, INT_MIN

_LOGICAL_TYPES: dict[str, type] = {"decimal": Decimal, "uuid": UUID, "time-millis": time, "time-micros": time}
_TYPES: dict[str, type] = {"bytes": bytes, "string": str, "boolean": bool}


def branch_picker(union: Union, shape: Shape) -> Callable[[Any], int]:
    """A function from a value to its branch's index, -1 when it has none.

    The first branch of the value's own type wins; an int is a float only where no whole number fits.
    A tuple ("full.Name", dict) names a record branch, for dicts that could be several."""

    def pick(value: Any) -> int:
        for index, branch in enumerate(union.branches):
            if _is_of(branch, value, shape):
                return index
        if isinstance(value, int) and not isinstance(value, bool):
            for index, branch in enumerate(union.branches):
                if isinstance(branch, Primitive) and branch.kind in ("float", "double"):
                    return index
        return -1

    return pick


def unwrap(node: Node, value: Any) -> Any:
    """The value itself where a tuple ("full.Name", value) named its branch."""
    return value[1] if isinstance(node, Record) and isinstance(value, tuple) and len(value) == 2 else value


def _is_of(node: Node, value: Any, shape: Shape) -> bool:
    match node:
        case Primitive(logical=None):
            return _is_plain(node.kind, value)
        case Primitive() | Fixed(logical=None) | Fixed():
            if node.logical is None:
                return isinstance(value, bytes) and isinstance(node, Fixed) and len(value) == node.size
            return _is_logical(node.logical.name, value)
        case Enum():
            return isinstance(value, str) and value in node.symbols
        case Array():
            return isinstance(value, list | tuple) and not _names_branch(value)
        case Map():
            return isinstance(value, Mapping)
        case Record():
            return _is_record(node, value, shape)
        case Union():
            return False


def _is_plain(kind: str, value: Any) -> bool:
    match kind:
        case "null":
            return value is None
        case "int" | "long":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and (kind == "long" or INT_MIN <= value <= INT_MAX)
        case "float" | "double":
            return isinstance(value, float)
        case _:
            return isinstance(value, _TYPES[kind])


def _is_logical(name: str, value: Any) -> bool:
    match name:
        case "date":
            return isinstance(value, date) and not isinstance(value, datetime)
        case "timestamp-millis" | "timestamp-micros":
            return isinstance(value, datetime) and value.tzinfo is not None
        case "local-timestamp-millis" | "local-timestamp-micros":
            return isinstance(value, datetime) and value.tzinfo is None
        case _:
            return isinstance(value, _LOGICAL_TYPES[name])


def _is_record(node: Record, value: Any, shape: Shape) -> bool:
    if _names_branch(value):
        return bool(value[0] == node.name)
    if not shape.accepts(node, value):
        return False
    if shape.class_of(node) is not None:
        return True
    required = all(f.default is not MISSING or f.name in value for f in node.fields)
    return required and value.keys() <= {f.name for f in node.fields}


def _names_branch(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping)
