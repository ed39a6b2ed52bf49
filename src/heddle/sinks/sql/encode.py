"""From a contract value to staged rows: plain Python values in column order, made by getters compiled once."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

import orjson

from heddle.contracts.naming import python_name
from heddle.contracts.schema import Array, Enum, Map, Node, Record, Union
from heddle.sinks.sql.layout import Column, Layout, not_null

Row = list[Any]
Getter = Callable[[Any], Any]


class NulInTextError(Exception):
    """PostgreSQL stores no NUL character in text. `path` is the field path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Encoder:
    """Rows of one layout. `rows` gives one list per row, in `Layout.columns` order."""

    def __init__(self, layout: Layout) -> None:
        self.has_lines = layout.lines is not None
        self._parent = _Part([c for c in layout.columns if not c.of_line], "")
        self._key = _Part(layout.key, "")
        if layout.lines is not None:
            name = layout.lines.name
            self._line = _Part([c for c in layout.columns if c.of_line], f"{name}[].")
            self._lines_of = attrgetter(python_name(name))

    def rows(self, value: Any) -> list[Row]:
        """Raises `NulInTextError`. With lines: one row per element, perhaps none."""
        parent = self._parent.values(value)
        if not self.has_lines:
            return [parent]
        return [parent + self._line.values(line) for line in self._lines_of(value)]

    def key(self, value: Any) -> Row:
        """What identifies the event's entity, in `Layout.key` order. Raises `NulInTextError`."""
        return self._key.values(value)

    def head(self, value: Any) -> Row:
        """The parent's columns alone, the line's null: what an event without lines is staged as."""
        return self._parent.values(value) + [None] * self._line.width


class _Part:
    """The columns that are read from one object: the event's value, or one element of its lines."""

    def __init__(self, columns: Sequence[Column], prefix: str) -> None:
        self.width = len(columns)
        self._get = _tuple_getter([_getter(column) for column in columns])
        self._json = [(i, jsonable(c.node)) for i, c in enumerate(columns) if c.type == "jsonb"]
        self._text = [
            (i, prefix + c.path)
            for i, c in enumerate(columns)
            if c.type == "text" and not isinstance(not_null(c.node), Enum)
        ]

    def values(self, source: Any) -> Row:
        row: Row = list(self._get(source))
        for i, convert in self._json:
            if row[i] is not None:
                row[i] = orjson.dumps(convert(row[i]), default=_scalar).decode()
        for i, path in self._text:
            text = row[i]
            if text is not None and "\0" in text:
                raise NulInTextError(path)
        return row


def jsonable(node: Node) -> Getter:
    """A function from a contract value to what orjson writes without loss."""
    match not_null(node):
        case Record(fields=fields):
            parts = [(f.name, attrgetter(python_name(f.name)), _nullable(f.type)) for f in fields]
            return lambda value: {name: convert(get(value)) for name, get, convert in parts}
        case Array(items=items):
            convert_item = _nullable(items)
            return lambda value: [convert_item(item) for item in value]
        case Map(values=values):
            convert_value = _nullable(values)
            return lambda value: {key: convert_value(item) for key, item in value.items()}
        case Union(branches=branches):
            records = {b.short_name: jsonable(b) for b in branches if isinstance(b, Record)}
            return lambda value: records.get(type(value).__name__, _scalar)(value)
        case _:
            return _scalar


def _nullable(node: Node) -> Getter:
    convert = jsonable(node)
    if not isinstance(node, Union):
        return convert
    return lambda value: None if value is None else convert(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _getter(column: Column) -> Getter | str:
    """An attribute path where nothing on the way can be null, else a function."""
    parts = [python_name(part) for part in column.path.split(".")] if column.path else []
    if not parts:
        return lambda value: value
    if len(parts) == 1 or not column.nullable:
        return ".".join(parts)

    def walk(value: Any) -> Any:
        for part in parts:
            if value is None:
                return None
            value = getattr(value, part)
        return value

    return walk


def _tuple_getter(getters: Sequence[Getter | str]) -> Callable[[Any], Sequence[Any]]:
    """All at once in C where every getter is an attribute path."""
    paths = [getter for getter in getters if isinstance(getter, str)]
    if len(paths) == len(getters) > 1:
        return attrgetter(*paths)
    functions = [attrgetter(getter) if isinstance(getter, str) else getter for getter in getters]
    return lambda value: [function(value) for function in functions]
