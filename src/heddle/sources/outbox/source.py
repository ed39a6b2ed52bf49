"""`OutboxSource`: what an integrator declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, Literal, get_args

from heddle.broker.log import Record
from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.event import Draft
from heddle.integration import PulledSource, Puller
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.secrets import Secret
from heddle.sources.outbox.puller import OutboxPuller
from heddle.sources.outbox.row import OutboxRow
from heddle.sources.outbox.stream_puller import OutboxStreamPuller
from heddle.sources.outbox.table import captured_findings, findings, parts_of
from heddle.sources.postgres.checks import Finding, server_findings
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.source import SLOT_NAME

ReadBy = Literal["polling", "capture"]


class OutboxSource(PulledSource):
    """Rows that applications wrote into an outbox table of PostgreSQL, in their own transactions, as contract events.

    `dsn`: a role that may SELECT and DELETE on `table` (docs/how-to/publish-through-an-outbox.md). `emits`: the
    contracts of rows whose `type` is a contract's name, as `heddle.Outbox` writes them; `types` names the contracts of
    rows that call themselves otherwise. A row is deleted after its event is in Kafka for good. An event's id is the
    row's.

    `read_by`: "polling" (windows of ended transactions; the table has columns of ours) or "capture" (the database's
    log; the role has REPLICATION as well, Debezium's columns are enough, and nobody's open transaction holds rows up).
    For the latter name a `publication` that has the table's inserts, and a `slot` of this source's own, which it makes.

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
        read_by: ReadBy = "polling",
        publication: str = "",
        slot: str = "",
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        if read_by not in get_args(ReadBy):
            raise UsageError(f"source {name}: read_by={read_by!r} is none of {', '.join(get_args(ReadBy))}")
        parts_of(table)
        _check_capture(name, read_by, publication, slot)
        self.dsn = dsn
        self.table = table
        self.emits = emits if isinstance(emits, tuple) else (emits,)
        self.read_by = read_by
        self.publication = publication
        self.slot = slot
        foreign = [kind.__name__ for kind in (types or {}).values() if kind not in self.emits]
        if foreign:
            raise UsageError(
                f"source {name}: types= names {', '.join(foreign)}, not in emits=", hint="add it to emits="
            )
        self.kinds: dict[str, type[Any]] = {contract_of(kind).name: kind for kind in self.emits} | dict(types or {})
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated

    def open(self) -> Puller:
        if self.read_by == "capture":
            return OutboxStreamPuller(self.name, self.dsn, self.table, self.kinds, self.publication, self.slot)
        return OutboxPuller(self.name, self.dsn, self.table, self.kinds)

    def findings(self) -> list[Finding]:
        """What is not as it has to be in the database, each with what to run. Connects."""
        with closing(Session(self.name, self.dsn)) as session:
            if self.read_by == "polling":
                return findings(session, self.table)
            return [
                *server_findings(session, self.slot),
                *captured_findings(session, self.table, self.publication),
            ]

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return OutboxRow.unpack(record.value, self.kinds).drafts()


def _check_capture(name: str, read_by: ReadBy, publication: str, slot: str) -> None:
    if read_by == "polling" and (publication or slot):
        raise UsageError(
            f"source {name}: publication= and slot= are of a capture, and it polls", hint='say read_by="capture"'
        )
    if read_by == "capture" and not (publication and SLOT_NAME.fullmatch(slot)):
        raise UsageError(
            f"source {name}: a capture needs publication= and slot=, of lower-case letters, digits and underscores",
            hint="docs/how-to/publish-through-an-outbox.md has both",
        )
