"""Selecting and grouping entries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from dlq_views import entry

from heddle.delivery.envelope import State
from heddle.errors import UsageError
from heddle.operations.dead_letters.groups import GroupBy, group
from heddle.operations.dead_letters.select import EntryName, Selection, selection, since_ms

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR_MS = 3_600_000


def test_names_are_subscriptions_and_entries() -> None:
    chosen = selection(["ledger", "deals/3-1042", "0-7", "deals/0-7@abc-DEF_1"])
    assert chosen.subscriptions == ("ledger",)
    assert chosen.entries == (EntryName("deals", "3-1042"), EntryName("", "0-7"), EntryName("deals", "0-7@abc-DEF_1"))
    assert chosen.names == []
    assert selection(["ledger", "deals/3-1042"]).names == ["ledger", "deals"]
    for wrong in ("deals/x", "deals/", "/3-1"):
        with pytest.raises(UsageError, match="is no entry"):
            selection([wrong])


def test_without_anything_all_that_is_unresolved_is_meant() -> None:
    assert [state for state in State if Selection().matches(entry(state=state))] == [
        State.DEAD, State.WAITING, State.RETRYING, State.UNKNOWN,
    ]  # fmt: skip
    assert selection(states=["discarded"]).matches(entry(state=State.DISCARDED))
    with pytest.raises(UsageError, match="no state 'gone'"):
        selection(states=["gone"])


def test_all_conditions_have_to_hold() -> None:
    view = entry(7, "default/a%20b", failure_class="contract", code="lookup", fingerprint="abcdef", appended_ms=5_000)
    good = {"key": "a b", "failure_class": "contract", "code": "lookup", "fingerprint": "abc", "where": "offset == 7"}
    assert selection(["ledger", "deals"], states=["dead"], **good).matches(view)
    for name, wrong in (
        ("key", "a"), ("failure_class", "poison"), ("code", "look"), ("fingerprint", "abd"), ("where", "offset == 8"),
    ):  # fmt: skip
        assert not selection(**(good | {name: wrong})).matches(view), name
    assert not selection(["deals"]).matches(view)
    assert selection(["deals", "ledger/0-7"]).entries[0].entry_id == "0-7"
    assert selection(["deals", "0-7"]).matches(view)
    assert not selection(["0-8"]).matches(view)
    assert Selection(since_ms=5_000).matches(view)
    assert not Selection(since_ms=5_001).matches(view)


def test_since_is_a_duration_or_a_time() -> None:
    assert since_ms("2h", NOW) == since_ms("120m", NOW) == since_ms("2026-03-01T10:00:00Z")
    assert since_ms("7d", NOW) == since_ms("1w", NOW) == since_ms("2026-02-22T12:00")
    for wrong in ("2", "h", "-1h", "yesterday", "2 h"):
        with pytest.raises(UsageError, match="is no time"):
            since_ms(wrong)


def test_what_waits_counts_with_the_failure_that_it_waits_for() -> None:
    views = [
        entry(1, "a", fingerprint="f1", failure_class="contract", first_failed_ms=1 * HOUR_MS, appended_ms=5),
        entry(2, "a", State.WAITING, appended_ms=9 * HOUR_MS),
        entry(3, "b", fingerprint="f1", failure_class="contract", first_failed_ms=2 * HOUR_MS, appended_ms=7),
        entry(4, "c", State.UNKNOWN, fingerprint="f2", failure_class="transient", first_failed_ms=3, appended_ms=3),
        entry(4, "a", State.WAITING, partition=1),
    ]
    first, *others = group(views, GroupBy.FINGERPRINT)
    assert (first.value, first.count, first.keys) == ("f1", 3, 2)
    assert (first.by_state[State.DEAD], first.by_state[State.WAITING]) == (2, 1)
    assert (first.oldest_ms, first.last_ms) == (1 * HOUR_MS, 9 * HOUR_MS)
    assert first.example == views[2]
    assert [(g.value, g.count) for g in others] == [("", 1), ("f2", 1)]
    assert [(g.value, g.count) for g in group(views, GroupBy.CLASS)] == [("contract", 3), ("", 1), ("transient", 1)]
    assert [(g.value, g.count) for g in group(views, GroupBy.KEY)] == [("a", 3), ("b", 1), ("c", 1)]
