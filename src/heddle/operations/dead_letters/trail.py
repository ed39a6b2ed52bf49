"""The audit trail as receipts read it: from when a job was sent, or from now on."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Final, cast

from heddle.audit import AuditRecord, parse
from heddle.broker.log import Admin, Reader, Record
from heddle.errors import FormatError
from heddle.operations.dead_letters.entries import Shelf
from heddle.operations.dead_letters.jobs import Job, empty_receipt
from heddle.operations.dead_letters.receipt import Event, Receipt

TIMEOUT_S: Final = 30.0
SKEW_MS: Final = 600_000
"""How far the clocks of operators and workers may lie apart."""


class Trail:
    """New records of the audit topic, as they come."""

    def __init__(self, reader: Reader, shelf: Shelf, offsets: dict[int, int]) -> None:
        self._reader = reader
        reader.assign(shelf.subscription.audit_topic, offsets)

    @staticmethod
    def from_now_on(admin: Admin, reader: Reader, shelf: Shelf) -> Trail:
        """Take it before the job is sent."""
        topic = shelf.subscription.audit_topic
        return Trail(reader, shelf, admin.end_offsets({topic: range(shelf.partitions)})[topic])

    def feed(self, receipt: Receipt, max_wait_s: float) -> bool:
        """Whether anything about the job came."""
        news = [_enter(record, [receipt]) for record in self._reader.consume(500, max_wait_s)]
        return any(news)


def receipts_of(reader: Reader, shelf: Shelf, jobs: Sequence[Job]) -> list[Receipt]:
    """What the trail tells of these jobs by now, in their order. Reads no further than the jobs can reach."""
    receipts = [empty_receipt(job, shelf) for job in jobs]
    for partition in sorted({partition for job in jobs for partition in job.partitions}):
        here = [i for i, job in enumerate(jobs) if partition in job.partitions]
        since_ms = min(jobs[i].sent_at_ms for i in here) - SKEW_MS
        until_ms = max(jobs[i].expires_at_ms for i in here) + SKEW_MS
        _read(reader, shelf, partition, since_ms, until_ms, [receipts[i] for i in here])
    return receipts


def _read(
    reader: Reader, shelf: Shelf, partition: int, since_ms: int, until_ms: int, receipts: Sequence[Receipt]
) -> None:
    topic = shelf.subscription.audit_topic
    start = reader.offset_at(topic, partition, since_ms, TIMEOUT_S)
    scan = cast(Generator[Record, None, None], reader.scan(topic, partition, TIMEOUT_S, start, settled=True))
    with closing(scan) as records:
        for record in records:
            if record.timestamp_ms > until_ms:
                return
            _enter(record, receipts)


def _enter(record: Record, receipts: Iterable[Receipt]) -> bool:
    """Whether any of the receipts is concerned."""
    try:
        audit = parse(record)
    except FormatError:
        return False  # `heddle audit verify` is who says so
    news = False
    event = _event(audit)
    for receipt in receipts:
        if event is not None:
            news |= receipt.event(event)
        for line in audit.lines:
            if line.entry:
                news |= receipt.line(line)
    return news


def _event(audit: AuditRecord) -> Event | None:
    """Of a command; None for all other records."""
    if audit.kind not in ("command", "cancel", "refused"):
        return None
    told = audit.body
    return Event(audit.kind, str(told.get("job", "")), int(told.get("index", -1)), str(told.get("why", "")))
