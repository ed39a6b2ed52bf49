"""The captured tables of a stream, each in the shape that its latest Relation message gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from heddle.integration import Pulled
from heddle.sources.postgres.catalog import TableInfo, Types
from heddle.sources.postgres.pgoutput import PgoutputError, Relation, Row
from heddle.sources.postgres.records import CapturedRow, row_key
from heddle.sources.postgres.tables import Change, RowReader, Shape, Table, key_places

KeyValues = tuple[bytes | None, ...]


class Declared(Protocol):
    """What a captured table says of itself: whether it is read first, and what a truncate does."""

    @property
    def snapshot(self) -> bool: ...

    @property
    def truncates(self) -> Literal["stop", "ignore"]: ...


class Captured(Protocol):
    """A declared table in one shape, and what its changes become."""

    @property
    def shape(self) -> Shape: ...

    @property
    def unknown_columns(self) -> list[str]:
        """Columns that nobody reads, to be told of."""

    def contract_key_moved(self, old: Row, new: Row) -> bool:
        """Whether an update is told as a deletion and a new row. `old` may hold the key's columns alone."""

    def pulled(self, row: Row, change: Change, event_id: str, key: KeyValues) -> Pulled | None:
        """One change, whose row's key has these values; None where it is nothing to tell."""


class CapturedTable:
    """Implements `Captured`: rows as events of the contract that a `Table` names."""

    __slots__ = ("reader", "shape")

    def __init__(self, table: Table, shape: Shape) -> None:
        self.shape = shape
        self.reader = RowReader(table, shape)

    @property
    def unknown_columns(self) -> list[str]:
        return self.reader.unknown_columns

    def contract_key_moved(self, old: Row, new: Row) -> bool:
        return self.reader.contract_key_moved(old, new)

    def pulled(self, row: Row, change: Change, event_id: str, key: KeyValues) -> CapturedRow:
        return CapturedRow(self.shape, self.reader, row, change, event_id, row_key(self.shape.table, key))


class Tracked(NamedTuple):
    """A captured table as the stream meets it. `key_at`: places of the key's columns."""

    name: str
    captured: Captured
    key_at: Sequence[int]

    def key_of(self, row: Row) -> KeyValues:
        """A key is never null, and the old row holds what is too large to be in the new one."""
        return tuple([row[place] for place in self.key_at])  # type: ignore[misc]


ReadAs = Callable[[str, Shape], Captured]
"""How rows of a table of that name are read, in one shape. Raises `UsageError`."""


class Relations:
    """Of one session. `infos` asks the catalogue again."""

    def __init__(
        self,
        tables: Mapping[str, Declared],
        read_as: ReadAs,
        types: Types,
        infos: Callable[[], dict[str, TableInfo]],
        log: FilteringBoundLogger,
    ) -> None:
        self._tables = tables
        self._read_as = read_as
        self._types = types
        self._ask = infos
        self._infos: dict[str, TableInfo] = {}
        self._log = log
        self._captured: dict[int, Tracked | None] = {}
        self._reported: set[tuple[str, str]] = set()

    def __getitem__(self, oid: int) -> Tracked | None:
        """None for a table that is published and not declared."""
        try:
            return self._captured[oid]
        except KeyError:
            raise PgoutputError("a row came before its table's Relation message") from None

    def learn(self, relation: Relation) -> Tracked | None:
        """Raises `UsageError` where a column is gone that is declared; names each unknown column once."""
        name = self._declared_name(relation)
        if name is None:
            self._captured[relation.oid] = None
            return None
        types = tuple(self._types.name(column.oid) for column in relation.columns)
        columns = tuple(column.name for column in relation.columns)
        captured = self._read_as(name, Shape(name, columns, types, self._key_of(relation, name)))
        self._captured[relation.oid] = tracked = Tracked(name, captured, key_places(captured.shape))
        unknown = [column for column in captured.unknown_columns if (name, column) not in self._reported]
        if unknown:
            self._reported.update((name, column) for column in unknown)
            self._log.warning("columns that the contract does not know", table=name, columns=unknown)
        return tracked

    def _declared_name(self, relation: Relation) -> str | None:
        """Of the table as it is declared. It may have had another name when the log was written, and be called back."""
        name = f"{relation.schema}.{relation.table}"
        if name in self._tables:
            return name
        self._infos = self._infos or self._ask()
        return next((known for known, info in self._infos.items() if info.oid == relation.oid), None)

    def _key_of(self, relation: Relation, name: str) -> tuple[str, ...]:
        """In the order of the index, as snapshots have it. A full identity marks every column, and names no key: then
        it is the one that the table has now, as far as it had those columns then."""
        flagged = {column.name for column in relation.columns if column.is_key}
        is_full = relation.identity == "f"
        if name not in self._infos or (
            relation.oid in self._captured if is_full else flagged != set(self._infos[name].key)
        ):
            self._infos = self._ask()
        known = self._infos[name].key
        if flagged == set(known) or (is_full and flagged >= set(known)):
            return known
        return tuple(column.name for column in relation.columns if column.name in flagged)
