"""Reading the audit trail: its heads, its records, and where a chain does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from heddle.audit.record import FORMAT_VERSION, AuditTrail, Line, computed_hash
from heddle.broker.log import BEGINNING, Outgoing, Reader, Record
from heddle.errors import FormatError


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record, read back. `offset`: in the audit topic. `hash`: of what is there; `holds`: whether the record says
    so itself, and lies in the partition that it tells of."""

    kind: str
    at: str
    actor: str
    partition: int
    prev: str
    hash: str
    body: dict[str, Any]
    lines: list[Line]
    offset: int
    holds: bool


def parse(record: Record) -> AuditRecord:
    """Raises `FormatError` for another format version, and for what is no audit record."""
    value = record.value or b""
    try:
        data = orjson.loads(value)
        if data["v"] != FORMAT_VERSION:
            raise ValueError(data["v"])
        found, partition = computed_hash(value), int(data["partition"])
        return AuditRecord(
            str(data["kind"]),
            str(data["at"]),
            str(data["actor"]),
            partition,
            str(data["prev"]),
            found,
            dict(data["body"]),
            [Line(**line) for line in data["lines"]],
            record.offset,
            data["hash"] == found and partition == record.partition,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{record.topic}/{record.partition} offset {record.offset} is no audit record that can be read here",
            hint="a newer Heddle or another program wrote it: run that version",
        ) from error


def heads(
    reader: Reader, audit_topic: str, partitions: Iterable[int], timeout_s: float
) -> dict[int, AuditRecord | None]:
    """The last record of each partition's chain; None where it has none."""
    tails = reader.tails(audit_topic, partitions, timeout_s)
    return {partition: None if record is None else parse(record) for partition, record in tails.items()}


def read(
    reader: Reader, audit_topic: str, partition: int, timeout_s: float, start: int = BEGINNING
) -> Iterator[AuditRecord]:
    """A partition's records, oldest first, everything that was acknowledged before the call among them."""
    for record in reader.scan(audit_topic, partition, timeout_s, start, settled=True):
        yield parse(record)


def first_break(records: Iterable[AuditRecord], *, head: str = "") -> AuditRecord | None:
    """The first record that does not continue the one before it, or is not what its hash says. `head`: the hash of
    what comes before the first of `records`; a whole trail begins with ""."""
    for record in records:
        if not record.holds or record.prev != head:
            return record
        head = record.hash
    return None


def external_reset(
    trail: AuditTrail, partition: int, witness: str, tail: AuditRecord | None, detail: Mapping[str, Any]
) -> tuple[list[Outgoing], str]:
    """Offsets or audit topic were changed by something else: told, and chained on what the topic holds. `detail`:
    where the offsets stand."""
    head = "" if tail is None else tail.hash
    return trail.event(partition, head, "external-reset", {**detail, "witness": witness, "tail": head})
