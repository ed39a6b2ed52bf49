"""The sink's statements, composed once per layout from the .sql files beside this one. Every identifier is quoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

from psycopg import sql

from heddle.sinks.sql.layout import LINE_NO, Column, Layout

INBOX, EPOCHS, BOUNDS = "heddle_inbox", "heddle_epochs", "heddle_inbox_bounds"
_STAGE = sql.Identifier("pg_temp", "heddle_stage")

# `batch_index` is the event's index in its batch, or for a replayed one that index's complement: -1 for the first.
# (column, its type, its type's short name for COPY); then come line_no and line_count where there are lines, then
# the layout's columns as c0, c1, …: so that no field's name can meet one of these.
_STAGED = (
    ("batch_index", "integer not null", "int4"),
    ("ce_id", 'text collate "C"', "text"),
    ("ce_source", 'text collate "C"', "text"),
    ("partition", "integer", "int4"),
    ("offset", "bigint", "int8"),
    ("revision", "text", "text"),
    ("body_hash", "bytea", "bytea"),
)
_STAGED_LINES = (("line_no", "integer not null", "int4"), ("line_count", "integer", "int4"))


@dataclass(frozen=True, slots=True)
class Statements:
    """As bytes, because psycopg would compose them anew for each batch. `copy_types` are for the binary COPY, in the
    order of the staged columns. `merge_staged` takes all that is staged and knows of no replayed events; `merge` takes
    some `indexes` of it, and so does `merge_replayed`, which knows of them."""

    create_stage: bytes
    copy: bytes
    copy_types: tuple[str, ...]
    index_stage: bytes
    drop_stage_index: bytes
    merge_staged: bytes
    merge: bytes
    merge_replayed: bytes
    seen: bytes
    fence_bump: bytes
    fence_check: bytes


def statements_of(layout: Layout) -> Statements:
    schema = layout.schema
    types = [layout.staged_type(column) for column in layout.columns]
    staged = [*_STAGED, *(_STAGED_LINES if layout.lines else ())]
    staged += [(f"c{i}", kind, kind) for i, kind in enumerate(types)]
    parts: dict[str, sql.Composable] = {
        "stage": _STAGE,
        "inbox": sql.Identifier(schema, INBOX),
        "epochs": sql.Identifier(schema, EPOCHS),
    }
    definitions = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), raw(definition)) for name, definition, _ in staged
    )
    names = sql.SQL(", ").join(sql.Identifier(name) for name, _, _ in staged)
    merge = partial(composed, "merge_lines.sql" if layout.lines else "merge_row.sql", **parts, **_merge_parts(layout))
    some = sql.SQL("batch_index = any(%(indexes)s::int4[])")
    statements = {
        "create_stage": sql.SQL("create temporary table {} ({}) on commit delete rows").format(_STAGE, definitions),
        "copy": sql.SQL("copy {} ({}) from stdin (format binary)").format(_STAGE, names),
        "index_stage": sql.SQL("create index heddle_stage_index on {} (batch_index)").format(_STAGE),
        "drop_stage_index": sql.SQL("drop index pg_temp.heddle_stage_index"),
        "merge_staged": merge(meant=sql.SQL("true"), equal_follows=sql.SQL("true")),
        "merge": merge(meant=some, equal_follows=sql.SQL("true")),
        "merge_replayed": merge(meant=some, equal_follows=_is_live(layout)),
        "seen": composed("seen.sql", **parts),
        "fence_bump": composed("fence_bump.sql", **parts),
        "fence_check": composed("fence_check.sql", **parts),
    }
    return Statements(
        copy_types=tuple(_copy_type(kind) for _, _, kind in staged),
        **{name: statement.as_bytes(None) for name, statement in statements.items()},
    )


@dataclass(frozen=True, slots=True)
class Deletion:
    """`delete` takes rows away; `seen` tells of the tombstones that were not new. Their arrays: see `Deleter`."""

    delete: bytes
    seen: bytes


def deletion_of(layout: Layout) -> Deletion:
    key = [column.name for column in layout.key]
    wanted = [f"k{i}" for i in range(len(key))]
    types = [
        raw(f"%({name})s::{layout.staged_type(column)}[]") for name, column in zip(wanted, layout.key, strict=True)
    ]
    parts: dict[str, sql.Composable] = {"inbox": sql.Identifier(layout.schema, INBOX)}
    delete = composed(
        "delete_rows.sql",
        table=sql.Identifier(layout.schema, layout.table),
        versions=sql.Identifier(layout.schema, layout.versions_table),
        keys=sql.SQL(", ").join(types),
        wanted_key=_names(*wanted),
        present_is_wanted=_equal("present", key, "wanted", wanted),
        present_key=sql.SQL(", ").join(sql.Identifier("present", name) for name in key),
        key_columns=_names(*key),
        version_column=sql.Identifier(layout.version.name),
        **parts,
    )
    return Deletion(delete.as_bytes(None), composed("seen_before.sql", **parts).as_bytes(None))


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Reads the rows of entities. Each row: the entity's place among the keys from 1, its number of rows, its values
    as in `Layout.row_names`."""

    select: sql.Composed

    def parameters(self, keys: Sequence[Sequence[Any]], most: int) -> dict[str, Any]:
        columns = zip(*keys, strict=True)
        return {"most": most} | {f"k{i}": list(column) for i, column in enumerate(columns)}


def entity_rows_of(layout: Layout) -> EntityRows:
    key = [column.name for column in layout.key]
    wanted = [f"k{i}" for i in range(len(key))]
    staged = [f"c{i}" for i in range(len(layout.row_names))]
    types = [
        raw(f"%({name})s::{layout.staged_type(column)}[]") for name, column in zip(wanted, layout.key, strict=True)
    ]
    return EntityRows(
        composed(
            "entity_rows.sql",
            table=sql.Identifier(layout.schema, layout.table),
            keys=sql.SQL(", ").join(types),
            wanted_key=_names(*wanted),
            present_is_wanted=_equal("present", key, "wanted", wanted),
            row_order=sql.Identifier("present", LINE_NO) if layout.lines else sql.SQL("wanted.place"),
            staged_columns=_names(*staged),
            present_columns=sql.SQL(", ").join(
                sql.SQL("{} as {}").format(sql.Identifier("present", name), sql.Identifier(place))
                for name, place in zip(layout.row_names, staged, strict=True)
            ),
        )
    )


@cache
def _text(name: str) -> str:
    return files("heddle.sinks.sql").joinpath(name).read_text(encoding="utf-8")


def composed(name: str, **parts: sql.Composable) -> sql.Composed:
    """A .sql file of this package with its {parts} filled in."""
    return raw(_text(name)).format(**parts)


def raw(text: str) -> sql.SQL:
    """SQL text of our own making (a packaged file, a type's name): never anything that came from outside."""
    return sql.SQL(text)


def _copy_type(staged_type: str) -> str:
    """The name under which psycopg knows a type."""
    return {
        "integer": "int4",
        "bigint": "int8",
        "real": "float4",
        "double precision": "float8",
        "boolean": "bool",
        "timestamp with time zone": "timestamptz",
        "timestamp without time zone": "timestamp",
        "time without time zone": "time",
    }.get(staged_type, staged_type)


def _merge_parts(layout: Layout) -> dict[str, sql.Composable]:
    staged = {column.name: f"c{i}" for i, column in enumerate(layout.columns)}
    key = [column.name for column in layout.key]
    columns = [*layout.columns]
    line_no = [LINE_NO] if layout.lines else []
    return {
        "table": sql.Identifier(layout.schema, layout.table),
        "versions": sql.Identifier(layout.schema, layout.versions_table),
        "line_no": sql.Identifier(LINE_NO),
        "columns": _names(*line_no, *(column.name for column in columns)),
        "staged_columns": sql.SQL(", ").join(
            [*map(sql.Identifier, line_no), *(_read(layout, column, staged[column.name]) for column in columns)]
        ),
        "key": _names(*(staged[name] for name in key)),
        "key_order": sql.SQL(", ").join(_ordered(column, staged[column.name]) for column in layout.key),
        "key_columns": _names(*key),
        "version": sql.Identifier(staged[layout.version.name]),
        "version_column": sql.Identifier(layout.version.name),
        "assignments": sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c.name)) for c in columns if c.name not in key
        ),
        "is_not_gone": _is_not_gone(layout, staged),
        "present_is_candidate": _equal("present", key, "candidate", [staged[name] for name in key]),
    }


def _is_not_gone(layout: Layout, staged: Mapping[str, str]) -> sql.Composable:
    """Whether the candidate is newer than a row that a tombstone took away. An equal version follows the log, unless it
    is a replayed one."""
    if not layout.deletes:
        return raw("true")
    key = [column.name for column in layout.key]
    return sql.SQL(
        "not exists (select from {versions} as gone where {same_entity} and"
        " (gone.{version} > candidate.{staged} or gone.{version} = candidate.{staged} and candidate.batch_index < 0))"
    ).format(
        versions=sql.Identifier(layout.schema, layout.versions_table),
        same_entity=_equal("gone", key, "candidate", [staged[name] for name in key]),
        version=sql.Identifier(layout.version.name),
        staged=sql.Identifier(staged[layout.version.name]),
    )


def _is_live(layout: Layout) -> sql.Composed:
    """Whether the event that is about to replace the row `present` is none that was replayed."""
    staged = {column.name: f"c{i}" for i, column in enumerate(layout.columns)}
    key = [column.name for column in layout.key]
    return sql.SQL("({}) not in (select {} from candidate where batch_index < 0)").format(
        sql.SQL(", ").join(sql.Identifier("present", name) for name in key), _names(*(staged[name] for name in key))
    )


def _read(layout: Layout, column: Column, staged_name: str) -> sql.Composable:
    """As the table has it."""
    name = sql.Identifier(staged_name)
    plain = column.plain_type
    return name if layout.staged_type(column) == plain else sql.SQL("{}::{}").format(name, raw(plain))


def _ordered(column: Column, staged_name: str) -> sql.Composable:
    """By bytes, which is as good an order as any and needs no rules of a language."""
    name = sql.Identifier(staged_name)
    return sql.SQL('{} collate "C"').format(name) if column.type == "text" else name


def _names(*names: str) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _equal(left: str, left_names: Iterable[str], right: str, right_names: Iterable[str]) -> sql.Composable:
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
        for a, b in zip(left_names, right_names, strict=True)
    )
