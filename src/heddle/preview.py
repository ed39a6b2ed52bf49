"""What applying events would do, found without doing it: the sink's part of `heddle dlq replay --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from heddle.errors import Failure
from heddle.integration import Applied, Delivered

Row: TypeAlias = Mapping[str, Any]
"""Column to value, as the target's driver gives it: Decimal, date, datetime, UUID are kept."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a target holds of one entity: `count` rows, of which `shown` are the first."""

    shown: tuple[Row, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """What applying one event would do.

    `answer` is what `SinkWriter.apply` would say of it; None when it would not be attempted, because an earlier event
    of its key fails, and when nothing can be said at the moment: then `obstacle` tells why. `now` and `then` are the
    rows of the event's entity before and after all events of its key; None when they could not be found."""

    answer: Applied | Failure | None
    now: Rows | None
    then: Rows | None
    obstacle: str = ""


@runtime_checkable
class PreviewableSink(Protocol):
    """A sink that can tell what it would do. `isinstance(sink, PreviewableSink)` asks for it."""

    def preview(self, batch: Sequence[Delivered[Any]]) -> list[Preview]:
        """One answer for each event, as if `apply` were given the batch; nothing stays of it at the target, and a
        running sink is neither fenced nor kept waiting for longer than a moment.

        Raises `DependencyDownError`, `AuthError` and `UsageError` as `apply` does."""
