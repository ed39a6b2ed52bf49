"""Where a capture stands towards its database: the slot is ours and whole, the publication what it was; else a stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heddle.errors import PositionLostError, UsageError
from heddle.sources.postgres import catalog
from heddle.sources.postgres.catalog import Publication, TableInfo
from heddle.sources.postgres.position import Position, SlotIdentity, Snapshot
from heddle.sources.postgres.relations import Declared
from heddle.sources.postgres.replication import Stream, System, lsn_text
from heddle.sources.postgres.session import Session, resnapshot_hint

PLUGIN = "pgoutput"
INITIAL = "initial"
_OUTRUN = "more WAL came than max_slot_wal_keep_size keeps for it"
_LOST = {
    "": _OUTRUN,  # before PostgreSQL 17 there is hardly another reason
    "wal_removed": _OUTRUN,
    "idle_timeout": "nobody read it for longer than idle_replication_slot_timeout",
}


class Standing:
    """Asks over one session, for one source. Every method raises what `Session` raises."""

    def __init__(
        self, source: str, slot: str, publication: str, tables: Mapping[str, Declared], session: Session
    ) -> None:
        self._source = source
        self._slot = slot
        self._publication = publication
        self._tables = tables
        self._session = session

    def preflight(self) -> tuple[Publication, dict[str, TableInfo]]:
        """Raises `UsageError` where nothing can be captured as declared."""
        found = catalog.publication(self._session, self._publication)
        if found is None:
            raise self._usage(f"there is no publication {self._publication}")
        infos = catalog.tables(self._session, list(self._tables))
        for name in self._tables:
            if name not in infos:
                raise self._usage(f"there is no table {name}")
            if name not in found.tables:
                raise self._usage(f"{name} is not in the publication {self._publication}")
            if not infos[name].key:
                raise self._usage(f"{name} has neither a primary key nor an index as its replica identity")
        return found, infos

    def first(self, stream: Stream, published: Publication, *, anew: bool) -> Position:
        """The position before anything was captured. A slot that is there already is taken over: all tables are read
        after its point. `anew`: it is dropped first."""
        found = catalog.slot(self._session, self._slot)
        if found is not None and anew:
            self._session.rows("select pg_drop_replication_slot(%s)", (self._slot,))
            found = None
        if found is None:
            point, _ = stream.create_slot(self._slot, PLUGIN)
        else:
            self._check_kind(found)
            point = found.confirmed_lsn
        system = stream.identify()
        ((database,),) = self._session.rows("select current_database()")
        identity = SlotIdentity(system.id, system.timeline, database, self._slot, point)
        position = Position(identity, {}, point)
        return self.with_new_tables(position, published, INITIAL)

    def verify_system(self, position: Position, system: System) -> None:
        """Raises `PositionLostError` when this is not the server that the slot was found on."""
        slot = position.slot
        if slot.system != system.id:
            raise self._lost("another database cluster answers than the one that was captured")
        if slot.timeline != system.timeline:
            raise self._lost(f"the server is on timeline {system.timeline}, no more on {slot.timeline}: it failed over")
        if slot.name != self._slot:
            raise self._lost(f"the source is declared with slot {self._slot}, it was captured through {slot.name}")
        ((database,),) = self._session.rows("select current_database()")
        if slot.database != database:
            raise self._lost(f"the secret names database {database}, it was {slot.database}")

    def verify_slot(self, position: Position, confirmed_lsn: int) -> None:
        """`confirmed_lsn`: up to where we have told the slot. Raises `PositionLostError`."""
        found = catalog.slot(self._session, self._slot)
        if found is None:
            raise self._lost(f"slot {self._slot} is gone")
        self._check_kind(found)
        if found.confirmed_lsn > max(position.lsn, confirmed_lsn):
            raise self._lost(
                f"slot {self._slot} was recreated, or somebody else reads it: it stands at "
                f"{lsn_text(found.confirmed_lsn)}, we at {lsn_text(position.lsn)}"
            )

    def verify_publication(self, position: Position, published: Publication | None) -> None:
        for name, digest in position.tables.items():
            if name not in self._tables:
                continue
            if published is None or name not in published.tables:
                raise self._lost(f"{name} is no more in the publication {self._publication}")
            if published.tables[name].digest != digest:
                raise self._lost(
                    f"the publication {self._publication} was changed, or {name} was taken out of it and back"
                )

    def publication(self) -> Publication | None:
        return catalog.publication(self._session, self._publication)

    def with_new_tables(self, position: Position, published: Publication, snapshot_id: str) -> Position:
        """Tables that are declared and not captured yet are, from here on; each is read first, if it asks for that."""
        new = [name for name in self._tables if name not in position.tables]
        snapshots = [Snapshot(snapshot_id, name) for name in new if self._tables[name].snapshot]
        digests = {name: published.tables[name].digest for name in self._tables}
        kept = [each for each in position.snapshots if each.table in self._tables]
        return replace(position, tables=digests, snapshots=(*kept, *snapshots))

    def _check_kind(self, found: catalog.SlotState) -> None:
        if found.wal_status == "lost":
            why = _LOST.get(found.invalidation, f"PostgreSQL invalidated it ({found.invalidation})")
            raise self._lost(f"slot {self._slot} is lost: {why}")
        if found.plugin != PLUGIN:
            raise self._lost(f"slot {self._slot} is one of {found.plugin or 'physical replication'}, not of {PLUGIN}")

    def _lost(self, what: str) -> PositionLostError:
        return PositionLostError(f"{self._source}: {what}", hint=resnapshot_hint(self._source))

    def _usage(self, what: str) -> UsageError:
        return UsageError(f"{self._source}: {what}", hint="`heddle check --sources` says what to run in the database")
