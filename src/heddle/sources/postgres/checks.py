"""What has to be so in the database before a capture can work, and what to run where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from heddle.contracts import contract_of
from heddle.sources.postgres import catalog
from heddle.sources.postgres.catalog import Publication, SlotState, TableInfo
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.standing import PLUGIN
from heddle.sources.postgres.tables import Table
from heddle.sources.postgres.window import quoted

Finding = tuple[str, str]
"""What is wrong, and what to run or to do."""

MIN_VERSION = 150_000
ALMOST_LOST = 0.1
"""Of max_slot_wal_keep_size: with less left to it, a slot is named."""

_SERVER = """
select current_setting('server_version_num')::int, current_setting('wal_level'),
       current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int,
       (select count(*)::int from pg_replication_slots), pg_is_in_recovery(),
       (select rolreplication or rolsuper or exists (
            select 1 from pg_roles m where m.rolname in ('rds_replication', 'cloudsqlreplication')
            and pg_has_role(current_user, m.oid, 'member')) from pg_roles where rolname = current_user),
       current_user, (select setting::bigint * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size'),
       (select count(*)::int from pg_stat_replication), current_setting('server_encoding')
"""


def findings(session: Session, slot: str, publication: str, tables: Mapping[str, Table]) -> Iterator[Finding]:
    """Raises what `Session` raises."""
    yield from server_findings(session, slot)
    published = catalog.publication(session, publication)
    infos = catalog.tables(session, list(tables))
    names = ", ".join(map(_quoted, tables))
    if published is None:
        yield (
            f"there is no publication {publication}",
            f"create publication {quoted(publication)} for table {names} with (publish_via_partition_root = true)",
        )
    elif not published.is_complete:
        yield (
            f"the publication {publication} leaves kinds of changes out",
            f"alter publication {quoted(publication)} set (publish = 'insert, update, delete, truncate')",
        )
    for name, table in tables.items():
        info = infos.get(name)
        if info is None:
            yield f"there is no table {name}", "create it, or correct tables="
        else:
            yield from _table(table, info, publication, published)


def server_findings(session: Session, slot: str) -> Iterator[Finding]:
    """Of the server, the role and the slot. Raises what `Session` raises."""
    (row,) = session.rows(_SERVER)
    version, level, max_slots, max_senders, slots, standby, may_replicate, role, keep_bytes, senders, encoding = row
    found = catalog.slot(session, slot)
    if version < MIN_VERSION:
        yield f"the server's version is {version // 10_000}", "capture needs PostgreSQL 15 or newer"
    if level != "logical":
        yield (
            f"wal_level is {level}",
            "alter system set wal_level = 'logical'; then restart the server (managed servers: a parameter of theirs, "
            "such as rds.logical_replication or cloudsql.logical_decoding)",
        )
    if encoding == "SQL_ASCII":
        yield (
            "the database's encoding is SQL_ASCII, so that a text may be none: the source stops at the first such row",
            "load its dump into a database with encoding 'UTF8'",
        )
    if standby:
        yield "the server is a standby", "name the primary in the secret"
    if not may_replicate:
        yield (
            f"the role {role} may not replicate",
            f"alter role {quoted(role)} replication (managed servers: grant rds_replication or cloudsqlreplication)",
        )
    if found is None and slots >= max_slots:
        yield f"all {max_slots} replication slots are taken", "raise max_replication_slots, or drop one that is unused"
    if max_senders < 1:
        yield "max_wal_senders is 0", "alter system set max_wal_senders = 10; then restart the server"
    elif senders >= max_senders and (found is None or found.active_pid is None):
        yield (
            f"all {max_senders} of max_wal_senders are in use",
            "end one that is not needed (pg_stat_replication), or raise max_wal_senders, then restart the server",
        )
    if found is not None:
        yield from _slot(slot, found, keep_bytes)
    if keep_bytes < 0:
        yield (
            "max_slot_wal_keep_size is not set: a source that stands still for long fills the server's disk",
            "alter system set max_slot_wal_keep_size = '50GB'; select pg_reload_conf()",
        )


def _slot(slot: str, found: SlotState, keep_bytes: int) -> Iterator[Finding]:
    if found.wal_status == "lost":
        yield f"slot {slot} is lost", "run `heddle snapshot` with --restart"
    elif found.safe_wal_bytes is not None and found.safe_wal_bytes < keep_bytes * ALMOST_LOST:
        yield (
            f"slot {slot} is about to be lost: {max(found.safe_wal_bytes, 0)} bytes of WAL are left to it",
            "start the source, see why it does not keep up, or raise max_slot_wal_keep_size",
        )
    if found.plugin != PLUGIN:
        yield (
            f"slot {slot} is one of {found.plugin or 'physical replication'}",
            "declare another slot, or drop that one",
        )


def _table(table: Table, info: TableInfo, publication: str, published: Publication | None) -> Iterator[Finding]:
    name = _quoted(table.name)
    contract = contract_of(table.emits)
    columns = table.named_columns(table.emits)
    read = {column for cls in table.contracts for column in table.named_columns(cls).values()}
    if info.kind == "p" and published is not None and not published.via_root:
        yield (
            f"{table.name} is partitioned, and its changes come as its partitions'",
            f"alter publication {quoted(publication)} set (publish_via_partition_root = true)",
        )
    elif published is not None and table.name not in published.tables:
        yield (
            f"{table.name} is not in the publication {publication}",
            f"alter publication {quoted(publication)} add table {name}",
        )
    if not info.is_readable:
        yield f"{table.name} may not be read by the source's role", f"grant select on {name} to the role"
    if info.hides_rows:
        yield (
            f"{table.name}: row-level security hides rows from the source's role, and the log does not",
            "alter role … bypassrls",
        )
    missing = sorted(read - set(info.columns))
    if missing:
        yield f"{table.name} has no column {', '.join(missing)}", "name another in columns=, or None for the default"
    if published is not None and table.name in published.tables:
        left_out = sorted((read & set(info.columns)) - info.generated - set(published.tables[table.name].columns))
        if left_out:
            yield (
                f"the publication {publication} leaves {', '.join(left_out)} of {table.name} out",
                "take the column list away, or name them in it",
            )
    made = sorted(read & info.generated)
    if made:
        yield f"{table.name}: {', '.join(made)} is generated, and not in the log", "make it by a function in columns="
    if not info.key:
        yield (
            f"{table.name} has neither a primary key nor an index as its replica identity",
            f"add a primary key, or `alter table {name} replica identity using index …`",
        )
    keys = [columns.get(field) for field in contract.metadata.key]
    if table.deletes is not None and None in keys:
        yield (
            f"{table.name}: the key of {contract.name} is not read from columns, so a deleted row has none",
            "read its fields from columns, or say deletes=None",
        )
    yield from _identity(table.name, info, read, {column for column in keys if column is not None})


def _identity(table: str, info: TableInfo, read: set[str], keys: set[str]) -> Iterator[Finding]:
    """What the log would not have of old rows. `keys`: columns of the contract's key."""
    without = [name for name, identity in {table: info.identity, **info.partitions}.items() if identity == "n"]
    if without:
        yield (
            f"{', '.join(without)} has replica identity nothing, so that the database refuses to change its published "
            "rows",
            _each(without, "default"),
        )
    whole = [table, *info.partitions]  # a partition does not take over what the table is told
    is_full = {info.identity, *info.partitions.values()} == {"f"}
    large = sorted(read & info.large)
    outside = sorted(keys - set(info.key))
    if large and info.has_toast and not is_full:
        yield (
            f"{table}: {', '.join(large)} may be large, and an update that leaves it alone would not hold it",
            _each(whole, "full"),
        )
    if outside and not is_full:
        yield (
            f"{table}: the contract's key has {', '.join(outside)}, which the log does not hold of old rows",
            _each(whole, "full"),
        )
    less = [name for name, identity in info.partitions.items() if identity not in ("f", "n")]
    if info.identity == "f" and less and not (outside or (large and info.has_toast)):
        yield f"{table}: its partitions {', '.join(less)} do not have its full replica identity", _each(less, "full")


def _each(tables: Iterable[str], identity: str) -> str:
    return "; ".join(f"alter table {_quoted(name)} replica identity {identity}" for name in tables)


def _quoted(table: str) -> str:
    return ".".join(map(quoted, table.split(".")))
