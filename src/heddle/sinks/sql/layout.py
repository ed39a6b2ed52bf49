"""From a contract to table columns: names, PostgreSQL types, and where each value comes from.

Types: string, enum → text · int → integer · long → bigint · float → real · double → double precision · boolean ·
bytes, fixed → bytea · decimal(p,s) → numeric(p,s) · date, time, uuid · timestamp-* → timestamp with time zone ·
local-timestamp-* → timestamp without time zone · record, array, map, union of several → jsonb (decimals as strings,
bytes as base64, NaN and infinities as strings: nothing is rounded).

A nested record is one jsonb column; `columns={"city": "address.city"}` takes single fields out of it instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heddle.contracts import Contract
from heddle.contracts.schema import Array, Enum, Field, Fixed, Map, Node, Primitive, Record, Union
from heddle.errors import UsageError

LINE_NO = "line_no"
VERSIONS_PREFIX = "heddle_versions_"
MAX_IDENTIFIER_BYTES = 63
MAX_NUMERIC_DIGITS = 1000

_KINDS = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double precision",
    "bytes": "bytea",
    "string": "text",
    "null": "text",
}
_LOGICAL = {
    "date": "date",
    "time-millis": "time without time zone",
    "time-micros": "time without time zone",
    "timestamp-millis": "timestamp with time zone",
    "timestamp-micros": "timestamp with time zone",
    "local-timestamp-millis": "timestamp without time zone",
    "local-timestamp-micros": "timestamp without time zone",
    "uuid": "uuid",
}
_VERSION_TYPES = ("integer", "bigint", "numeric", "date", "timestamp with time zone", "timestamp without time zone")
_UNKEYED_TYPES = ("jsonb", "real", "double precision")


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `path` is the field path in the contract; `of_line`: in the array's element, without its name."""

    name: str
    path: str
    type: str
    nullable: bool
    node: Node
    of_line: bool = False

    @property
    def plain_type(self) -> str:
        """Without limits."""
        return self.type.partition("(")[0]


@dataclass(frozen=True, slots=True)
class Layout:
    """A table as the sink needs it. `lines`: the array field whose elements are rows, or None for a row per event.

    With `lines`, an event may have no row at all, so entity versions live in a table of their own. With `deletes`
    (tombstones take rows away), those of deleted entities do."""

    schema: str
    table: str
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    version: Column
    lines: Field | None
    deletes: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def versions_table(self) -> str:
        return VERSIONS_PREFIX + self.table

    @property
    def keeps_versions(self) -> bool:
        return self.lines is not None or self.deletes

    @property
    def primary_key(self) -> tuple[str, ...]:
        names = tuple(column.name for column in self.key)
        return (*names, LINE_NO) if self.lines else names

    @property
    def row_names(self) -> tuple[str, ...]:
        """The columns of a row as they stand in the table."""
        parent = [column.name for column in self.columns if not column.of_line]
        lines = [column.name for column in self.columns if column.of_line]
        return (*parent, *([LINE_NO] if self.lines else []), *lines)

    def staged_type(self, column: Column) -> str:
        """The type in the staging table: without limits, so that what does not fit fails one record, not the COPY.

        JSON is staged as text, so that text which is no JSON for PostgreSQL fails its record too. So are decimals, for
        which psycopg takes ten times as long in binary, except keys and versions, which are compared as staged."""
        as_text = column.type == "jsonb" or (
            column.plain_type == "numeric" and column not in self.key and column != self.version
        )
        return "text" if as_text else column.plain_type

    def path_of(self, column: str) -> str:
        """The field path that fills a column, or the column's own name."""
        for known in self.columns:
            if known.name == column:
                return f"{self.lines.name}[].{known.path}" if known.of_line and self.lines else known.path
        return column


def layout_of(
    contract: Contract,
    table: str,
    key: tuple[str, ...],
    version: str,
    rows: str | None,
    columns: Mapping[str, str] | Sequence[str] | None,
    *,
    deletes: bool = False,
) -> Layout:
    """Raises `UsageError` for a declaration that does not fit the contract."""
    schema, dot, name = table.partition(".")
    if not (schema and dot and name) or "." in name:
        raise UsageError(f"table {table!r} is not schema.table", hint="for example table='ledger.invoice'")
    lines = _lines_field(contract.root, rows) if rows else None
    chosen = _columns(contract.root, lines, columns)
    by_name = {column.name: column for column in chosen}
    keys = tuple(_key_column(by_name, key_name, table) for key_name in key)
    layout = Layout(schema, name, chosen, keys, _version_column(by_name, version, key, table), lines, deletes)
    _check_names(layout)
    if deletes:
        _check_deletable(layout, contract)
    return layout


def sql_type(node: Node) -> tuple[str, bool]:
    """(PostgreSQL type, whether null is allowed)."""
    match node:
        case Union(branches=branches) if node.null_index is not None and len(branches) == 2:
            return sql_type(branches[1 - node.null_index])[0], True
        case Primitive() | Fixed():
            return _scalar_type(node), node == Primitive("null")
        case Enum():
            return "text", False
        case _:
            return "jsonb", isinstance(node, Union) and node.null_index is not None


def not_null(node: Node) -> Node:
    """The other branch of a union with null."""
    if isinstance(node, Union) and node.null_index is not None and len(node.branches) == 2:
        return node.branches[1 - node.null_index]
    return node


def _scalar_type(node: Primitive | Fixed) -> str:
    if node.logical is not None and node.logical.name == "decimal":
        fits = node.logical.precision <= MAX_NUMERIC_DIGITS
        return f"numeric({node.logical.precision},{node.logical.scale})" if fits else "numeric"
    if node.logical is not None:
        return _LOGICAL[node.logical.name]
    return "bytea" if isinstance(node, Fixed) else _KINDS[node.kind]


def _lines_field(root: Record, rows: str) -> Field:
    field = next((f for f in root.fields if f.name == rows), None)
    if field is None or not isinstance(field.type, Array):
        arrays = ", ".join(f.name for f in root.fields if isinstance(f.type, Array)) or "none"
        raise UsageError(f"rows={rows!r} is no array field of {root.name}", hint=f"its array fields: {arrays}")
    return field


def _columns(
    root: Record, lines: Field | None, columns: Mapping[str, str] | Sequence[str] | None
) -> tuple[Column, ...]:
    if columns is None:
        chosen = _all_columns(root, lines)
    else:
        paths = columns if isinstance(columns, Mapping) else {path.rpartition(".")[2]: path for path in columns}
        chosen = [_column(root, lines, name, path) for name, path in paths.items()]
    repeated = {c.name for c in chosen if sum(c.name == other.name for other in chosen) > 1}
    if repeated:
        raise UsageError(
            f"two columns would be named {', '.join(sorted(repeated))}",
            hint='name them apart: columns={"line_amount": "lines.amount", …}',
        )
    return tuple(sorted(chosen, key=lambda column: column.of_line))


def _all_columns(root: Record, lines: Field | None) -> list[Column]:
    """Every field; with lines: the scalar fields of the parent, then every field of the element."""
    if lines is None:
        return [_column(root, None, f.name, f.name) for f in root.fields]
    parent = [f for f in root.fields if f is not lines and not isinstance(not_null(f.type), Record | Array | Map)]
    element = lines.type.items if isinstance(lines.type, Array) else lines.type
    chosen = [_column(root, lines, f.name, f.name) for f in parent]
    if isinstance(element, Record):
        chosen += [_column(root, lines, f.name, f"{lines.name}.{f.name}") for f in element.fields]
    else:
        chosen.append(_column(root, lines, lines.name, lines.name))
    return chosen


def _column(root: Record, lines: Field | None, name: str, path: str) -> Column:
    if lines is not None and path.partition(".")[0] == lines.name:
        assert isinstance(lines.type, Array)
        inner = path.partition(".")[2]
        node, nullable = _resolve(lines.type.items, inner, path)
        return _typed(name, inner, node, nullable, of_line=True)
    node, nullable = _resolve(root, path, path)
    return _typed(name, path, node, nullable, of_line=False)


def _typed(name: str, path: str, node: Node, nullable: bool, *, of_line: bool) -> Column:
    kind, null = sql_type(node)
    return Column(name, path, kind, nullable or null, node, of_line)


def _resolve(node: Node, path: str, whole: str) -> tuple[Node, bool]:
    """The type at a field path, and whether a record on the way may be null."""
    nullable = False
    for part in path.split(".") if path else ():
        inner = not_null(node)
        nullable = nullable or inner is not node
        fields = inner.fields if isinstance(inner, Record) else ()
        found = next((f for f in fields if f.name == part), None)
        if found is None:
            known = ", ".join(f.name for f in fields) or "it is not a record"
            raise UsageError(f"columns: the contract has no field {whole}", hint=f"beside {part}: {known}")
        node = found.type
    return node, nullable


def _key_column(columns: Mapping[str, Column], name: str, table: str) -> Column:
    column = _named(columns, name, "key", table)
    if column.nullable or column.of_line or column.type in _UNKEYED_TYPES:
        raise UsageError(
            f"{table}: key column {name} is nullable, of a line, or of a type that cannot identify an entity",
            hint="use required fields of type string, integer, decimal, date, timestamp, uuid, enum, boolean or bytes",
        )
    return column


def _version_column(columns: Mapping[str, Column], name: str, key: Iterable[str], table: str) -> Column:
    column = _named(columns, name, "version", table)
    if column.nullable or column.of_line or column.name in key or column.plain_type not in _VERSION_TYPES:
        raise UsageError(
            f"{table}: version column {name} cannot order the versions of an entity",
            hint="use a required integer, decimal, date or timestamp field that is not part of the key",
        )
    return column


def _named(columns: Mapping[str, Column], name: str, role: str, table: str) -> Column:
    try:
        return columns[name]
    except KeyError:
        raise UsageError(
            f"{table}: {role}={name!r} is not one of its columns", hint=f"its columns: {', '.join(columns)}"
        ) from None


def _check_deletable(layout: Layout, contract: Contract) -> None:
    """Of a tombstone the contract's key is known, and nothing else."""
    metadata = contract.metadata
    known = {*metadata.key, *filter(None, [metadata.tenant])}
    if {column.path for column in layout.key} != known:
        raise UsageError(
            f"{layout.full_name}: its key is not that of {contract.name}, so no tombstone says which rows to delete",
            hint=f"a key of {', '.join(sorted(known))}, or another on_tombstone=",
        )


def _check_names(layout: Layout) -> None:
    names = [layout.schema, layout.table, *(column.name for column in layout.columns)]
    if layout.keeps_versions:
        names.append(layout.versions_table)
    if layout.lines and any(column.name == LINE_NO for column in layout.columns):
        raise UsageError(
            f"{layout.full_name}: {LINE_NO} is the sink's own column",
            hint=f"rename the field's column with columns={{'other_name': '{LINE_NO}', …}}",
        )
    for name in names:
        if not name or "\0" in name or len(name.encode()) > MAX_IDENTIFIER_BYTES:
            raise UsageError(f"{layout.full_name}: {name!r} is empty, or longer than {MAX_IDENTIFIER_BYTES} bytes")
