"""What one transaction will hold, and what of it changes in memory once it has committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from heddle.audit import Line
from heddle.broker.log import Outgoing, OutgoingBatch, Record
from heddle.delivery.envelope import Entry
from heddle.delivery.index import EntryId, Run
from heddle.delivery.metadata import Counts
from heddle.errors import Failure, HeddleError
from heddle.event import Identity
from heddle.integration import Outcome


class Due(NamedTuple):
    """A dead-letter entry that runs in this batch: as stored, and as the handler gets it."""

    entry: Entry
    stored: Record
    record: Record
    is_ordered: bool
    run: Run | None = None

    @property
    def entry_id(self) -> EntryId:
        return EntryId(self.entry.topic_id, self.entry.offset)


class Change(NamedTuple):
    """One write into the dead-letter topic. `put`: the entry as it will be, its version still unknown; None: it is
    resolved, by a tombstone or by a marker for `marks`. `run`: the job in whose name it runs next."""

    outgoing: Outgoing
    entry: Entry
    put: bool
    marks: Identity | None = None
    run: Run | None = None


class Event(NamedTuple):
    """An audit record of its own, beside the batch's."""

    partition: int
    kind: str
    detail: Mapping[str, Any]


class Interruption(NamedTuple):
    """Why the tail of a batch was cut. `delay_s`: how long to wait, None = as the growing delays say.
    `stops`: the worker ends with `error`. `slows`: batches get smaller for a while. `failed_alike`: key and failure of
    what has opened the breaker, or kept it open."""

    error: HeddleError
    delay_s: float | None = None
    stops: bool = False
    slows: bool = False
    failed_alike: Sequence[tuple[bytes | None, Failure]] = ()


class Waiting(NamedTuple):
    """A pause: what for, and until when on the worker's monotonic clock."""

    why: Interruption
    until_s: float


@dataclass(slots=True)
class Settlement:
    """`failures`: key and cause of what was parked, again or for the first time.

    `succeeded`: attempts that did. `settled`: how many live records, from the first on. `ran`: the due entries that
    came to an end, and whether they are resolved. `values`: live payloads by partition, for the audit hash.
    `found_culprit`: what had killed the process is parked with it."""

    outputs: list[Outgoing | OutgoingBatch] = field(default_factory=list)
    changes: dict[tuple[int, EntryId], Change] = field(default_factory=dict)
    failures: list[tuple[bytes | None, Failure]] = field(default_factory=list)
    tally: Counter[tuple[int, Outcome]] = field(default_factory=Counter)
    entry_tally: Counter[tuple[int, Outcome]] = field(default_factory=Counter)
    recovered: Counter[int] = field(default_factory=Counter)
    entry_recovered: Counter[int] = field(default_factory=Counter)
    first_offsets: dict[int, int] = field(default_factory=dict)
    next_offsets: dict[int, int] = field(default_factory=dict)
    values: dict[int, list[bytes | None]] = field(default_factory=dict)
    lines: dict[int, list[Line]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ran: list[tuple[Due, bool]] = field(default_factory=list)
    settled: int = 0
    succeeded: int = 0
    found_culprit: bool = False
    interrupted: Interruption | None = None

    def counts(self, partition: int) -> Counts:
        return _counts(self.tally, self.recovered, partition)

    def entry_counts(self, partition: int) -> Counts:
        return _counts(self.entry_tally, self.entry_recovered, partition)

    def change(self, change: Change) -> None:
        """The last change of an entry in a batch is the one that is written."""
        entry = change.entry
        self.changes[entry.partition, EntryId(entry.topic_id, entry.offset)] = change

    def send(self, batch: OutgoingBatch, start: int, stop: int) -> None:
        """Those places of the batch, after all else that is sent."""
        if start < stop:
            self.outputs.append(batch.part(start, stop))

    def line(self, partition: int, line: Line) -> None:
        self.lines.setdefault(partition, []).append(line)

    @property
    def partitions(self) -> set[int]:
        """Those that the transaction says anything about."""
        of_changes = {partition for partition, _ in self.changes}
        return of_changes | self.next_offsets.keys() | self.lines.keys() | {event.partition for event in self.events}

    @property
    def is_empty(self) -> bool:
        return not (self.next_offsets or self.changes or self.lines or self.events)


def _counts(tally: Counter[tuple[int, Outcome]], recovered: Counter[int], partition: int) -> Counts:
    return Counts({outcome: tally[partition, outcome] for outcome in Outcome}, recovered[partition])


def size_in_log(record: Outgoing) -> int:
    """About how many bytes the log will count; never less."""
    headers = sum(len(name) + len(value or b"") + 10 for name, value in record.headers)
    return len(record.value or b"") + len(record.key or b"") + headers + 100
