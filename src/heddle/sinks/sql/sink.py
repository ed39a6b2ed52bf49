"""`SqlSink`: what an integrator declares, and what `plan`, `apply` and `run` ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, TypeVar, cast

from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.integration import Delivered, OnTombstone, Sink, Start
from heddle.on_failure import DEFAULT, OnFailure, Order, holds_keys
from heddle.preview import Preview
from heddle.secrets import Secret
from heddle.sinks.sql import inbox, tables
from heddle.sinks.sql.batch import BatchWriter
from heddle.sinks.sql.deletes import Deleter, Segments
from heddle.sinks.sql.encode import Encoder
from heddle.sinks.sql.layout import layout_of
from heddle.sinks.sql.preview import Previewer
from heddle.sinks.sql.session import Session
from heddle.sinks.sql.statements import Statements, deletion_of, entity_rows_of, statements_of
from heddle.sinks.sql.writer import SqlWriter

R = TypeVar("R")

# Two `heddle apply` at once take turns. The number is arbitrary and ours.
_APPLY_LOCK = 0x6865_6464_6C65


class SqlSink(Sink[R]):
    """Events of one contract into a table of PostgreSQL, exactly once in effect.

    `table` is schema.table; `key` names the column or columns that identify an entity, `version` the column that
    orders its versions: a lower version than the one applied is `superseded`, an equal one follows the log.
    `rows` names an array field whose elements become one row each (key columns, scalar fields, `line_no` from 1, the
    element's fields); all rows of an entity are replaced together. `columns` takes part of the fields, or renames:
    `("invoice_id", "total")` or `{"column": "field.path"}`. Field types become column types as in layout.py.

    `on_tombstone`: "delete" takes the rows of an entity that is gone away, where `key` is the contract's own; "ignore"
    leaves them. Without it a tombstone is parked.

    A row that a constraint refuses fails that record alone; later records of its key wait behind it."""

    def __init__(
        self,
        name: str,
        *,
        reads: type[R],
        table: str,
        key: str | tuple[str, ...],
        version: str,
        dsn: Secret,
        owner: str,
        runbook: str = "",
        rows: str | None = None,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        on_tombstone: OnTombstone = "park",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
        start: Start = "earliest",
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        self.reads = reads
        self.dsn = dsn
        self.on_tombstone = on_tombstone
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated
        self.start = start
        keys = (key,) if isinstance(key, str) else tuple(key)
        if not keys:
            raise UsageError(f"sink {name}: key is empty", hint="name the columns that identify an entity")
        contract = contract_of(cast(type, reads))
        self._topic = contract.topic
        self._contract = contract
        self.layout = layout_of(contract, table, keys, version, rows, columns, deletes=on_tombstone == "delete")

    def open(self) -> SqlWriter[R]:
        """Raises `UsageError` when tables are missing: a worker makes none."""
        statements = statements_of(self.layout)
        session = self._session([statements.create_stage])
        try:
            with session.transaction() as connection:
                absent = tables.missing(connection, self.layout)
            if absent:
                raise UsageError(f"{self.name}: tables are missing or incomplete", hint="run `heddle apply`")
        except BaseException:
            session.close()
            raise
        batches = self._batches(session, statements)
        applies = self._with_deletes(batches, session) if self.layout.deletes else batches
        return SqlWriter(self.name, self._topic, self.layout.schema, session, statements, applies)

    def preview(self, batch: Sequence[Delivered[Any]]) -> list[Preview]:
        """See `PreviewableSink`. Needs the same rights as the running sink: it does what that would do, and takes it
        back. Says of an event that somebody else holds locks on its rows instead of waiting for them."""
        statements = statements_of(self.layout)
        with closing(self._session([statements.create_stage])) as session:
            batches, rows = self._batches(session, statements), entity_rows_of(self.layout)
            return Previewer(session, self.layout, batches, Encoder(self.layout), rows).preview(batch)

    def plan(self) -> list[str]:
        """The DDL statements that `apply_plan` would run, in order. Raises `UsageError` with all differences when a
        table is there that cannot serve."""
        with closing(self._session()) as session, session.transaction() as connection:
            return [statement.as_string(connection) for statement in tables.missing(connection, self.layout)]

    def apply_plan(self) -> list[str]:
        """Run what is missing, in one transaction; returns what was run. Nothing on a second call."""
        with closing(self._session()) as session, session.transaction() as connection:
            connection.execute("select pg_advisory_xact_lock(%s)", (_APPLY_LOCK,))
            statements = tables.missing(connection, self.layout)
            for statement in statements:
                connection.execute(statement)
            return [statement.as_string(connection) for statement in statements]

    def prune_inbox(self, before: datetime) -> int:
        """Forget inbox rows applied before `before` (aware), and remember that bound; returns how many.

        Nothing calls this by itself. An event from before the bound can no longer be told from a new one: take
        `before` from `heddle.sinks.pruning.pruning_bound`, or call `prune` there."""
        with closing(self._session()) as session, session.transaction() as connection:
            return inbox.prune(connection, self.layout.schema, self.name, before)

    def pruned_before(self) -> datetime | None:
        """The bound below which replays and rewinds must be refused, or None when nothing was ever pruned. Opens a
        connection; an open writer answers in one round trip."""
        with closing(self._session()) as session, session.transaction() as connection:
            return inbox.pruned_before(connection, self.layout.schema, self.name)

    def _batches(self, session: Session, statements: Statements) -> BatchWriter:
        return BatchWriter(self.name, self._topic, holds_keys(self.order), session, statements, Encoder(self.layout))

    def _with_deletes(self, batches: BatchWriter, session: Session) -> Segments:
        deletion = deletion_of(self.layout)
        deleter = Deleter(self.name, self._topic, session, deletion, self.layout, self._contract)
        return Segments(batches, deleter, by_key=holds_keys(self.order))

    def _session(self, prepare: Sequence[bytes] = ()) -> Session:
        return Session(self.name, self.dsn, self.layout.full_name, self.layout.path_of, prepare)
