"""What the database's catalogue says of captured tables, their publication, their types and the slot."""

from __future__ import annotations

from typing import NamedTuple

from heddle.event import stable_id
from heddle.sources.postgres.replication import lsn_of
from heddle.sources.postgres.session import Session

_TABLES = """
select n.nspname || '.' || c.relname, c.oid, c.relkind, c.relreplident,
       c.reltoastrelid <> 0 or exists (select from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid
                                       where t.isleaf and l.reltoastrelid <> 0),
       has_table_privilege(c.oid, 'select'), row_security_active(c.oid),
       array(select a.attname from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
             where i.indrelid = c.oid and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end
             order by array_position(i.indkey::int2[], a.attnum))::text[],
       array(select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             order by a.attnum)::text[],
       array(select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             and a.attstorage <> 'p' and a.attlen = -1 order by a.attnum)::text[],
       array(select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attgenerated <> ''
             order by a.attnum)::text[],
       (select coalesce(json_object_agg(m.nspname || '.' || l.relname, l.relreplident order by l.relname), '{}')
        from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid and t.isleaf and l.oid <> c.oid
        join pg_namespace m on m.oid = l.relnamespace)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname || '.' || c.relname = any(%s) and c.relkind in ('r', 'p')
"""
_PUBLICATION = """
select p.oid, p.pubviaroot, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate from pg_publication p
where p.pubname = %s
"""
_PUBLISHED = """
select t.schemaname || '.' || t.tablename, coalesce(t.rowfilter, ''), coalesce(r.oid, 0), coalesce(r.prattrs::text, ''),
       t.attnames::text[], c.oid, s.oid
from pg_publication_tables t
join pg_publication p on p.pubname = t.pubname
join pg_class c on c.relname = t.tablename
join pg_namespace n on n.oid = c.relnamespace and n.nspname = t.schemaname
left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
left join pg_publication_namespace s on s.pnpubid = p.oid and s.pnnspid = n.oid
where t.pubname = %s
"""
_SLOT = """
select plugin, database, active_pid, confirmed_flush_lsn::text, coalesce(wal_status, ''), safe_wal_size,
       coalesce(to_jsonb(s) ->> 'invalidation_reason', '')
from pg_replication_slots s where slot_name = %s
"""
_TYPES = """
select t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typcategory from pg_type t
"""


class TableInfo(NamedTuple):
    """`hides_rows`: from us, by row-level security. `key`: columns of the primary key, or of the index that is the
    replica identity. `large`: columns whose values may be stored outside of the row. `partitions`: the identity of each
    that holds rows; what the log has of old rows goes by theirs, and a partition does not take over the table's."""

    name: str
    oid: int
    kind: str
    identity: str
    has_toast: bool
    is_readable: bool
    hides_rows: bool
    key: tuple[str, ...]
    columns: tuple[str, ...]
    large: frozenset[str]
    generated: frozenset[str]
    partitions: dict[str, str]


class Published(NamedTuple):
    row_filter: str
    columns: tuple[str, ...]
    digest: str
    """Changes with whatever could have kept changes of the table out of the stream for a while, and with the table: of
    one that was dropped and made again the log does not tell what became of its rows."""


class Publication(NamedTuple):
    via_root: bool
    has_inserts: bool
    is_complete: bool
    """Inserts, updates, deletes and truncates are all in it."""
    tables: dict[str, Published]


class SlotState(NamedTuple):
    plugin: str
    database: str
    active_pid: int | None
    confirmed_lsn: int
    wal_status: str
    safe_wal_bytes: int | None
    """Until it may be lost; None without a limit."""
    invalidation: str
    """Why it is lost, as PostgreSQL 17 and newer say."""


def tables(session: Session, names: list[str]) -> dict[str, TableInfo]:
    return {
        name: TableInfo._make((name, *plain, tuple(key), tuple(columns), frozenset(large), frozenset(made), leaves))
        for name, *plain, key, columns, large, made, leaves in session.rows(_TABLES, (names,))
    }


def publication(session: Session, name: str) -> Publication | None:
    """None where there is none."""
    found = session.rows(_PUBLICATION, (name,))
    if not found:
        return None
    oid, via_root, *kinds = found[0]
    published = {}
    for table, row_filter, rel, attrs, columns, table_oid, schema in session.rows(_PUBLISHED, (name,)):
        # That of the schema's place in the publication is another once it was taken out and back.
        told = (oid, via_root, *kinds, row_filter, rel, attrs, table_oid, *([] if schema is None else [schema]))
        published[table] = Published(row_filter, tuple(columns), stable_id(*map(str, told)))
    return Publication(via_root, kinds[0], all(kinds), published)


def slot(session: Session, name: str) -> SlotState | None:
    found = session.rows(_SLOT, (name,))
    if not found:
        return None
    plugin, database, pid, confirmed, *state = found[0]
    return SlotState(plugin or "", database or "", pid, lsn_of(confirmed or "0/0"), *state)


class Types:
    """Names of types by oid, a domain's being its base type's. Read again when an oid is new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[int, str] = {}

    def name(self, oid: int) -> str:
        """`int4`, `numeric[]`; `text` for a type that is gone."""
        if oid not in self._names:
            self._names = self._read()
        return self._names.setdefault(oid, "text")

    def _read(self) -> dict[int, str]:
        found = {oid: row for oid, *row in self._session.rows(_TYPES)}

        def name(oid: int) -> str:
            if oid not in found:
                return "text"
            type_name, kind, base, element, category = found[oid]
            if kind == "d":
                return name(base)
            return f"{name(element)}[]" if category == "A" and element else str(type_name)

        return {oid: name(oid) for oid in found}
