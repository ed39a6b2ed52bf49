"""The harness around an HTTP sink, whose target is a real server: pauses, retries and windows by the test's clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from http_sink_harness import sink_of
from http_target import NONE, Fault, Target
from sql_sink_harness import entry

from heddle import Endpoint, IdempotencyKey, OnFailure, Retry
from heddle.integration import Sink
from heddle.testing import START, BreakableSink, Harness
from schemas.ledger import Entry

POLICY = OnFailure(quick_tries=2, quick_delay_s=0.2, transient=Retry(tries=3, first_delay_s=7200, longest_delay_s=7200))


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


@pytest.fixture(params=[False, True], ids=["plain", "breakable"])
def sink(target: Target, request: pytest.FixtureRequest) -> Sink[Entry]:
    declared = sink_of(target.url, on_failure=POLICY, idempotency=IdempotencyKey(kept=timedelta(hours=1)))
    return BreakableSink(declared) if request.param else declared


def test_a_pause_within_a_call_passes_by_the_clock_of_the_test(target: Target, sink: Sink[Entry]) -> None:
    faults = iter([Fault(status=429, headers={"Retry-After": "1"})])
    target.fault = lambda _: next(faults, NONE)
    with Harness(sink) as h:
        h.feed(entry("a"))
        h.run()
        assert h.outcomes == {"applied": 1}
        assert h.now - START == timedelta(seconds=1)


def test_quick_tries_follow_at_once(target: Target, sink: Sink[Entry]) -> None:
    faults = iter([Fault(reset=True)])
    target.fault = lambda _: next(faults, NONE)
    with Harness(sink) as h:
        h.feed(entry("a"))
        h.run()
        assert (h.outcomes, h.now, len(target.seen)) == ({"applied": 1}, START, 2)


def test_what_was_sent_before_the_window_is_unknown_by_the_clock_of_the_test(target: Target, sink: Sink[Entry]) -> None:
    target.fault = lambda _: Fault(reset=True)
    with Harness(sink) as h:
        h.feed(entry("a"))
        h.run()
        [parked] = h.dead_letters
        assert parked.retry_at is not None
        assert h.now == START
        target.fault = lambda _: NONE
        h.advance_to(parked.retry_at)
        [doubted] = h.dead_letters
        assert (doubted.code, len(target.effects)) == ("unknown-effect", 0)


def test_a_tombstone_is_fed_by_its_key(target: Target) -> None:
    gone = Endpoint[Entry]("DELETE", "/v1/entries/{entry_id}")
    with Harness(sink_of(target.url, on_tombstone=gone)) as h:
        h.feed(entry("a"))
        h.feed_tombstone(entry("a"))
        h.run()
        assert h.outcomes == {"applied": 2}
    assert [seen.method for seen in target.seen] == ["POST", "DELETE"]
    assert target.seen[1].path == "/v1/entries/a"
