"""A captured table as it is declared, and what makes contract events of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from heddle.contracts import contract_of
from heddle.contracts.contract import Contract
from heddle.contracts.naming import python_name
from heddle.contracts.schema import Field
from heddle.errors import ContractError, UsageError
from heddle.event import Draft
from heddle.sources.postgres.pgoutput import Row, Unchanged, Value
from heddle.sources.postgres.values import Reader, fitted_reader, reader_of

Source = str | Callable[["RowView"], Any] | None
Deletes = type | Literal["tombstone"] | None
Operation = Literal["insert", "update", "delete", "snapshot"]

EPOCH_2000: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Table:
    """Rows of one table as events of one contract.

    A field is read from the column of its name. `columns` says otherwise, by field: the name of another column, a
    function of the row (`RowView`), or None to leave the field at its default.

    `deletes`: "tombstone" (a record with the key and no value), a contract type that is made of what the log has of
    the deleted row (of the key's columns; of all with replica identity full), or None. When an update changes the key,
    the old key gets the same. `truncates`: "stop" until a person decides, or "ignore". `snapshot`: whether the rows
    that are there already are read as well."""

    def __init__(
        self,
        name: str,
        *,
        emits: type,
        columns: Mapping[str, Source] | None = None,
        deletes: Deletes = "tombstone",
        truncates: Literal["stop", "ignore"] = "stop",
        snapshot: bool = True,
    ) -> None:
        if name.count(".") != 1 or not all(name.split(".")):
            raise UsageError(f"table {name!r} is not schema.table", hint="for example public.customer")
        self.name = name
        self.emits = emits
        self.columns = dict(columns or {})
        self.deletes = deletes
        self.truncates = truncates
        self.snapshot = snapshot
        fields = {field.name for cls in self.contracts for field in contract_of(cls).root.fields}
        unknown = sorted(self.columns.keys() - fields)
        if unknown:
            raise UsageError(
                f"table {name}: columns= names {', '.join(unknown)}, which no contract of it has",
                hint="write columns={'field': 'column'}",
            )

    @property
    def contracts(self) -> tuple[type, ...]:
        return (self.emits, self.deletes) if isinstance(self.deletes, type) else (self.emits,)

    def named_columns(self, cls: type) -> dict[str, str]:
        """Fields of a contract that are read from a column, each with its name."""
        wanted = {field.name: self.columns.get(field.name, field.name) for field in contract_of(cls).root.fields}
        return {field: column for field, column in wanted.items() if isinstance(column, str)}


class Shape(NamedTuple):
    """What rows of a table look like at one point of the log. `types`: by catalogue name. `key`: columns of it."""

    table: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]


class Change(NamedTuple):
    """One change, or one row of a snapshot. `ordinal` counts the changes of the transaction; `time_us`: of its commit,
    since 2000-01-01 UTC."""

    operation: Operation
    lsn: int
    ordinal: int
    time_us: int

    @property
    def time(self) -> datetime:
        return EPOCH_2000 + timedelta(0, 0, self.time_us)

    @property
    def version(self) -> str:
        """Orders the versions of one row, as text: `0000000001A2B3C8/0000000012`."""
        return f"{self.lsn:016X}/{self.ordinal:010d}"


class RowView(Mapping[str, Any]):
    """A row as a function of `columns=` gets it: values by column name, and of which change it is.

    A column whose value the log does not hold raises `ContractError`, one that is not there `KeyError`."""

    def __init__(self, shape: Shape, readers: dict[str, Reader], row: Row, change: Change) -> None:
        self._row = dict(zip(shape.names, row, strict=True))
        self._readers = readers
        self.operation = change.operation
        self.lsn = change.lsn
        self.ordinal = change.ordinal
        self.version = change.version
        self.commit_time = change.time

    def __getitem__(self, column: str) -> Any:
        return _value(self._row[column], self._readers[column], column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


class RowReader:
    """Events of a table's rows, for one shape. Raises `UsageError` where a column is missing that is declared."""

    def __init__(self, table: Table, shape: Shape) -> None:
        self._table = table
        self._shape = shape
        self._readers = {name: reader_of(kind) for name, kind in zip(shape.names, shape.types, strict=True)}
        self._value = self._builder(table.emits)
        self._event_of_deleted = self._builder(table.deletes) if isinstance(table.deletes, type) else None
        self._key_fields = self._key_plan()

    @property
    def unknown_columns(self) -> list[str]:
        """Columns that no field is read from."""
        known = {column for cls in self._table.contracts for column in self._table.named_columns(cls).values()}
        return [name for name in self._shape.names if name not in known]

    def of_row(self, row: Row, event_id: str, change: Change) -> list[Draft[Any]]:
        return [Draft(self._value(row, change), event_id, change.time)]

    def of_deleted(self, row: Row, event_id: str, change: Change) -> list[Draft[Any]]:
        """`row` may hold the key's columns alone."""
        if self._table.deletes is None:
            return []
        if self._event_of_deleted is not None:
            return [Draft(self._event_of_deleted(row, change), event_id, change.time)]
        return [Draft(self.contract_key(row), event_id, change.time, deletes=self._table.emits)]

    def contract_key(self, row: Row) -> dict[str, Any]:
        """The fields that make the record's key. Raises `ContractError` where the log does not hold them."""
        if self._key_fields is None:
            raise ContractError(
                f"the key of {contract_of(self._table.emits).name} is not read from columns, so a deleted row has none",
                hint="read its fields from columns, or say deletes=None",
            )
        return {name: _value(row[index], reader, name) for name, index, reader in self._key_fields}

    def contract_key_moved(self, old: Row, new: Row) -> bool:
        """Whether an update gave the row another key in the contract. `old` may hold the key's columns alone, and then
        tells of those only. Of a key that functions make, every change of the row's own key counts."""
        if self._key_fields is None:
            places: Iterable[int] = key_places(self._shape)
        else:
            places = [index for _, index, _ in self._key_fields]
        return any(
            old[place] is not None and not isinstance(new[place], Unchanged) and old[place] != new[place]
            for place in places
        )

    def _key_plan(self) -> list[tuple[str, int, Reader]] | None:
        contract = contract_of(self._table.emits)
        columns = self._table.named_columns(self._table.emits)
        wanted = (*contract.metadata.key, *filter(None, (contract.metadata.tenant,)))
        if not all(name in columns for name in wanted):
            return None
        fields = {field.name: field for field in contract.root.fields}
        return [(name, *self._place(fields[name], columns[name])) for name in wanted]

    def _place(self, field: Field, column: str) -> tuple[int, Reader]:
        try:
            index = self._shape.names.index(column)
        except ValueError:
            raise UsageError(
                f"{self._shape.table} has no column {column}, from which the field {field.name} is read, or its "
                "publication leaves it out",
                hint="name another column or a function in columns=, then start the source again: nothing is lost",
            ) from None
        return index, fitted_reader(self._shape.types[index], field.type)

    def _builder(self, cls: type) -> Callable[[Row, Change], Any]:
        contract: Contract = contract_of(cls)
        plain: list[tuple[str, str, int, Reader | None]] = []
        computed: list[tuple[str, Callable[[RowView], Any]]] = []
        for field in contract.root.fields:
            source = self._table.columns.get(field.name, field.name)
            if isinstance(source, str):
                index, reader = self._place(field, source)
                plain.append((python_name(field.name), field.name, index, None if reader is str else reader))
            elif source is not None:
                computed.append((python_name(field.name), source))
        shape, readers = self._shape, self._readers

        def build(row: Row, change: Change) -> Any:
            values: dict[str, Any] = {}
            path = ""
            try:
                for name, path, index, reader in plain:  # noqa: B007  # path is told of what fails
                    raw = row[index]
                    if raw is None:
                        values[name] = None
                    else:
                        text = raw.decode()  # type: ignore[union-attr]  # what is UNCHANGED has none: see below
                        values[name] = text if reader is None else reader(text)
            except AttributeError:
                raise _unchanged(path) from None
            except ContractError as error:
                raise ContractError(str(error), path=path) from error
            if computed:
                view = RowView(shape, readers, row, change)
                for name, function in computed:
                    values[name] = function(view)
            return cls(**values)

        return build


def _value(raw: Value, reader: Reader, path: str) -> Any:
    if isinstance(raw, Unchanged):
        raise _unchanged(path)
    return None if raw is None else reader(raw.decode())


def _unchanged(path: str) -> ContractError:
    return ContractError(
        "a large value that this update did not touch, so that the log does not hold it",
        path=path,
        hint="`alter table … replica identity full`, then `heddle snapshot` for the table",
    )


def filled(new: Row, old: Row) -> Row:
    """A new row with what the update left alone taken from the old one.

    Of the old row the log may have the key alone, and nulls beside it; of a partition whose replica identity is less
    than its table's it then calls them the full row. A value that was left alone is no null, so it stays unknown."""
    return tuple(
        [
            before if isinstance(after, Unchanged) and before is not None else after
            for after, before in zip(new, old, strict=True)
        ]
    )


def key_places(shape: Shape) -> Sequence[int]:
    return [shape.names.index(name) for name in shape.key]
