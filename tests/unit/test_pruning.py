"""How much of its inbox a sink may forget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.errors import UsageError
from heddle.sinks.pruning import is_recognisable, prune, pruning_bound

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = timedelta(days=1)
WINDOWS = {"duplicate_window": 3 * DAYS, "rewind_horizon": 7 * DAYS}


@pytest.mark.parametrize(
    ("oldest", "bound"),
    [
        (None, NOW - 10 * DAYS),
        (NOW, NOW - 10 * DAYS),
        (NOW - 7 * DAYS, NOW - 10 * DAYS),
        (NOW - 8 * DAYS, NOW - 11 * DAYS),
        (NOW - 90 * DAYS, NOW - 93 * DAYS),
    ],
)
def test_the_bound_keeps_what_a_rewind_or_an_unresolved_entry_may_bring_back(
    oldest: datetime | None, bound: datetime
) -> None:
    assert pruning_bound(now=NOW, oldest_unresolved_origin_time=oldest, **WINDOWS) == bound


def test_a_bound_needs_zones_and_windows() -> None:
    naive = datetime(2026, 3, 1)
    for times in ({"now": naive, "oldest": None}, {"now": NOW, "oldest": naive}):
        with pytest.raises(UsageError, match="no zone"):
            pruning_bound(now=times["now"], oldest_unresolved_origin_time=times["oldest"], **WINDOWS)  # type: ignore[arg-type]
    for name in WINDOWS:
        with pytest.raises(UsageError, match="below zero"):
            pruning_bound(now=NOW, oldest_unresolved_origin_time=None, **(WINDOWS | {name: -DAYS}))


class Inbox:
    """A sink in miniature: when each identity was applied first, and the bound."""

    def __init__(self) -> None:
        self.applied_at: dict[str, datetime] = {}
        self.bound: datetime | None = None

    def prune_inbox(self, before: datetime) -> int:
        forgotten = [id for id, time in self.applied_at.items() if time < before]
        for id in forgotten:
            del self.applied_at[id]
        self.bound = max(before, self.bound or before)
        return len(forgotten)

    def pruned_before(self) -> datetime | None:
        return self.bound


@given(
    ages=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 3), st.booleans()), max_size=20),
    prunings=st.lists(st.floats(0, 30), min_size=1, max_size=5),
)
def test_no_event_that_may_come_again_is_forgotten(
    ages: list[tuple[float, float, bool]], prunings: list[float]
) -> None:
    """Each event was applied first, then repeated by its source within the window; the repetition lies unresolved in
    a dead-letter topic, or is read again by a rewind within its horizon."""
    inbox = Inbox()
    repeated_at = {}
    unresolved = set()
    for number, (age, gap, is_unresolved) in enumerate(ages):
        id = f"event-{number}"
        repeated_at[id] = NOW - age * DAYS
        inbox.applied_at[id] = repeated_at[id] - gap * DAYS
        if is_unresolved:
            unresolved.add(id)
    oldest = min((repeated_at[id] for id in unresolved), default=None)
    for days in sorted(prunings):
        now = NOW + days * DAYS
        prune(inbox, now=now, oldest_unresolved_origin_time=oldest, **WINDOWS)
        for id, time in repeated_at.items():
            may_come_again = id in unresolved or time >= now - WINDOWS["rewind_horizon"]
            if may_come_again:
                assert id in inbox.applied_at
                assert is_recognisable(time, inbox.pruned_before())


def test_what_is_below_the_bound_is_not_recognisable() -> None:
    assert is_recognisable(NOW, None)
    assert is_recognisable(NOW, NOW)
    assert not is_recognisable(NOW - timedelta(microseconds=1), NOW)
