"""What an outbox holds when its slot is made: published before the stream, and in the order of its numbers.

The slot exports a snapshot of the very point at which it begins, so that every row is either in the backlog or in the
stream. The snapshot is kept as text with the position: the column `xid` says of each row whether it sees it, in any
later process, too. A table without numbers has no order that could be told, so it has to be empty then."""

from __future__ import annotations

from contextlib import closing

from heddle.errors import UsageError
from heddle.secrets import Secret
from heddle.sources.outbox.stream_position import Backlog
from heddle.sources.outbox.table import PAGE_COLUMNS, PageRow, columns, is_numbered, quoted
from heddle.sources.postgres import catalog
from heddle.sources.postgres.position import Position, SlotIdentity
from heddle.sources.postgres.replication import Stream
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.standing import PLUGIN


class BacklogReader:
    """Of one source, over its session. Methods raise what `Session` raises, and `UsageError`."""

    def __init__(self, source: str, dsn: Secret, slot: str, table: str, session: Session) -> None:
        self._source = source
        self._dsn = dsn
        self._slot = slot
        self._table = table
        self._session = session

    def made_slot(self, digest: str) -> tuple[Position, Backlog | None]:
        """Drops the slot where there is one, and makes it. `digest`: of the table's publication."""
        if catalog.slot(self._session, self._slot) is not None:
            self._session.rows("select pg_drop_replication_slot(%s)", (self._slot,))
        ((database,),) = self._session.rows("select current_database()")
        with closing(Stream(self._source, self._dsn)) as stream:
            system = stream.identify()
            point, exported = stream.create_slot(self._slot, PLUGIN)
            try:
                with self._session.seeing(exported):
                    backlog = self._found()
            except BaseException:
                self._session.rows("select pg_drop_replication_slot(%s)", (self._slot,))
                raise
        slot = SlotIdentity(system.id, system.timeline, database, self._slot, point)
        return Position(slot, {self._table: digest}, point), backlog

    def page(self, backlog: Backlog, max_rows: int) -> list[PageRow]:
        """As `Statements.page` has them."""
        payload = "payload" if columns(self._session, self._table)["payload"].type == "bytea" else "payload::text"
        query = (
            f"select {PAGE_COLUMNS.format(payload=payload)} from {quoted(self._table)} "  # noqa: S608 - quoted
            "where seq > %s and pg_visible_in_snapshot(xid, %s::pg_snapshot) order by seq limit %s"
        )
        return self._session.rows(query, (backlog.seq, backlog.snapshot, max_rows))

    def _found(self) -> Backlog | None:
        """By a session that sees what was there at the slot's point."""
        name = quoted(self._table)
        ((snapshot, holds_any),) = self._session.rows(
            f"select pg_current_snapshot()::text, exists (select from {name})"  # noqa: S608 - the name is quoted
        )
        if not holds_any:
            return None
        if not is_numbered(columns(self._session, self._table)):
            raise UsageError(
                f"{self._source}: {self._table} holds rows from before, and no column says in which order they came",
                hint="add the columns seq and xid (docs/how-to/publish-through-an-outbox.md), or empty the table",
            )
        foreign = f"select exists (select from {name} where not pg_visible_in_snapshot(xid, %s::pg_snapshot))"  # noqa: S608
        if self._session.rows(foreign, (snapshot,))[0][0]:
            raise UsageError(
                f"{self._source}: {self._table} holds rows whose xid is not that of the transaction that wrote them",
                hint="after a restore, insert the other columns only: xid has a default",
            )
        return Backlog(snapshot)
