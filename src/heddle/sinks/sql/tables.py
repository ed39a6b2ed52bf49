"""Tables as the sink needs them against tables as they are: the statements that are missing, or why none would do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from heddle.errors import UsageError
from heddle.sinks.sql.layout import LINE_NO, Column, Layout
from heddle.sinks.sql.session import Connection
from heddle.sinks.sql.statements import BOUNDS, EPOCHS, INBOX, composed, raw

# Written as a comment on each table of ours: another Heddle with another format refuses it instead of guessing.
FORMAT = "heddle format 1"

_OURS = {INBOX: ("inbox.sql", "inbox"), EPOCHS: ("epochs.sql", "epochs"), BOUNDS: ("bounds.sql", "bounds")}
_WIDER = {
    "text": ("character varying",),
    "integer": ("bigint", "numeric"),
    "bigint": ("numeric",),
    "real": ("double precision",),
}
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_VARCHAR = re.compile(r"character varying\(\d+\)")


def missing(connection: Connection, layout: Layout) -> list[sql.Composed]:
    """DDL in order, empty when all is there. Raises `UsageError` when what is there cannot serve."""
    statements = list(_schema(connection, layout.schema))
    statements += _data_table(connection, layout, layout.table, _wanted(layout), layout.primary_key)
    if layout.keeps_versions:
        key = tuple(column.name for column in layout.key)
        wanted = [_definition(column) for column in (*layout.key, layout.version)]
        statements += _data_table(connection, layout, layout.versions_table, wanted, key)
        statements += _marked(connection, layout.schema, layout.versions_table)
    for table, (file, part) in _OURS.items():
        name = sql.Identifier(layout.schema, table)
        comment = _comment(connection, layout.schema, table)
        if comment is None:
            statements.append(composed(file, **{part: name}))
        statements += _marked(connection, layout.schema, table)
    return statements


def _wanted(layout: Layout) -> list[tuple[str, str, bool]]:
    """(name, type, not null) in table order."""
    parent = [_definition(column) for column in layout.columns if not column.of_line]
    lines = [_definition(column) for column in layout.columns if column.of_line]
    return [*parent, *([(LINE_NO, "integer", True)] if layout.lines else []), *lines]


def _definition(column: Column) -> tuple[str, str, bool]:
    return column.name, column.type, not column.nullable


def _schema(connection: Connection, schema: str) -> Iterator[sql.Composed]:
    known = connection.execute("select 1 from pg_catalog.pg_namespace where nspname = %s", (schema,)).fetchone()
    if known is None:
        yield sql.SQL("create schema {}").format(sql.Identifier(schema))


def _data_table(
    connection: Connection, layout: Layout, table: str, wanted: Sequence[tuple[str, str, bool]], key: Sequence[str]
) -> Iterator[sql.Composed]:
    names = {"schema": layout.schema, "table": table}
    present = connection.execute(composed("table_columns.sql"), names).fetchall()
    identifier = sql.Identifier(layout.schema, table)
    if not present:
        yield _create(identifier, wanted, key)
        return
    keys = [set(row[0]) for row in connection.execute(composed("table_keys.sql"), names)]
    differences = list(_differences(present, keys, wanted, key))
    if differences:
        raise UsageError(
            f"table {layout.schema}.{table} does not fit its sink: " + "; ".join(differences),
            hint="alter the table, or choose and rename fields with columns=",
        )
    have = {row[0] for row in present}
    for name, kind, _ in wanted:
        if name not in have:
            # Rows that are there already have no value for it, so it may be null.
            yield sql.SQL("alter table {} add column {} {}").format(identifier, sql.Identifier(name), raw(kind))


def _create(identifier: sql.Identifier, wanted: Sequence[tuple[str, str, bool]], key: Sequence[str]) -> sql.Composed:
    columns = [
        sql.SQL("{} {}{}").format(sql.Identifier(name), raw(kind), raw(" not null" if not_null else ""))
        for name, kind, not_null in wanted
    ]
    columns.append(sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))))
    return sql.SQL("create table {} (\n    {}\n)").format(identifier, sql.SQL(",\n    ").join(columns))


def _differences(
    present: Sequence[tuple[str, str, bool]],
    keys: Sequence[set[str]],
    wanted: Iterable[tuple[str, str, bool]],
    key: Sequence[str],
) -> Iterator[str]:
    want = {name: kind for name, kind, _ in wanted}
    for name, have, needs_value in present:
        if name not in want and needs_value:
            yield f"column {name} must have a value and nothing fills it"
        elif name in want and not holds(have, want[name]):
            yield f"column {name} is {have}, wanted is {want[name]}"
    if set(key) not in keys:
        yield f"no primary key or unique constraint over ({', '.join(key)})"


def holds(have: str, want: str) -> bool:
    """Whether a column of type `have` takes every value of `want` without rounding.

    `character varying(n)` is let through: what is longer fails as that one record."""
    if have == want or have in _WIDER.get(want, ()):
        return True
    if want == "text":
        return _VARCHAR.fullmatch(have) is not None
    wanted, given = _NUMERIC.fullmatch(want), _NUMERIC.fullmatch(have)
    if wanted is None or given is None:
        return wanted is not None and have == "numeric"
    precision, scale = int(wanted[1]), int(wanted[2])
    return int(given[2]) >= scale and int(given[1]) - int(given[2]) >= precision - scale


def _comment(connection: Connection, schema: str, table: str) -> str | None:
    """None for no such table, "" for one without comment."""
    row = connection.execute(composed("table_comment.sql"), {"schema": schema, "table": table}).fetchone()
    return None if row is None else str(row[0] or "")


def _marked(connection: Connection, schema: str, table: str) -> Iterator[sql.Composed]:
    comment = _comment(connection, schema, table)
    if comment is None:
        yield sql.SQL("comment on table {} is {}").format(sql.Identifier(schema, table), sql.Literal(FORMAT))
    elif comment != FORMAT:
        raise UsageError(
            f"table {schema}.{table} is marked {comment!r}, not {FORMAT!r}",
            hint="it belongs to another Heddle or to something else: use that version, or another schema",
        )
