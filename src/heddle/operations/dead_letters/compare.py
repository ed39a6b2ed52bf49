"""How values of payloads compare with what a person writes: amounts as written, times as text, never an error."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from heddle.contracts.schema import MISSING

Test = Callable[[Any, Any], bool]


def as_decimal(number: float) -> Decimal:
    """As it is written: 0.1 is a tenth, not the nearest binary fraction."""
    return Decimal(repr(number))


def is_time(value: object) -> bool:
    """Whether a text can stand for a moment."""
    return isinstance(value, str) and isinstance(_moment(value), datetime)


def equal(left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    return bool(left == right)


def contains(member: Any, container: Any) -> bool:
    """An item of a list, a name of a map, or a part of a text."""
    container = _plain(container)
    if isinstance(container, str):
        return isinstance(member, str) and member in container
    if isinstance(container, list | dict):
        return any(equal(member, each) for each in container)
    return False


def _ordered(test: Callable[[Any, Any], Any]) -> Test:
    def compared(left: Any, right: Any) -> bool:
        left, right = _alike(left, right)
        if left is None or right is None:
            return False
        try:
            return bool(test(left, right))
        except (TypeError, InvalidOperation):
            return False

    return compared


COMPARISONS: Final[dict[type[ast.cmpop], Test]] = {
    ast.Eq: equal,
    ast.NotEq: lambda left, right: not equal(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: contains,
    ast.NotIn: lambda left, right: not contains(left, right),
}


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    left, right = _plain(left), _plain(right)
    for here, there in ((left, right), (right, left)):
        if isinstance(here, datetime) and isinstance(there, str | date):
            return _moment(left), _moment(right)
        if isinstance(here, date) and isinstance(there, str):
            return _day(left), _day(right)
        if isinstance(here, Decimal) and isinstance(there, float):
            return _exact(left), _exact(right)
    return left, right


def _plain(value: Any) -> Any:
    match value:
        case UUID() | time() | timedelta():
            return str(value)
        case bytes():
            return value.decode(errors="backslashreplace")
        case datetime():
            return _moment(value)
        case tuple():
            return list(value)
        case _:
            return None if value is MISSING else value


def _exact(value: Any) -> Any:
    return as_decimal(value) if isinstance(value, float) else value


def _moment(value: Any) -> Any:
    """Aware, in UTC where nothing else is said; what is no moment stays what it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _day(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return value
    return value
