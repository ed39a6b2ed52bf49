"""From events to staged rows: plain Python values in column order, made by code that is generated once per layout."""

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
from heddle.integration import Delivered
from heddle.sinks.sql.layout import Column, Layout, not_null

Row = tuple[Any, ...]
Getter = Callable[[Any], Any]

_HEADERS = "ce_id, ce_source or heddle-lineage"
_NO_HEAD = (None,) * 6


class NulInTextError(Exception):
    """PostgreSQL stores no NUL character in text. `path` is the field path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Encoder:
    """Rows of one layout."""

    def __init__(self, layout: Layout) -> None:
        self._parent = _Part(layout, [c for c in layout.columns if not c.of_line], "")
        self._key = _Part(layout, layout.key, "")
        self._lines_of: Getter | None = None
        if layout.lines is not None:
            name = layout.lines.name
            self._line = _Part(layout, [c for c in layout.columns if c.of_line], f"{name}[].")
            self._lines_of = attrgetter(python_name(name))

    def rows(self, staged_index: int, delivered: Delivered[Any]) -> Sequence[Row]:
        """An event as it is staged (see statements.py), without a look for NULs. With lines: one row per element, or
        one of line 0 where there is none; the first of them alone carries what the inbox needs."""
        record, event, body_hash, _, _ = delivered
        source, event_id = event.identity
        head = (staged_index, event_id, source, record.partition, record.offset, event.lineage.revision, body_hash)
        parent = self._parent.values(event.value)
        if self._lines_of is None:
            return (head + parent,)
        lines = self._lines_of(event.value)
        if not lines:
            return ((*head, 0, 0, *parent, *self._line.nulls),)
        values = self._line.values
        rows: list[Row] = [(*head, 1, len(lines), *parent, *values(lines[0]))]
        for number, line in enumerate(lines[1:], 2):
            rows.append((staged_index, *_NO_HEAD, number, None, *parent, *values(line)))
        return rows

    def refuse_nul(self, delivered: Delivered[Any]) -> None:
        """Raises `NulInTextError` where PostgreSQL would refuse a NUL, without saying in which row and column."""
        event = delivered.event
        if any("\0" in text for text in (*event.identity, event.lineage.revision)):
            raise NulInTextError(_HEADERS)
        self._parent.refuse_nul(event.value)
        if self._lines_of is not None:
            for line in self._lines_of(event.value):
                self._line.refuse_nul(line)

    def key(self, value: Any) -> Row:
        """What identifies the event's entity, in `Layout.key` order. Raises `NulInTextError`."""
        self._key.refuse_nul(value)
        return self._key.values(value)


class _Part:
    """The columns that are read from one object: the event's value, or one element of its lines."""

    def __init__(self, layout: Layout, columns: Sequence[Column], prefix: str) -> None:
        self.nulls: Row = (None,) * len(columns)
        self.values = _row_maker(layout, columns)
        texts = [c for c in columns if c.type == "text" and not isinstance(not_null(c.node), Enum)]
        self._paths = [prefix + column.path for column in texts]
        self._texts = _row_maker(layout, texts)

    def refuse_nul(self, source: Any) -> None:
        for path, text in zip(self._paths, self._texts(source), strict=True):
            if text is not None and "\0" in text:
                raise NulInTextError(path)


def _row_maker(layout: Layout, columns: Sequence[Column]) -> Callable[[Any], Row]:
    """A function from an object to its columns as they are staged."""
    names: dict[str, Any] = {}
    terms = "".join(f"{_term(layout, column, names)}, " for column in columns)
    maker: Callable[[Any], Row] = eval(f"lambda value: ({terms})", names)  # noqa: S307 - fields of a generated type
    return maker


def _term(layout: Layout, column: Column, names: dict[str, Any]) -> str:
    read = _read(column, names)
    if layout.staged_type(column) == column.plain_type:
        return read
    if column.type != "jsonb":
        return f"(None if (found := {read}) is None else str(found))" if column.nullable else f"str({read})"
    name = f"json_{len(names)}"
    names[name] = _json_writer(column.node)
    return f"{name}({read})"


def _read(column: Column, names: dict[str, Any]) -> str:
    """An attribute path where nothing on the way can be null, else a call."""
    parts = [python_name(part) for part in column.path.split(".")] if column.path else []
    if len(parts) < 2 or not column.nullable:
        return ".".join(["value", *parts])

    def walk(value: Any) -> Any:
        for part in parts:
            if value is None:
                return None
            value = getattr(value, part)
        return value

    name = f"read_{len(names)}"
    names[name] = walk
    return f"{name}(value)"


def _json_writer(node: Node) -> Callable[[Any], str | None]:
    convert = jsonable(node)
    return lambda value: None if value is None else orjson.dumps(convert(value), default=_scalar).decode()


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
