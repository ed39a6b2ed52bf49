"""Typed contract values to native dicts and back, for mappings that are called from tests and functions."""

from __future__ import annotations

from typing import Any

from heddle.contracts import Contract
from heddle.contracts.branches import branch_picker
from heddle.contracts.schema import MISSING, Array, Map, Node, Record, Union
from heddle.contracts.shapes import DictShape, Shape, TypeShape, shaped_default


def to_native(contract: Contract, value: Any) -> dict[str, Any]:
    """A generated type's value as dicts and lists."""
    typed = TypeShape(contract.type, contract.major)
    return _reshaped(contract.root, value, typed, DictShape())  # type: ignore[no-any-return]


def from_native(contract: Contract, value: dict[str, Any]) -> Any:
    """Dicts and lists as the generated type's value."""
    return _reshaped(contract.root, value, DictShape(), TypeShape(contract.type, contract.major))


def _reshaped(node: Node, value: Any, have: Shape, want: Shape) -> Any:
    match node:
        case Record():
            fields = {f.name: _field(f.type, have.field(value, f.name), f.default, have, want) for f in node.fields}
            return want.make(node, fields)
        case Array():
            return want.array([_reshaped(node.items, item, have, want) for item in value])
        case Map():
            return {key: _reshaped(node.values, item, have, want) for key, item in value.items()}
        case Union():
            index = branch_picker(node, have)(value)
            return value if index < 0 else _reshaped(node.branches[index], value, have, want)
        case _:
            return value


def _field(node: Node, value: Any, default: Any, have: Shape, want: Shape) -> Any:
    return shaped_default(want, node, default) if value is MISSING else _reshaped(node, value, have, want)
