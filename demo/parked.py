"""The dead letters of a run: what each was first, and what has become of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heddle.broker.log import Record
from heddle.delivery import envelope
from heddle.delivery.envelope import State
from heddle.event import ID

_ENDS = {None: "run", State.REVISED: "edited and run", State.DISCARDED: "discarded"}


@dataclass(frozen=True, slots=True)
class Parked:
    """One entry. `headers`: of its first version. `now`: the newest version's state, None for its tombstone."""

    headers: dict[str, str]
    now: State | None

    @property
    def first(self) -> State:
        return State(self.headers[envelope.STATE])

    @property
    def id(self) -> str:
        """As the audit trail names it."""
        return f"{self.headers[envelope.PARTITION]}-{self.headers[envelope.OFFSET]}"

    @property
    def event_id(self) -> str:
        return self.headers.get(ID, "")

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the record that failed."""
        return int(self.headers[envelope.PARTITION]), int(self.headers[envelope.OFFSET])

    @property
    def is_unresolved(self) -> bool:
        return self.now not in _ENDS

    @property
    def has_run(self) -> bool:
        return self.now in (None, State.REVISED)

    @property
    def cause(self) -> str:
        if self.first is State.WAITING:
            return "waits behind an earlier one"
        return f"{self.headers[envelope.CODE]} {self.headers.get(envelope.PATH, '')}".rstrip()

    @property
    def fingerprint(self) -> str:
        return "" if self.first is State.WAITING else self.headers[envelope.FINGERPRINT]

    @property
    def end(self) -> str:
        return str(self.now) if self.is_unresolved else _ENDS[self.now]


def parked_in(records: Iterable[Record]) -> list[Parked]:
    """One for each entry of a dead-letter topic, in the order in which they came."""
    first: dict[bytes, dict[str, str]] = {}
    now: dict[bytes, State | None] = {}
    for record in records:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        key = record.key or b""
        state = State(headers[envelope.STATE]) if record.value is not None else None
        if key in first or state is not None:  # a tombstone alone ends what an earlier run has parked
            first.setdefault(key, headers)
            now[key] = state
    return [Parked(headers, now[key]) for key, headers in first.items()]
