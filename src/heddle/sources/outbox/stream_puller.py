"""Reading an outbox by change capture: rows come as they were committed, and nobody's open transaction holds them up.

First what the table holds when the slot is made, then the stream. The log has the rows of one entity in the order in
which its writers committed; a row that is deleted in the transaction that wrote it is in it as well."""

from __future__ import annotations

import contextlib

import structlog
from structlog.typing import FilteringBoundLogger

from heddle.errors import UsageError
from heddle.integration import Pull
from heddle.secrets import Secret
from heddle.sources.outbox.backlog import BacklogReader
from heddle.sources.outbox.pruning import Pruner
from heddle.sources.outbox.row import Kinds, OutboxRow
from heddle.sources.outbox.stream_position import Backlog, StreamPosition
from heddle.sources.outbox.stream_row import OutboxTable, StreamedOutbox
from heddle.sources.outbox.table import captured_findings, columns
from heddle.sources.postgres import catalog
from heddle.sources.postgres.position import RESTART
from heddle.sources.postgres.puller import CapturePuller
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.tables import Shape


class OutboxStreamPuller:
    """Implements `heddle.integration.Puller`, for a leader's one thread."""

    def __init__(self, source: str, dsn: Secret, table: str, kinds: Kinds, publication: str, slot: str) -> None:
        self._source = source
        self._table = table
        self._kinds = kinds
        self._publication = publication
        self._slot = slot
        self._log: FilteringBoundLogger = structlog.get_logger(source=source)
        self._session = Session(source, dsn)
        self._backlogs = BacklogReader(source, dsn, slot, table, self._session)
        try:
            self._capture = CapturePuller(source, dsn, slot, publication, {table: OutboxTable()}, self._read_as)
        except BaseException:
            self._session.close()
            raise
        self._position: StreamPosition | None = None
        self._has_announced = self._is_streaming = self._is_new = False

    def begin(self, position: bytes | None) -> None:
        wrong = captured_findings(self._session, self._table, self._publication)
        if wrong:
            told = "; ".join(f"{message}: {run}" if run else message for message, run in wrong)
            raise UsageError(
                f"{self._source}: {self._table} cannot serve as an outbox: {told}",
                hint="`heddle check --sources` says so, too; docs/how-to/publish-through-an-outbox.md has the table",
            )
        is_plain = catalog.tables(self._session, [self._table])[self._table].kind == "r"
        key_type = columns(self._session, self._table)["id"].type
        verify = self._capture.verify_publication
        self._pruner = Pruner(self._session, self._table, key_type, self._slot, verify, only=is_plain)
        known = None if position is None else StreamPosition.unpack(position)
        if known is not None:
            self._position = known
            if known.backlog is None:
                self._stream_from(known)
        elif position is not None:
            self._begin_anew()
        elif catalog.slot(self._session, self._slot) is not None:
            raise UsageError(
                f"{self._source}: there is a slot {self._slot}, which this source did not make",
                hint=f"declare another, or let `heddle snapshot {self._source} --restart` replace it",
            )

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        if self._position is None:
            if not self._has_announced:
                # No slot is made before it is committed that this source makes one: who dies in between replaces it.
                self._has_announced = True
                return Pull([], RESTART)
            self._begin_anew()
        assert self._position is not None
        if self._position.backlog is not None:
            return self._of_backlog(self._position, self._position.backlog, max_records)
        if not self._is_streaming:  # not before: a stream that is not read times out
            self._stream_from(self._position)
        if self._is_new:
            self._is_new = False
            return Pull([], self._position.pack())  # at once: who dies without it makes the slot again
        pull = self._capture.pull(max_records, max_wait_s)
        if pull is None:
            return None
        if pull.records:
            self._pruner.published()
        self._position = StreamPosition(pull.position, None)
        return Pull(pull.records, self._position.pack())

    def confirm(self, position: bytes) -> None:
        """Tells the slot, and deletes what is done."""
        done = StreamPosition.unpack(position)
        if done is not None and done.backlog is None:
            if not self._is_streaming:
                self._stream_from(done)
            self._capture.confirm(done.capture)
            self._pruner.confirmed(done.lsn)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._capture.close()
        self._session.close()

    def _read_as(self, _: str, shape: Shape) -> StreamedOutbox:
        return StreamedOutbox(shape, self._kinds, self._source)

    def _begin_anew(self) -> None:
        published = catalog.publication(self._session, self._publication)
        assert published is not None, "it was looked at a moment ago"
        made, backlog = self._backlogs.made_slot(published.tables[self._table].digest)
        self._log.info("captures through a slot", slot=self._slot, identity=made.slot.id, has_backlog=bool(backlog))
        self._position, self._is_new = StreamPosition(made.pack(), backlog), True

    def _stream_from(self, position: StreamPosition) -> None:
        self._capture.begin(position.capture)
        self._is_streaming = True

    def _of_backlog(self, here: StreamPosition, backlog: Backlog, max_records: int) -> Pull:
        rows = self._backlogs.page(backlog, max_records)
        self._is_new = False
        rest = Backlog(backlog.snapshot, rows[-1][-1]) if len(rows) == max_records else None
        self._position = here._replace(backlog=rest)
        return Pull([OutboxRow(*row[:-1], self._kinds) for row in rows], self._position.pack())
