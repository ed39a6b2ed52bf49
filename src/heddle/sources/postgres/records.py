"""One captured row as the worker takes it, and as the raw topic keeps it where it does not convert."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from heddle.errors import ContractError
from heddle.event import Draft, entity_key
from heddle.sources.postgres.pgoutput import UNCHANGED, Row, Unchanged
from heddle.sources.postgres.tables import Change, RowReader, Shape, Table

FORMAT_VERSION = 1
_PLAIN_KEY = b"default/"


class CapturedRow:
    """Implements `heddle.integration.Pulled`. `key`: the table and the row's own key, so that what is of one row stays
    in order."""

    __slots__ = ("_change", "_reader", "_row", "_shape", "id", "key")

    def __init__(self, shape: Shape, reader: RowReader, row: Row, change: Change, event_id: str, key: bytes) -> None:
        self._shape = shape
        self._reader = reader
        self._row = row
        self._change = change
        self.id = event_id
        self.key = key

    def drafts(self) -> Iterable[Draft[Any]]:
        if self._change.operation == "delete":
            return self._reader.of_deleted(self._row, self.id, self._change)
        return self._reader.of_row(self._row, self.id, self._change)

    def pack(self) -> bytes:
        """`values`: text as PostgreSQL writes it, null, or `[]` for what the log does not hold."""
        shape, change = self._shape, self._change
        values: list[Any] = [[] if isinstance(v, Unchanged) else None if v is None else v.decode() for v in self._row]
        return orjson.dumps(
            {
                "v": FORMAT_VERSION,
                "id": self.id,
                "change": list(change),
                "table": shape.table,
                "key": shape.key,
                "columns": dict(zip(shape.names, zip(shape.types, values, strict=True), strict=True)),
            }
        )


def drafts_of(packed: bytes | None, tables: dict[str, Table]) -> Iterable[Draft[Any]]:
    """The events of a row that `pack` kept, by the tables as they are declared now. Raises `ContractError`."""
    try:
        found = orjson.loads(packed or b"")
        if found["v"] != FORMAT_VERSION:
            raise ValueError(found["v"])
        names = tuple(found["columns"])
        types, values = zip(*found["columns"].values(), strict=True)
        shape = Shape(found["table"], names, types, tuple(found["key"]))
        row = tuple(UNCHANGED if v == [] else None if v is None else v.encode() for v in values)
        change, event_id = Change(*found["change"]), found["id"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ContractError("the raw record holds no row", hint="only the source writes to its raw topic") from error
    if shape.table not in tables:
        raise ContractError(f"{shape.table} is not captured any more", hint="declare it again, or discard the entry")
    captured = CapturedRow(shape, RowReader(tables[shape.table], shape), row, change, event_id, b"")
    return captured.drafts()


def row_key(table: str, values: tuple[bytes | Unchanged | None, ...]) -> bytes:
    """`entity_key` of table and key values; plain ones, the most by far, need no escaping."""
    if len(values) == 1 and isinstance(values[0], bytes) and values[0].isalnum() and table.isascii():
        return _PLAIN_KEY + table.encode() + b"%3A" + values[0]
    texts = [value.decode() if isinstance(value, bytes) else "" for value in values]
    # A separator that is escaped inside of a value, so that no two keys are one.
    escaped = [text.replace("\\", "\\\\").replace(",", "\\,") for text in texts]
    return entity_key(f"{table}:{','.join(escaped)}")
