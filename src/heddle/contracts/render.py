"""Schema defaults as Python source, for generated types."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.naming import python_name, type_name
from heddle.contracts.schema import Array, Map, Node, Record, Union
from heddle.contracts.values import branch_of_default, default_value

Namer = Callable[[str], str]


def render_default(node: Node, default: Any, major: int, name: Namer) -> str:
    """The expression after `=` in a dataclass; `name` imports a name and says how to write it."""
    branch = branch_of_default(node, default) if isinstance(node, Union) else node
    text = _render(branch, default, major, name)
    if isinstance(branch, Map | Record):
        return f"{name('field')}(default_factory={'dict' if text == '{}' else f'lambda: {text}'})"
    return text


def _render(node: Node, default: Any, major: int, name: Namer) -> str:
    match node:
        case Union():
            return _render(branch_of_default(node, default), default, major, name)
        case Array():
            items = [_render(node.items, item, major, name) for item in default]
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        case Map():
            items = [f"{_quote(key)}: {_render(node.values, item, major, name)}" for key, item in default.items()]
            return "{" + ", ".join(items) + "}"
        case Record():
            given = [
                f"{python_name(f.name)}={_render(f.type, default.get(f.name, f.default), major, name)}"
                for f in node.fields
            ]
            return f"{name(type_name(node.name, major))}({', '.join(given)})"
        case _:
            return _scalar(default_value(node, default), name)


def _scalar(value: Any, name: Namer) -> str:
    match value:
        case Decimal():
            return f'{name("Decimal")}("{value}")'
        case UUID():
            return f'{name("UUID")}("{value}")'
        case datetime():
            zone = f", tzinfo={name('UTC')}" if value.tzinfo else ""
            parts = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
            return f"{name('datetime')}({', '.join(map(str, parts))}{zone})"
        case date():
            return f"{name('date')}({value.year}, {value.month}, {value.day})"
        case time():
            return f"{name('time')}({value.hour}, {value.minute}, {value.second}, {value.microsecond})"
        case float() if value != value or value in (float("inf"), float("-inf")):
            return f'float("{value}")'
        case str() | bytes():
            return _quote(value)
        case _:
            return repr(value)


def _quote(text: str | bytes) -> str:
    """`repr` in double quotes, as formatters want it, unless that needs escapes: with an apostrophe and no double
    quote in it `repr` chooses them itself."""
    if isinstance(text, bytes):
        return repr(text) if b'"' in text else repr(text + b"'")[:-2] + '"'
    return repr(text) if '"' in text else repr(text + "'")[:-2] + '"'
