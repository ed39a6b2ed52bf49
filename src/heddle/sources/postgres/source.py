"""`PostgresSource`: what an integrator declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any
from uuid import uuid4

from heddle.broker.log import Record
from heddle.errors import UsageError
from heddle.event import Draft
from heddle.integration import PulledSource
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.secrets import Secret
from heddle.sources.postgres.checks import Finding, findings
from heddle.sources.postgres.puller import CapturePuller
from heddle.sources.postgres.records import drafts_of
from heddle.sources.postgres.relations import CapturedTable
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.tables import Shape, Table
from heddle.sources.postgres.window import emit, prefix_of

SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")


class PostgresSource(PulledSource):
    """Rows of tables as contract events, from a logical replication slot of PostgreSQL 15 or newer.

    `dsn`: a role with REPLICATION, and SELECT on the tables. `publication`: made by the database's owner, for exactly
    what may leave it. `slot`: made by the source when it begins; nobody else may read it. An event's id is the slot's
    identity, the commit's position in the log, and the change's number in the transaction.

    Raises `UsageError` for a declaration that cannot be right."""

    def __init__(
        self,
        name: str,
        *,
        dsn: Secret,
        publication: str,
        slot: str,
        tables: Sequence[Table],
        owner: str,
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        if not SLOT_NAME.fullmatch(slot):
            raise UsageError(f"source {name}: slot {slot!r} is not lower-case letters, digits and underscores")
        self.tables = {table.name: table for table in tables}
        if not tables or len(self.tables) != len(tables):
            raise UsageError(f"source {name}: tables= is empty or names a table twice")
        self.dsn = dsn
        self.publication = publication
        self.slot = slot
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated
        self.emits = tuple(dict.fromkeys(contract for table in tables for contract in table.contracts))

    def open(self) -> CapturePuller:
        def read_as(name: str, shape: Shape) -> CapturedTable:
            return CapturedTable(self.tables[name], shape)

        return CapturePuller(self.name, self.dsn, self.slot, self.publication, self.tables, read_as)

    def findings(self) -> list[Finding]:
        """What is not as it has to be in the database, each with what to run. Connects."""
        with closing(Session(self.name, self.dsn)) as session:
            return list(findings(session, self.slot, self.publication, self.tables))

    def request_snapshot(self, table: str) -> str:
        """Writes the wish to read a table again into the log, where the running source finds it; returns its id.
        Connects. Raises `UsageError` for a table that is not captured."""
        if table not in self.tables:
            raise UsageError(
                f"{self.name} does not capture {table}", hint=f"it captures {', '.join(sorted(self.tables))}"
            )
        snapshot_id = uuid4().hex
        with closing(Session(self.name, self.dsn)) as session:
            emit(session, prefix_of(self.slot), {"snapshot": snapshot_id, "table": table})
        return snapshot_id

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return drafts_of(record.value, self.tables)
