"""The captured tables of a stream, each in the shape that its latest Relation message gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from structlog.typing import FilteringBoundLogger

from heddle.sources.postgres.catalog import TableInfo, Types
from heddle.sources.postgres.pgoutput import PgoutputError, Relation, Row
from heddle.sources.postgres.tables import RowReader, Shape, Table, key_places


class Captured:
    """A declared table, and how its rows are read."""

    __slots__ = ("key_at", "reader", "shape", "table")

    def __init__(self, table: Table, shape: Shape) -> None:
        self.table = table
        self.shape = shape
        self.reader = RowReader(table, shape)
        self.key_at = key_places(shape)

    def key_of(self, row: Row) -> tuple[bytes | None, ...]:
        """A key is never null, and the old row holds what is too large to be in the new one."""
        return tuple([row[place] for place in self.key_at])  # type: ignore[misc]


class Relations:
    """Of one session. `infos` asks the catalogue again."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        types: Types,
        infos: Callable[[], dict[str, TableInfo]],
        log: FilteringBoundLogger,
    ) -> None:
        self._tables = tables
        self._types = types
        self._ask = infos
        self._infos: dict[str, TableInfo] = {}
        self._log = log
        self._captured: dict[int, Captured | None] = {}
        self._reported: set[tuple[str, str]] = set()

    def __getitem__(self, oid: int) -> Captured | None:
        """None for a table that is published and not declared."""
        try:
            return self._captured[oid]
        except KeyError:
            raise PgoutputError("a row came before its table's Relation message") from None

    def learn(self, relation: Relation) -> Captured | None:
        """Raises `UsageError` where a column is gone that is declared; names each unknown column once."""
        name = f"{relation.schema}.{relation.table}"
        table = self._tables.get(name)
        if table is None:
            self._captured[relation.oid] = None
            return None
        types = tuple(self._types.name(column.oid) for column in relation.columns)
        columns = tuple(column.name for column in relation.columns)
        captured = Captured(table, Shape(name, columns, types, self._key_of(relation, name)))
        self._captured[relation.oid] = captured
        unknown = [column for column in captured.reader.unknown_columns if (name, column) not in self._reported]
        if unknown:
            self._reported.update((name, column) for column in unknown)
            self._log.warning("columns that the contract does not know", table=name, columns=unknown)
        return captured

    def _key_of(self, relation: Relation, name: str) -> tuple[str, ...]:
        """In the order of the index, as snapshots have it. A full identity marks every column, and names no key."""
        flagged = {column.name for column in relation.columns if column.is_key}
        if name not in self._infos or (relation.identity != "f" and flagged != set(self._infos[name].key)):
            self._infos = self._ask()
        known = self._infos[name].key
        if relation.identity == "f" or flagged == set(known):
            return known
        return tuple(column.name for column in relation.columns if column.name in flagged)
