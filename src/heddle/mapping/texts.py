"""Operations on text."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.schema import Enum, Node
from heddle.mapping.rules import Operation
from heddle.mapping.types import DATE, STRING, Type, Unfit, decimal_of, logical_of


def _text_only(types: tuple[Type, ...], _params: dict[str, Any]) -> Type:
    for given in types:
        if given.node != STRING and not isinstance(given.node, Enum):
            raise Unfit(f"works on text, not on {given}")
    return Type(STRING)


UPPER = Operation("upper", _text_only, lambda _types, _params: str.upper, loses="letter case")
LOWER = Operation("lower", _text_only, lambda _types, _params: str.lower, loses="letter case")
STRIP = Operation("strip", _text_only, lambda _types, _params: str.strip, loses="white space")


def joinable(node: Node) -> bool:
    """Whether `join` and `text` have one obvious spelling for it."""
    return (
        node in (STRING, DATE) or isinstance(node, Enum) or logical_of(node) == "uuid" or decimal_of(node) is not None
    )


def is_text(node: Node) -> bool:
    """Whether a value of the type is a str already."""
    return node == STRING or isinstance(node, Enum)


def as_text(value: str | int | Decimal | date | UUID) -> str:
    """The one spelling: decimals without exponent, dates as ISO 8601."""
    match value:
        case str():
            return value
        case Decimal():
            return format(value, "f")
        case date():
            return value.isoformat()
        case _:
            return str(value)
