"""What the audit trail knows about an entry: when it ran, what came of it, and who did something about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heddle import audit
from heddle.audit import AuditRecord, Line
from heddle.broker.log import Admin, Reader
from heddle.errors import BrokerError, FormatError
from heddle.operations.dead_letters.entries import EntryView, Shelf

TIMEOUT_S = 30.0
_CLOCK_SLACK_MS = 60_000  # first failures are told by a worker's clock, offsets are found by the broker's


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """`outcome` as the trail has it. `actor`: the worker's instance, or the operator. `job`: "" without one."""

    at: str
    outcome: str
    actor: str
    state: str
    code: str
    attempts: int
    job: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class History:
    """Oldest first. `missing`: why the trail could not be read, or not to its end; "" when it could."""

    lines: tuple[HistoryLine, ...] = ()
    missing: str = ""


def history_of(admin: Admin, reader: Reader, shelf: Shelf, view: EntryView) -> History:
    """Reads the partition's trail from the entry's first failure on."""
    topic = shelf.subscription.audit_topic
    state = admin.topics([topic]).get(topic)
    if state is None or view.partition >= state.partitions:
        return History((), f"there is no audit topic {topic}: `heddle apply` makes it")
    since_ms = min(view.since_ms, view.timestamp_ms if view.timestamp_ms > 0 else view.since_ms)
    found: list[tuple[AuditRecord, Line]] = []
    jobs: dict[str, tuple[str, str]] = {}
    missing = ""
    try:
        start = reader.offset_at(topic, view.partition, max(since_ms - _CLOCK_SLACK_MS, 0), TIMEOUT_S)
        for record in audit.read(reader, topic, view.partition, TIMEOUT_S, start):
            _note_command(record, jobs)
            found += ((record, line) for line in _lines_of(record, view))
    except (FormatError, BrokerError) as error:
        missing = str(error)
    return History(tuple(_told(record, line, jobs) for record, line in found), missing)


def _lines_of(record: AuditRecord, view: EntryView) -> Iterator[Line]:
    is_present = "@" not in view.entry_id
    for line in record.lines:
        if line.entry == view.entry_id or (not line.entry and is_present and line.offset == view.offset):
            yield line


def _note_command(record: AuditRecord, jobs: dict[str, tuple[str, str]]) -> None:
    """Who asked for a job, and why."""
    if record.kind == "command":
        actors = record.body.get("actors")
        names = ", ".join(map(str, actors)) if isinstance(actors, list) else record.actor
        jobs.setdefault(str(record.body.get("job", "")), (names, str(record.body.get("reason", ""))))


def _told(record: AuditRecord, line: Line, jobs: dict[str, tuple[str, str]]) -> HistoryLine:
    actor, reason = jobs.get(line.job, (record.actor, ""))
    return HistoryLine(record.at, line.outcome, actor, line.state, line.code, line.attempts, line.job, reason)
