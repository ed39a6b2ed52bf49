"""The open end of a capture: the stream, and snapshots merged into it, as records and positions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog
from structlog.typing import FilteringBoundLogger

from heddle.errors import HeddleError, Stop
from heddle.event import stable_id
from heddle.integration import Pull, Pulled
from heddle.secrets import Secret
from heddle.sources.postgres.catalog import Types
from heddle.sources.postgres.pgoutput import (
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Relation,
    Row,
    Truncate,
    Update,
    decode,
)
from heddle.sources.postgres.position import Position, Snapshot
from heddle.sources.postgres.relations import Declared, ReadAs, Relations, Tracked
from heddle.sources.postgres.replication import Keepalive, Stream
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.standing import Standing
from heddle.sources.postgres.tables import Change, Shape, filled
from heddle.sources.postgres.window import Streamed, Window, prefix_of, read_emitted

HEARTBEAT_S = 10.0
"""How often an idle capture moves its slot, tells that it lives, and looks whether slot and publication are whole."""

LINGER_S = 0.02
CHUNK_ROWS = 2_000
RETRY_CHUNK_S = 0.2


class CapturePuller:
    """Implements `heddle.integration.Puller`, for a leader's one thread."""

    def __init__(
        self, source: str, dsn: Secret, slot: str, publication: str, tables: Mapping[str, Declared], read_as: ReadAs
    ) -> None:
        self._source = source
        self._slot = slot
        self._publication = publication
        self._tables = tables
        self._log: FilteringBoundLogger = structlog.get_logger(source=source)
        self._session = Session(source, dsn)
        try:
            self._stream = Stream(source, dsn)
        except BaseException:
            self._session.close()
            raise
        self._standing = Standing(source, slot, publication, tables, self._session)
        self._types = Types(self._session)
        self._prefix = prefix_of(slot)
        self._read_as = read_as
        self._relations = Relations(tables, read_as, self._types, lambda: self._standing.preflight()[1], self._log)
        self._streamed = Streamed()
        self._window: Window | None = None
        self._not_before_s = 0.0
        self._transaction: Begin | None = None
        self._ordinal = self._skipped = 0
        self._records: list[Pulled] = []
        self._failure: HeddleError | None = None
        self._issued = b""
        self._confirmed_lsn = 0
        self._looked_s = self._told_s = time.monotonic()
        self._is_urgent = self._news = False

    # As the worker calls it

    def begin(self, position: bytes | None) -> None:
        published, _ = self._standing.preflight()
        known = None if position is None else Position.unpack(position)
        if known is None:
            known = self._standing.first(self._stream, published, anew=position is not None)
            self._log.info("captures through a slot", slot=self._slot, identity=known.slot.id)
        else:
            self._standing.verify_system(known, self._stream.identify())
            self._standing.verify_slot(known, 0)
            self._standing.verify_publication(known, published)
            wider = self._standing.with_new_tables(known, published, f"added-{known.lsn:X}")
            self._news, known, self._issued = wider != known, wider, position or b""
        self._position = known
        self._event_prefix = f"{known.slot.id}:"
        self._stream.start(self._slot, known.lsn, self._publication)

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        if self._failure is not None:
            raise self._failure
        self._look()
        if self._window is None and self._position.snapshots and time.monotonic() >= self._not_before_s:
            self._open_window(self._position.snapshots[0])
        self._records = records = list[Pulled]()
        self._fill(max_records, max_wait_s)
        if not records and not self._is_due():
            return None
        self._issued = self._here().pack()
        self._is_urgent = False
        return Pull(records, self._issued)

    def confirm(self, position: bytes) -> None:
        found = self._position if position == self._issued else Position.unpack(position)
        if found is not None:
            self._confirmed_lsn = max(self._confirmed_lsn, found.lsn)
            self._tell()

    def reached(self, lsn: int) -> bool:
        """Whether all that committed before `lsn` has been pulled."""
        return self._transaction is None and self._position.lsn >= lsn

    def verify_publication(self) -> None:
        """Raises `PositionLostError` when changes may not have been published since it was looked at last."""
        self._standing.verify_publication(self._position, self._standing.publication())

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.close()
        self._session.close()

    # Time

    def _is_due(self) -> bool:
        """Whether a position without records is worth a transaction: the first one, one that holds news of a snapshot,
        and now and then one that frees WAL."""
        if self._news or self._is_urgent or not self._issued:
            return True
        if time.monotonic() - self._told_s < HEARTBEAT_S:
            return False
        self._tell()
        return self._position.lsn > self._confirmed_lsn

    def _here(self) -> Position:
        self._news = False
        if self._transaction is None:
            return self._position  # after a start its half done transaction may be still to come
        return replace(self._position, partial=(self._transaction.commit_lsn, self._ordinal))

    def _look(self) -> None:
        """Slot and publication may be changed while we stream."""
        if time.monotonic() - self._looked_s < HEARTBEAT_S:
            return
        self._standing.verify_slot(self._position, self._confirmed_lsn)
        self.verify_publication()
        self._looked_s = time.monotonic()

    def _tell(self) -> None:
        self._stream.confirm(self._confirmed_lsn)
        self._told_s = time.monotonic()

    # The stream

    def _fill(self, max_records: int, max_wait_s: float) -> None:
        """Until there are enough records, or none come. A failure behind good records waits for the next call."""
        deadline_s = time.monotonic() + max_wait_s
        records, read, handle = self._records, self._stream.read, self._handle
        try:
            while len(records) < max_records:
                data = read(0.0)
                if data is None:
                    # Transactions come in bursts: a moment's wait makes one Kafka transaction of many.
                    wait_s = LINGER_S if records else deadline_s - time.monotonic()
                    if wait_s <= 0 or (data := read(wait_s)) is None:
                        return
                if type(data) is bytes:
                    handle(data)
                else:
                    self._alive(data)  # type: ignore[arg-type]
                    if self._is_urgent:
                        return
        except HeddleError as error:
            if not records:
                raise
            self._failure = error

    def _alive(self, keepalive: Keepalive) -> None:
        if self._transaction is None and keepalive.end_lsn > self._position.lsn:
            self._position = replace(self._position, lsn=keepalive.end_lsn)
        if keepalive.is_urgent:
            self._tell()
            self._is_urgent = self._position.lsn > self._confirmed_lsn

    def _handle(self, data: bytes) -> None:
        message = decode(data)
        kind = type(message)
        if kind is Begin:
            self._begin_transaction(message)  # type: ignore[arg-type]
        elif kind is Commit:
            self._transaction = None
            self._position = replace(self._position, lsn=message.end_lsn, partial=None)  # type: ignore[union-attr]
        elif kind is Relation:
            self._learn(message)  # type: ignore[arg-type]
        elif kind in (Insert, Update, Delete, Truncate, Emitted):
            self._ordinal += 1
            is_done = self._ordinal <= self._skipped
            if kind is Insert:
                self._inserted(message, is_done)  # type: ignore[arg-type]
            elif kind is Update:
                self._updated(message, is_done)  # type: ignore[arg-type]
            elif kind is Delete:
                self._deleted(message, is_done)  # type: ignore[arg-type]
            elif not is_done:
                if kind is Truncate:
                    self._truncated(message)  # type: ignore[arg-type]
                else:
                    self._emitted(message)  # type: ignore[arg-type]

    def _begin_transaction(self, begin: Begin) -> None:
        partial = self._position.partial
        self._transaction = begin
        self._ordinal = 0
        self._skipped = partial[1] if partial is not None and partial[0] == begin.commit_lsn else 0
        self._streamed.add(begin.xid)
        self._id_prefix = f"{self._event_prefix}{begin.commit_lsn:X}:"

    def _learn(self, relation: Relation) -> None:
        tracked, window = self._relations.learn(relation), self._window
        if tracked is not None and window is not None and window.info.name == tracked.name:
            window.is_stale |= window.info.key != tracked.captured.shape.key

    def _inserted(self, insert: Insert, is_done: bool) -> None:
        tracked = self._relations[insert.relation]
        if tracked is not None:
            self._emit(tracked, "insert", insert.new, is_done)

    def _updated(self, update: Update, is_done: bool) -> None:
        tracked = self._relations[update.relation]
        if tracked is None:
            return
        old, new = update.old, update.new
        if old is not None:
            new = filled(new, old)
            if tracked.captured.contract_key_moved(old, new):
                self._emit(tracked, "delete", old, is_done, "-")
            elif self._window is not None and self._window.info.name == tracked.name:
                self._window.changed(tracked.key_of(old))
        self._emit(tracked, "update", new, is_done)

    def _deleted(self, delete: Delete, is_done: bool) -> None:
        tracked = self._relations[delete.relation]
        if tracked is not None:
            self._emit(tracked, "delete", delete.old, is_done)

    def _truncated(self, truncate: Truncate) -> None:
        for oid in truncate.relations:
            tracked = self._relations[oid]
            if tracked is None:
                continue
            if self._tables[tracked.name].truncates == "stop":
                self._ordinal -= 1  # it is not done: the next start meets it again
                raise Stop(
                    f"{self._source}: {tracked.name} was truncated; its rows are gone without a word each",
                    hint="see to what is downstream, then declare truncates='ignore' and start the source again",
                )
            if self._window is not None and self._window.info.name == tracked.name:
                self._window.rows.clear()

    def _emit(self, tracked: Tracked, operation: str, row: Row, is_done: bool, suffix: str = "") -> None:
        begin = self._transaction
        assert begin is not None
        key = tracked.key_of(row)
        window = self._window
        if window is not None and window.info.name == tracked.name:
            window.changed(key)
        if is_done:
            return
        change = Change(operation, begin.commit_lsn, self._ordinal, begin.time_us)  # type: ignore[arg-type]
        pulled = tracked.captured.pulled(row, change, f"{self._id_prefix}{self._ordinal}{suffix}", key)
        if pulled is not None:
            self._records.append(pulled)

    # Snapshots

    def _open_window(self, snapshot: Snapshot) -> None:
        found, infos = self._standing.preflight()  # columns come and go: as the table is now
        info, published = infos[snapshot.table], found.tables[snapshot.table]
        self._window = window = Window(snapshot, info)
        columns = [column for column in published.columns if column in info.columns and column not in info.generated]
        window.read(self._session, self._types, self._prefix, self._streamed, columns, published.row_filter, CHUNK_ROWS)

    def _emitted(self, emitted: Emitted) -> None:
        content = read_emitted(emitted.content) if emitted.prefix == self._prefix else None
        if content is None:
            return
        requested, table = content.get("snapshot"), content.get("table")
        if isinstance(requested, str) and table in self._tables:
            if all((each.id, each.table) != (requested, table) for each in self._position.snapshots):
                asked = Snapshot(requested, str(table))
                self._position = replace(self._position, snapshots=(*self._position.snapshots, asked))
                self._news = True
        elif self._window is not None and content.get("mark") == self._window.mark and self._transaction is not None:
            if content.get("end") == "low":
                self._window.low = self._transaction.commit_lsn, self._transaction.time_us
            else:
                self._close_window(self._window)

    def _close_window(self, window: Window) -> None:
        self._window = None
        if window.is_stale or window.low is None:
            self._not_before_s = time.monotonic() + RETRY_CHUNK_S
            return
        snapshot = window.snapshot
        if window.rows:
            shape = Shape(snapshot.table, window.names, window.type_names, window.info.key)
            captured = self._read_as(snapshot.table, shape)
            change = Change("snapshot", window.low[0], 0, window.low[1])
            slot_id = self._position.slot.id
            for key, row in window.rows.items():
                parts = [(value or b"").decode() for value in key]
                event_id = stable_id(slot_id, snapshot.table, snapshot.id, *parts)
                pulled = captured.pulled(row, change, event_id, key)
                if pulled is not None:
                    self._records.append(pulled)
        rest = self._position.snapshots[1:]
        if window.is_last:
            self._log.info("snapshot done", table=snapshot.table, snapshot=snapshot.id)
        else:
            rest = (replace(snapshot, after=window.after), *rest)
        self._position = replace(self._position, snapshots=rest)
        self._news = True
