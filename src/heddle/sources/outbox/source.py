"""`OutboxSource`: what an integrator declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, Literal

from heddle.broker.log import Record
from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.event import Draft
from heddle.integration import PulledSource
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.secrets import Secret
from heddle.sources.outbox.puller import OutboxPuller
from heddle.sources.outbox.row import OutboxRow
from heddle.sources.outbox.table import findings, parts_of
from heddle.sources.postgres.checks import Finding
from heddle.sources.postgres.session import Session

READ_BY = ("polling",)


class OutboxSource(PulledSource):
    """Rows that applications wrote into an outbox table of PostgreSQL, in their own transactions, as contract events.

    `dsn`: a role that may SELECT and DELETE on `table` (docs/how-to/publish-through-an-outbox.md). `emits`: the
    contracts of rows whose `type` is a contract's name, as `heddle.Outbox` writes them; `types` names the contracts of
    rows that call themselves otherwise. A row is deleted after its event is in Kafka for good. An event's id is the
    row's. `read_by`: windows of ended transactions, the only way so far.

    Raises `UsageError` for a declaration that cannot be right."""

    def __init__(
        self,
        name: str,
        *,
        dsn: Secret,
        emits: type | tuple[type, ...],
        owner: str,
        table: str = "public.outbox",
        types: Mapping[str, type] | None = None,
        read_by: Literal["polling"] = "polling",
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        if read_by not in READ_BY:
            raise UsageError(f"source {name}: read_by={read_by!r} is none of {', '.join(READ_BY)}")
        parts_of(table)
        self.dsn = dsn
        self.table = table
        self.emits = emits if isinstance(emits, tuple) else (emits,)
        self.read_by = read_by
        foreign = [kind.__name__ for kind in (types or {}).values() if kind not in self.emits]
        if foreign:
            raise UsageError(
                f"source {name}: types= names {', '.join(foreign)}, not in emits=", hint="add it to emits="
            )
        self.kinds: dict[str, type[Any]] = {contract_of(kind).name: kind for kind in self.emits} | dict(types or {})
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated

    def open(self) -> OutboxPuller:
        return OutboxPuller(self.name, self.dsn, self.table, self.kinds)

    def findings(self) -> list[Finding]:
        """What is not as it has to be in the database, each with what to run. Connects."""
        with closing(Session(self.name, self.dsn)) as session:
            return findings(session, self.table)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return OutboxRow.unpack(record.value, self.kinds).drafts()
