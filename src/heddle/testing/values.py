"""What a test gets to see: events that were fed, dead letters, pauses."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from heddle.delivery.envelope import State


class Fed(NamedTuple):
    """An event, or a delivery, in the subscription's input topic. `entry_id`: how a dead letter of it is named."""

    entry_id: str
    key: str | None
    id: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One unresolved entry, in its newest version.

    `name` is what `heddle dlq` prints and takes. `value` is the decoded event; the bytes, where they cannot be decoded
    and for a delivery. `retry_at`: when a `retrying` one runs next. `waits_behind`: the name of the earlier entry of
    its key that has to be resolved first."""

    name: str
    state: State
    key: str | None
    value: Any = field(repr=False)
    failure_class: str
    code: str
    path: str
    fingerprint: str
    exception: str
    message: str
    attempts: int
    first_failed: datetime | None
    retry_at: datetime | None
    waits_behind: str | None
    edits: int

    def __str__(self) -> str:
        told = [self.name, str(self.state), self.key or "without a key"]
        if self.code:
            told.append(f"{self.failure_class} {self.code}" + (f" at {self.path}" if self.path else ""))
        if self.attempts:
            told.append(f"attempts: {self.attempts}")
        if self.retry_at is not None:
            told.append(f"next at {self.retry_at:%H:%M:%S}")
        if self.waits_behind is not None:
            told.append(f"behind {self.waits_behind}")
        return "  ".join(told)


class PauseKind(StrEnum):
    """Why nothing is attempted for a while."""

    BREAKER = "breaker"
    DEPENDENCY = "dependency"
    RATE_LIMIT = "rate-limit"
    RETRY = "retry"
    """With `order="stop"`: the record in front is tried again in its place."""
    CAP = "cap"
    """Too many entries are unresolved: nothing new is read until some are resolved. Those that are due still run."""


@dataclass(frozen=True, slots=True)
class Pause:
    """One wait. `code` and `reason` are the error's; `until` is None where it ends by itself once there is room."""

    kind: PauseKind
    code: str
    reason: str
    began: datetime
    until: datetime | None

    def __str__(self) -> str:
        end = "" if self.until is None else f", next try {self.until:%H:%M:%S}"
        return f"{self.began:%H:%M:%S}  {self.kind}: {self.reason}{end}"
