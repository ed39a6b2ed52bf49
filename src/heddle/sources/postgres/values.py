"""Column values from PostgreSQL's text form, exactly: no number goes through a float unless the column is one.

The sessions that read (streaming and snapshot alike) set DateStyle ISO, TimeZone UTC, IntervalStyle iso_8601,
bytea_output hex and extra_float_digits 1, so that one row has one text, however it was read.

A value that Python or the contract has none for (infinity, a year before 1 or after 9999, NaN as a numeric) is that
record's `ContractError`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from heddle.contracts.schema import NULL, Array, Node, Primitive, Union
from heddle.errors import ContractError

SESSION_SETTINGS: Final = {
    "datestyle": "ISO,YMD",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # Rows that the role may not see are an error, not a gap.
    "row_security": "off",
}

Reader = Callable[[str], Any]

MAX_ARRAY_DEPTH: Final = 6
"""PostgreSQL's own."""


def _boolean(text: str) -> bool:
    if text not in ("t", "f"):
        raise ValueError(text)
    return text == "t"


def _numeric(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(text)
    return number


def _bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError("no hex")
    return bytes.fromhex(text[2:])


def _timestamptz(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return moment


_READERS: Final[dict[str, Reader]] = {
    "bool": _boolean,
    "int2": int,
    "int4": int,
    "int8": int,
    "oid": int,
    "float4": float,
    "float8": float,
    "numeric": _numeric,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "timestamptz": _timestamptz,
    "uuid": UUID,
    "bytea": _bytes,
}
_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric"})


def reader_of(type_name: str) -> Reader:
    """For a type by its catalogue name, `int4` or `int4[]`. Text, enums, jsonb, intervals and all else stay text, as
    PostgreSQL writes them. A reader raises `ContractError`."""
    if type_name.endswith("[]"):
        return _checked(type_name, _array_of(_element_reader(type_name), _delimiter_of(type_name)))
    known = _READERS.get(type_name)
    return str if known is None else _checked(type_name, known)


def fitted_reader(type_name: str, node: Node) -> Reader:
    """`reader_of`, for a contract field of a given type: a string takes the text of any type, a decimal takes whole
    numbers, a floating-point number takes any number. What else does not fit, the contract's codec refuses."""
    node = _without_null(node)
    if isinstance(node, Array) and type_name.endswith("[]"):
        element = fitted_reader(type_name.removesuffix("[]"), node.items)
        return _checked(type_name, _array_of(element, _delimiter_of(type_name)))
    if isinstance(node, Primitive):
        if node.kind == "string" and node.logical is None:
            return str
        logical = node.logical.name if node.logical else ""
        if logical == "decimal" and type_name in _NUMBERS:
            return reader_of("numeric")
        if node.kind in ("float", "double") and type_name in _NUMBERS:
            return reader_of("float8")
    return reader_of(type_name)


def _without_null(node: Node) -> Node:
    if isinstance(node, Union):
        others = [branch for branch in node.branches if branch != NULL]
        return others[0] if len(others) == 1 else node
    return node


def _element_reader(type_name: str) -> Reader:
    return _READERS.get(type_name.removesuffix("[]"), str)


def _delimiter_of(type_name: str) -> str:
    """pg_type.typdelim: of all types of PostgreSQL's own, boxes alone are not parted by commas."""
    return ";" if type_name == "box[]" else ","


def _checked(type_name: str, reader: Reader) -> Reader:
    def read(text: str) -> Any:
        try:
            return reader(text)
        except ContractError:
            raise
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise ContractError(f"a {type_name} that has no exact value in a contract") from error

    return read


def _array_of(element: Reader, delimiter: str) -> Reader:
    def read(text: str) -> tuple[Any, ...]:
        start = text.find("{")
        if start < 0 or (start and not text.startswith("[")):  # a lower bound of its own stands before the braces
            raise ValueError("no array")
        value, end = _array(text, start + 1, element, delimiter, 1)
        if end != len(text):
            raise ValueError("text behind the array")
        return value

    return read


def _array(text: str, at: int, element: Reader, delimiter: str, depth: int) -> tuple[tuple[Any, ...], int]:
    """The elements from behind an opening brace, and where the text goes on behind the closing one."""
    if depth > MAX_ARRAY_DEPTH:
        raise ValueError("too deep")
    values: list[Any] = []
    if text[at : at + 1] == "}":
        return (), at + 1
    while True:
        value: Any
        head = text[at : at + 1]
        if head == "{":
            value, at = _array(text, at + 1, element, delimiter, depth + 1)
        elif head == '"':
            quoted, at = _quoted(text, at + 1)
            value = element(quoted)
        else:
            end = _end_of_bare(text, at, delimiter)
            bare, at = text[at:end], end
            value = None if bare == "NULL" else element(bare)
        values.append(value)
        follows = text[at : at + 1]
        at += 1
        if follows == "}":
            return tuple(values), at
        if follows != delimiter:
            raise ValueError("neither a delimiter nor the end")


def _end_of_bare(text: str, at: int, delimiter: str) -> int:
    """PostgreSQL quotes elements that hold one of these, or nothing."""
    end = at
    while end < len(text) and text[end] != delimiter and text[end] not in '{}"\\':
        end += 1
    if end == at:
        raise ValueError("an empty element")
    return end


def _quoted(text: str, at: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = min(_found(text, '"', at), _found(text, "\\", at))
        if end >= len(text):
            raise ValueError("an open quote")
        parts.append(text[at:end])
        if text[end] == '"':
            return "".join(parts), end + 1
        parts.append(text[end + 1 : end + 2])
        at = end + 2


def _found(text: str, what: str, at: int) -> int:
    found = text.find(what, at)
    return len(text) if found < 0 else found
