"""`PostgresSource`: what an integrator declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from heddle.broker.log import Record
from heddle.errors import UsageError
from heddle.event import Draft
from heddle.integration import PulledSource
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.secrets import Secret
from heddle.sources.postgres.puller import CapturePuller
from heddle.sources.postgres.records import drafts_of
from heddle.sources.postgres.tables import Table

_SLOT = re.compile(r"[a-z0-9_]{1,63}")


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
        if not _SLOT.fullmatch(slot):
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
        return CapturePuller(self.name, self.dsn, self.slot, self.publication, self.tables)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return drafts_of(record.value, self.tables)
