"""Contract values as JSON that people and other programs read and write, and back, exactly.

Decimals, times and UUIDs are strings, bytes are base64. A union's value is bare where its form tells the branch, and
`{"branch": value}` where it does not. `to_json` of a value that was decoded in `ChosenShape` and `from_json` of the
answer give bytes that are the same for everything that was left alone.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from heddle.contracts.branches import branch_picker
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.refusals import OutOfRangeError, UnknownFieldError, WrongTypeError
from heddle.contracts.schema import NULL, Array, Fixed, Logical, Map, Node, Primitive, Record, Union, union_key
from heddle.contracts.shapes import Chosen, DictShape
from heddle.errors import ContractError

_DICTS: Final = DictShape()
_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EXAMPLES: Final = {
    "decimal": '"12.50"',
    "uuid": '"9f1c2b9e-4c9c-4a52-9d8a-5d9f0f3b6a11"',
    "date": '"2026-03-01"',
    "time-millis": '"14:05:00.250"',
    "time-micros": '"14:05:00.250000"',
    "timestamp-millis": '"2026-03-01T14:05:00.250Z"',
    "timestamp-micros": '"2026-03-01T14:05:00.250000Z"',
    "local-timestamp-millis": '"2026-03-01T14:05:00.250"',
    "local-timestamp-micros": '"2026-03-01T14:05:00.250000"',
}


def to_json(node: Node, value: Any) -> Any:
    """`value` as the reference decoder gives it, in `ChosenShape` where the way back has to be exact."""
    match node:
        case Record():
            return {f.name: to_json(f.type, value[f.name]) for f in node.fields}
        case Array():
            return [to_json(node.items, item) for item in value]
        case Map():
            return {key: to_json(node.values, item) for key, item in value.items()}
        case Union():
            return _union_to_json(node, value)
        case _:
            return scalar_to_json(value)


def from_json(node: Node, document: Any, path: str = "") -> Any:
    """The value that the reference encoder takes. What is of a wrong type altogether is left for the encoder to refuse.

    Raises `EncodeError` with the field path for text that is no value of its type and for fields that do not exist."""
    match node:
        case Record() if isinstance(document, Mapping):
            return _record_from_json(node, document, path)
        case Array() if isinstance(document, list):
            return [from_json(node.items, item, f"{path}[{index}]") for index, item in enumerate(document)]
        case Map() if isinstance(document, Mapping):
            return {key: from_json(node.values, item, f"{path}[{key!r}]") for key, item in document.items()}
        case Union():
            return _union_from_json(node, document, path)
        case Primitive() | Fixed():
            return _scalar_from_json(node, document, path)
        case _:
            return document


def takes_text(node: Node | None) -> bool:
    """Whether a bare word is meant as text there: what `--set path=value` cannot tell from the value alone."""
    if isinstance(node, Union):
        others = [branch for branch in node.branches if branch != NULL]
        return len(others) == 1 and takes_text(others[0])
    if isinstance(node, Primitive | Fixed):
        logical = None if node.logical is None else node.logical.name
        return logical != "decimal" and (isinstance(node, Fixed) or node.kind in ("string", "bytes") or bool(logical))
    return node is not None and not isinstance(node, Record | Array | Map)  # an enum


def scalar_to_json(value: Any) -> Any:
    """What no container is; what JSON has itself stays as it is."""
    match value:
        case datetime():
            return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case time():
            return value.isoformat(timespec="microseconds")
        case Decimal():
            return format(value, "f")
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return next(name for name, number in _FLOATS.items() if number == value or value != value)
        case _:
            return value


def _record_from_json(node: Record, document: Mapping[str, Any], path: str) -> dict[str, Any]:
    types = {f.name: f.type for f in node.fields}
    for name in document:
        if name not in types:
            known = ", ".join(types)
            raise UnknownFieldError(
                f"{_join(path, name)} is no field of {node}", path=_join(path, name), hint=f"its fields: {known}"
            )
    return {name: from_json(types[name], part, _join(path, name)) for name, part in document.items()}


def _union_to_json(node: Union, value: Any) -> Any:
    if not isinstance(value, Chosen):
        value = Chosen(branch_picker(node, _DICTS)(value), value)
    branch = node.branches[value.index]
    inner = to_json(branch, value.value)
    read = _union_from_json(node, inner, "")
    if isinstance(read, Chosen) and read.index == value.index:
        return inner
    return {union_key(branch): inner}


def _union_from_json(node: Union, document: Any, path: str) -> Any:
    """A `Chosen`, or the document itself where no branch takes it."""
    named = _named_branch(node, document)
    if named is not None:
        return named
    if document is None:
        return None if node.null_index is None else Chosen(node.null_index, None)
    others = [(index, branch) for index, branch in enumerate(node.branches) if branch != NULL]
    if len(others) == 1:  # its own refusal says more than the union's
        return Chosen(others[0][0], from_json(others[0][1], document, path))
    for index, branch in others:
        value = _taken(branch, document)
        if value is not None:
            return Chosen(index, value)
    return document


def _named_branch(node: Union, document: Any) -> Chosen | None:
    if isinstance(document, Mapping) and len(document) == 1:
        ((name, inner),) = document.items()
        for index, branch in enumerate(node.branches):
            value = _taken(branch, inner) if branch != NULL and union_key(branch) == name else None
            if value is not None:
                return Chosen(index, value)
    return None


def _taken(node: Node, document: Any) -> Any:
    """The value, or None where this type (never null) refuses it."""
    try:
        value = from_json(node, document)
        encode_reference(node, _DICTS, DEFAULT_LIMITS, value)
    except ContractError:
        return None
    return value


def _scalar_from_json(node: Primitive | Fixed, document: Any, path: str) -> Any:
    if node.logical is not None:
        return _logical(node.logical, document, path)
    if isinstance(node, Fixed) or node.kind == "bytes":
        return _bytes(document, path)
    if node.kind in ("float", "double"):
        return _float(node, document, path)
    return float(document) if isinstance(document, Decimal) else document


def _logical(logical: Logical, document: Any, path: str) -> Any:
    if logical.name == "decimal" and isinstance(document, int | Decimal) and not isinstance(document, bool):
        return Decimal(document)
    if not isinstance(document, str):
        return document
    try:
        return _PARSERS[logical.name](document)
    except (ValueError, InvalidOperation):
        raise WrongTypeError(
            f"{path or 'the value'} is text that is no {logical}",
            path=path,
            hint=f"write it like {_EXAMPLES[logical.name]}",
        ) from None


def _decimal(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError
    return number


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "decimal": _decimal,
    "uuid": UUID,
    "date": date.fromisoformat,
    "time-millis": time.fromisoformat,
    "time-micros": time.fromisoformat,
    "timestamp-millis": datetime.fromisoformat,
    "timestamp-micros": datetime.fromisoformat,
    "local-timestamp-millis": datetime.fromisoformat,
    "local-timestamp-micros": datetime.fromisoformat,
}


def _bytes(document: Any, path: str) -> Any:
    if not isinstance(document, str):
        return document
    try:
        return base64.b64decode(document, validate=True)
    except ValueError:  # no base64, or no ASCII
        raise WrongTypeError(f"{path or 'the value'} is text that is no base64", path=path) from None


def _float(node: Primitive, document: Any, path: str) -> Any:
    if isinstance(document, str):
        return _FLOATS.get(document, document)
    if not isinstance(document, Decimal):
        return document
    number = float(document)
    if math.isinf(number):
        raise OutOfRangeError(f"{path or 'the value'} does not fit a {node}", path=path)
    return number


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
