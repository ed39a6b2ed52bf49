"""How much of its inbox a sink may forget, so that nothing that may come again takes effect twice.

A sink knows an event again by its inbox row, which is written when the event is applied and dated by the database. An
event may come again as a source's repetition (within its duplicate window), through a rewind (within its horizon), and
as a dead letter that is replayed (while it is unresolved). Of each, an earlier copy may have been applied up to one
duplicate window before. What comes again from below the bound has to be refused: "below the inbox bound: an effect of
this event can no longer be recognised"."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from heddle.errors import UsageError


class PrunableSink(Protocol):
    """A sink that keeps what it has applied until it is told to forget."""

    def prune_inbox(self, before: datetime) -> int:
        """Forget what was applied before `before`, and remember that bound, atomically; returns how much it was."""

    def pruned_before(self) -> datetime | None:
        """The highest bound so far; None when nothing was ever forgotten. One short look-up at the target."""


def pruning_bound(
    *,
    now: datetime,
    duplicate_window: timedelta,
    rewind_horizon: timedelta,
    oldest_unresolved_origin_time: datetime | None,
) -> datetime:
    """The latest time before which everything may be forgotten (guarantees, "Sinks").

    `duplicate_window`: how long after an event its source may send it again. `oldest_unresolved_origin_time`: when the
    oldest record that now lies unresolved in a dead-letter topic upstream of the sink, its own included, was written
    to its topic; None when there is none. Raises `UsageError` for times without zone and for negative windows."""
    if any(time is not None and time.tzinfo is None for time in (now, oldest_unresolved_origin_time)):
        raise UsageError("a time of the inbox's bound has no zone", hint="use aware datetimes")
    if min(duplicate_window, rewind_horizon) < timedelta(0):
        raise UsageError("a window of the inbox's bound is below zero")
    bound = now - duplicate_window - rewind_horizon
    if oldest_unresolved_origin_time is None:
        return bound
    return min(bound, oldest_unresolved_origin_time - duplicate_window)


def prune(
    sink: PrunableSink,
    *,
    now: datetime,
    duplicate_window: timedelta,
    rewind_horizon: timedelta,
    oldest_unresolved_origin_time: datetime | None,
) -> int:
    """Forget as much as `pruning_bound` allows; returns how many events that were.

    Read the dead-letter topics first and `now` before that: what is parked meanwhile is younger than the horizon."""
    bound = pruning_bound(
        now=now,
        duplicate_window=duplicate_window,
        rewind_horizon=rewind_horizon,
        oldest_unresolved_origin_time=oldest_unresolved_origin_time,
    )
    return sink.prune_inbox(bound)


def is_recognisable(origin_time: datetime, bound: datetime | None) -> bool:
    """Whether an event that comes again is still known if it took effect. `bound` is the sink's `pruned_before()`.

    An entry that was no one's yet when the bound was set (adopted from another system, imported) may have a copy that
    was applied one duplicate window before it: ask with its origin time less that window."""
    return bound is None or origin_time >= bound
