"""When the bytes that a writer wrote are those that the target's codec would write of their value."""

from __future__ import annotations

from typing import Final

from heddle.contracts.resolution import (
    Action,
    ReadArray,
    ReadEnum,
    ReadFixed,
    ReadMap,
    ReadRecord,
    ReadScalar,
    ReadUnion,
)
from heddle.contracts.schema import Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union

_CLASSES: Final = {
    "long": "int",
    "double": "float",
    "time-millis": "time",
    "time-micros": "time",
    "timestamp-millis": "timestamp",
    "timestamp-micros": "timestamp",
    "local-timestamp-millis": "local-timestamp",
    "local-timestamp-micros": "local-timestamp",
}


def is_copy(action: Action, node: Node) -> bool:
    """Whether every value, in its canonical form, is written as it was."""
    match action, node:
        case ReadUnion(branches), Union():
            pairs = zip(branches, node.branches, strict=False)
            return len(branches) <= len(node.branches) and is_told(node) and all(is_copy(a, n) for a, n in pairs)
        case ReadScalar(), Primitive():
            return _is_scalar_copy(action, node)
        case ReadFixed(size, logical), Fixed():
            return size == node.size and _same_meaning(logical, node.logical)
        case ReadEnum(symbols), Enum():
            return symbols == node.symbols[: len(symbols)]
        case (ReadArray(inner), Array(item)) | (ReadMap(inner), Map(item)):
            return is_copy(inner, item)
        case ReadRecord(_, steps, defaulted), Record():
            names = [step.target for step in steps]
            pairs = zip((step.action for step in steps), (field.type for field in node.fields), strict=False)
            same_fields = not defaulted and names == [field.name for field in node.fields]
            return same_fields and all(is_copy(a, n) for a, n in pairs)
    return False


def _is_scalar_copy(action: ReadScalar, node: Primitive) -> bool:
    if not _same_meaning(action.logical, node.logical):
        return False
    match node.kind:
        case "long":
            return action.becomes in ("int", "long")
        case "int":
            return action.kind == "int" and action.becomes in ("int", "long")
        case "string" | "bytes":
            return action.becomes == node.kind
    return action.kind == action.becomes == node.kind


def _same_meaning(have: Logical | None, want: Logical | None) -> bool:
    """Decimals may have room for more digits."""
    if have is None or want is None or have.name != "decimal":
        return have == want
    return want.name == "decimal" and have.scale == want.scale and have.precision <= want.precision


def class_of(node: Node | Action) -> str:
    """What Python values of a type are, by which the codec picks the branch of a union."""
    match node:
        case ReadScalar(_, kind, logical) | Primitive(kind, logical):
            return _CLASSES.get(logical.name if logical else kind, logical.name if logical else kind)
        case ReadFixed(_, logical) | Fixed(_, _, logical):
            return "decimal" if logical else "bytes"
        case ReadEnum() | Enum():
            return "string"
        case ReadArray() | Array():
            return "list"
        case ReadMap() | ReadRecord() | Map() | Record():
            return "dict"
    return "union"


def is_told(union: Union) -> bool:
    """Whether the class of a value always tells which branch it is of."""
    if len(union.branches) == 2 and union.null_index is not None:
        return True
    return len({class_of(branch) for branch in union.branches}) == len(union.branches)


def branch_for(union: Union, name: str) -> int | None:
    """The branch into which the codec writes a value of this class; None where that takes more than its class."""
    if len(union.branches) == 2 and union.null_index is not None and name != "null":
        return 1 - union.null_index
    found = [i for i, branch in enumerate(union.branches) if class_of(branch) == name]
    return found[0] if len(found) == 1 else None
