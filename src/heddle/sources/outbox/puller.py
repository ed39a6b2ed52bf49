"""Reading an outbox by polling: nothing is skipped, and what is of one aggregate keeps its order.

Numbers are given before commits, so that `seq > last` loses what commits late. Read are therefore windows of
transactions that have all ended: those before the oldest that still runs. Such a window is complete, but it may end
between two changes of one aggregate, and hold the newer one: of an old transaction that changed it after a younger one
did, whose id is behind the bound. So the bound is lowered until no aggregate is split, and inside the window rows go by
`seq`, which writers of one aggregate draw one after the other: they hold its lock.
"""

from __future__ import annotations

import time
from dataclasses import replace

import structlog
from structlog.typing import FilteringBoundLogger

from heddle.errors import DependencyDownError, PositionLostError, UsageError
from heddle.integration import Pull
from heddle.secrets import Secret
from heddle.sources.outbox.position import FIRST_SEQ, Position, TableIdentity, Window
from heddle.sources.outbox.row import Kinds, OutboxRow
from heddle.sources.outbox.table import PageRow, Statements, columns, findings, quoted
from heddle.sources.postgres.session import Session

PRUNE_ROWS = 2_000
STALLED_S = 30.0
"""How long nothing may be read, while there are rows, before the log says which transaction is in the way."""

_STANDING = """
select pg_is_in_recovery(), (select system_identifier::text from pg_control_system()), current_database(),
       to_regclass(%s)::oid::bigint
"""
_NOW = """
select pg_snapshot_xmin(pg_current_snapshot())::text, pg_snapshot_xmax(pg_current_snapshot())::text,
       substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
"""
_XMIN = "select pg_snapshot_xmin(pg_current_snapshot())::text"
_OLDEST = """
select pid, extract(epoch from clock_timestamp() - xact_start)::int, coalesce(application_name, '')
from pg_stat_activity where backend_xid is not null order by xact_start limit 1
"""  # a role without pg_monitor sees its own alone


class OutboxPuller:
    """Implements `heddle.integration.Puller`, for a leader's one thread."""

    def __init__(self, source: str, dsn: Secret, table: str, kinds: Kinds) -> None:
        self._source = source
        self._table = table
        self._kinds = kinds
        self._log: FilteringBoundLogger = structlog.get_logger(source=source)
        self._session = Session(source, dsn)
        self._looked_s = time.monotonic()
        self._outdated: bytes | None = None

    def begin(self, position: bytes | None) -> None:
        identity = self._identity()
        wrong = [f"{message}: {run}" if run else message for message, run in findings(self._session, self._table)]
        if wrong:
            raise UsageError(
                f"{self._source}: {self._table} cannot serve as an outbox: {'; '.join(wrong)}",
                hint="`heddle check --sources` says so, too; docs/how-to/publish-through-an-outbox.md has the table",
            )
        payload = columns(self._session, self._table)["payload"]
        self._statements = Statements(self._table, reads_bytes=payload.type == "bytea")
        known = None if position is None else Position.unpack(position)
        if known is not None and known.table != identity:
            raise PositionLostError(
                f"{self._source}: {self._table} is not the table that was read: another server, database or table",
                hint="correct the secret; if it was replaced for good, stop the source and run "
                f"`heddle snapshot {self._source} --restart`: all that {self._table} holds is then published",
            )
        ((_, newest, timeline),) = self._session.rows(_NOW)
        if known is not None and (timeline != known.timeline or int(newest) < known.done):
            # Transaction ids may have been given a second time, so that the bound says nothing any more.
            self._log.warning("the server failed over or was restored: what the outbox holds is read again")
            known = None
        self._outdated = position if known is None else None
        self._position = known or Position(identity, timeline)

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        here = self._position
        window = here.window or self._next_window()
        rows = [] if window.before <= here.done else self._page(window, max_records)
        if len(rows) < max_records:
            self._position = replace(here, done=max(here.done, window.before), window=None)
        else:
            self._position = replace(here, window=Window(window.before, rows[-1][-1]))
        if not rows:
            self._tell_if_stalled()
            time.sleep(max_wait_s)
            return None
        return Pull([OutboxRow(*row[:-1], self._kinds) for row in rows], self._position.pack())

    def confirm(self, position: bytes) -> None:
        """Deletes what is done, also what a former leader published and could not delete any more."""
        done = None if position == self._outdated else Position.unpack(position)
        if done is None:
            return  # it says nothing of what is there now
        before, seq = done.window or (done.done, FIRST_SEQ)
        parameters = (*self._statements.parameters(done.done, before), seq, PRUNE_ROWS)
        while self._session.rows(self._statements.prune, parameters)[0][0] == PRUNE_ROWS:
            pass

    def close(self) -> None:
        self._session.close()

    def _identity(self) -> TableIdentity:
        ((is_standby, system, database, oid),) = self._session.rows(_STANDING, (quoted(self._table),))
        if is_standby:
            raise DependencyDownError(f"{self._source}: a standby answers", hint="name the primary in the secret")
        if oid is None:
            raise UsageError(
                f"{self._source}: there is no table {self._table} in database {database}",
                hint="docs/how-to/publish-through-an-outbox.md has the table",
            )
        return TableIdentity(system, database, oid)

    def _next_window(self) -> Window:
        """From what is done up to the oldest transaction that runs, less what would split an aggregate.

        A row that has to stay behind was there before the one that it holds back, so any later look sees both."""
        done = self._position.done
        ((oldest,),) = self._session.rows(_XMIN)
        before = int(oldest)
        while before > done:
            parameters = self._statements.parameters(done, before, before)
            split = self._session.rows(self._statements.split, parameters)
            if not split:
                break
            before = int(split[0][0])
        return Window(before)

    def _page(self, window: Window, max_records: int) -> list[PageRow]:
        parameters = (*self._statements.parameters(self._position.done, window.before), window.seq, max_records)
        return self._session.rows(self._statements.page, parameters)

    def _tell_if_stalled(self) -> None:
        if time.monotonic() - self._looked_s < STALLED_S:
            return
        self._looked_s = time.monotonic()
        parameters = (*self._statements.parameters(self._position.done), STALLED_S)
        if self._session.rows(self._statements.waiting, parameters):
            oldest = [f"pid {pid} ({name}), open for {age_s} s" for pid, age_s, name in self._session.rows(_OLDEST)]
            self._log.warning("rows wait for an open transaction, of any database of the server", oldest=oldest)
