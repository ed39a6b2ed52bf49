"""The outbox's table: its columns, what is wrong with them, and the statements that read and prune it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from psycopg import sql

from heddle.errors import UsageError
from heddle.sources.postgres import catalog
from heddle.sources.postgres.catalog import Publication, TableInfo
from heddle.sources.postgres.checks import Finding
from heddle.sources.postgres.session import Session

_TEXT: Final = ("text", "varchar", "uuid", "bpchar", "citext")
_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "id": (*_TEXT, "int8", "int4"),
    "aggregatetype": _TEXT,
    "aggregateid": (*_TEXT, "int8", "int4"),
    "type": _TEXT,
    "payload": ("json", "jsonb", "text", "varchar", "bytea"),
    "seq": ("int8",),
    "xid": ("xid8",),
    "created_at": ("timestamptz",),
}
PLAIN_COLUMNS: Final = ("id", "aggregatetype", "aggregateid", "type", "payload")
"""Debezium's, which are enough where the log tells the order."""

_ADDED: Final = {
    "seq": "alter table {} add column seq bigint generated always as identity unique",
    "xid": "alter table {} add column xid xid8 not null default pg_current_xact_id()",
    "created_at": "alter table {} add column created_at timestamptz not null default now()",
}
"""What a table of Debezium's convention lacks to be polled, and the statement that adds it."""

PAGE_COLUMNS: Final = (
    "id::text, coalesce(aggregatetype::text, ''), coalesce(aggregateid::text, ''), "
    "coalesce(type::text, ''), {payload}, coalesce(created_at::text, ''), seq"
)
PageRow = tuple[str, str, str, str, str | bytes | None, str, int]
"""In the order of `OutboxRow`, and `seq`."""

_READ_COLUMNS = """
select a.attname, t.typname, a.attnotnull, a.attidentity <> '', coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
       coalesce(s.seqrelid::regclass::text, ''), coalesce(s.seqcache, 0)
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
left join pg_sequence s on s.seqrelid = pg_get_serial_sequence(a.attrelid::regclass::text, a.attname)::regclass
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
"""
_RIGHTS = "select current_user, has_table_privilege(%s, 'select'), has_table_privilege(%s, 'delete')"


class Column(NamedTuple):
    """`default`: as PostgreSQL writes it. `sequence`: that belongs to it, and its cache; 0 where none is."""

    name: str
    type: str
    is_required: bool
    is_identity: bool
    default: str
    sequence: str
    cache: int


def columns(session: Session, table: str) -> dict[str, Column]:
    """By name; none where there is no such table."""
    found = [Column(*row) for row in session.rows(_READ_COLUMNS, (quoted(table),))]
    return {column.name: column for column in found}


def findings(session: Session, table: str) -> list[Finding]:
    """What keeps a table from being read in order and without a gap, each with what to run where that is known."""
    found = columns(session, table)
    if not found:
        return [(f"there is no table {table}", "docs/how-to/publish-through-an-outbox.md has its statement")]
    return [*_missing(found, table, _COLUMNS), *_unordered(found, table), *_rights(session, table)]


def captured_findings(session: Session, table: str, publication: str) -> list[Finding]:
    """What keeps a table's rows out of the log, or its reader from pruning them."""
    found = columns(session, table)
    if not found:
        return [(f"there is no table {table}", "docs/how-to/publish-through-an-outbox.md has its statement")]
    wrong = [*_missing(found, table, PLAIN_COLUMNS), *_rights(session, table)]
    info = catalog.tables(session, [table])[table]
    if not info.key:
        wrong.append((f"{table} has no primary key", f"alter table {table} add primary key (id)"))
    return wrong + list(_unpublished(catalog.publication(session, publication), publication, info))


def is_numbered(found: dict[str, Column]) -> bool:
    """Whether rows that are there already can be told in their order: as if they were polled."""
    return not [*_missing(found, "", _COLUMNS), *_unordered(found, "")]


def _unpublished(published: Publication | None, publication: str, info: TableInfo) -> Iterator[Finding]:
    """A row that is not in the log would be deleted unread."""
    name, table = sql.Identifier(publication).as_string(None), info.name
    if published is not None and info.kind == "p" and not published.via_root:
        yield (
            f"{table} is partitioned, and its rows come as its partitions'",
            f"alter publication {name} set (publish_via_partition_root = true)",
        )
        return
    if published is None or table not in published.tables:
        verb = f"create publication {name} for" if published is None else f"alter publication {name} add"
        options = "" if published is not None else " with (publish = 'insert', publish_via_partition_root = true)"
        yield f"{table} is not in a publication {publication}", f"{verb} table {quoted(table)}{options}"
        return
    if not published.has_inserts:
        yield f"the publication {publication} leaves inserts out", f"alter publication {name} set (publish = 'insert')"
    if published.tables[table].row_filter:
        yield f"the publication {publication} leaves rows of {table} out", "take its row filter away"
    hidden = [
        column for column in PLAIN_COLUMNS if column in info.columns and column not in published.tables[table].columns
    ]
    if hidden:
        yield f"the publication {publication} leaves out {', '.join(hidden)} of {table}", "take its column list away"


def _rights(session: Session, table: str) -> Iterator[Finding]:
    ((user, may_select, may_delete),) = session.rows(_RIGHTS, (quoted(table),) * 2)
    if not (may_select and may_delete):
        yield f"{user} may not read and delete rows", f"grant select, delete on {table} to {user}"


def _missing(found: dict[str, Column], table: str, names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        types, column = _COLUMNS[name], found.get(name)
        if column is None:
            yield (f"no column {name}", _ADDED.get(name, "").format(table))
        elif column.type not in types:
            yield (f"column {name} is {column.type}, not {types[0]}", "")
        elif name in ("id", "seq") and not column.is_required:
            yield (f"column {name} may be null", f"alter table {table} alter column {name} set not null")


def _unordered(found: dict[str, Column], table: str) -> Iterator[Finding]:
    xid, seq = found.get("xid"), found.get("seq")
    if xid is not None and (xid.default != "pg_current_xact_id()" or not xid.is_required):
        yield (
            "column xid is not the writer's transaction",
            f"alter table {table} alter column xid set default pg_current_xact_id(), alter column xid set not null",
        )
    if seq is not None and not seq.is_identity and not seq.default.startswith("nextval("):
        yield ("column seq is neither an identity nor filled by a sequence", "")
    if seq is not None and seq.cache > 1:
        yield (
            "the sequence of column seq is cached, so that later rows may get lower numbers",
            f"alter sequence {seq.sequence} cache 1",
        )


def quoted(table: str) -> str:
    """`schema.table` for a statement. Raises `UsageError`."""
    return sql.Identifier(*parts_of(table)).as_string(None)


def parts_of(table: str) -> tuple[str, str]:
    schema, dot, name = table.partition(".")
    if not dot or not schema or not name or "." in name:
        raise UsageError(f"table {table!r} is not schema.table", hint="for example public.outbox")
    return schema, name


class Statements:
    """`reads_bytes`: whether the payload is a bytea. Transaction ids are text on both ways: psycopg has no xid8."""

    def __init__(self, table: str, *, reads_bytes: bool) -> None:
        name, payload = quoted(table), "payload" if reads_bytes else "payload::text"
        self.page = f"""
            select {PAGE_COLUMNS.format(payload=payload)}
            from {name} where xid >= %s::xid8 and xid < %s::xid8 and seq > %s order by seq limit %s
        """  # noqa: S608 - the name is quoted
        aggregate = "coalesce({0}.aggregatetype::text, ''), coalesce({0}.aggregateid::text, '')"  # as in a page
        self.split = f"""
            select r.xid::text from {name} r where r.xid >= %s::xid8 and r.xid < %s::xid8 and exists (
                select from {name} o where o.xid >= %s::xid8 and o.seq < r.seq
                and ({aggregate.format("o")}) = ({aggregate.format("r")})
            ) order by r.xid limit 1
        """  # noqa: S608 - the same
        self.waiting = f"""
            select 1 from {name} where xid >= %s::xid8 and created_at < now() - make_interval(secs => %s) limit 1
        """  # noqa: S608 - the same
        self.prune = f"""
            with gone as (
                delete from {name} where seq in (
                    select seq from {name} where xid < %s::xid8 or (xid < %s::xid8 and seq <= %s) order by seq limit %s
                ) returning 1
            ) select count(*) from gone
        """  # noqa: S608 - the same

    def parameters(self, *values: int) -> tuple[Any, ...]:
        return tuple(str(value) for value in values)
