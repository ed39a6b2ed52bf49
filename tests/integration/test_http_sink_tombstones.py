"""Tombstones at an HTTP sink: parked with a reason, ignored, or a DELETE of what the key names. Real HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from http_sink_harness import apply, key_of, opened, sink_of
from http_sink_office import Office
from http_target import NONE, Fault, Target
from sql_sink_harness import APPLIED, RECOVERED, delivered, entry

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from delivery_harness import running

from heddle import Endpoint, LookUp, UsageError
from heddle.errors import FailureClass
from heddle.integration import Outcome

DELETES: Endpoint[Any] = Endpoint("DELETE", "/v1/entries/{entry_id}")


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


def gone(name: str, offset: int = 0) -> Any:
    return delivered(None, offset, key=name)


def calls(target: Target) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in target.seen]


def test_a_tombstone_deletes_what_its_key_names(target: Target) -> None:
    event = gone("a%2Fb%20c")  # a key is escaped already
    with opened(target, on_tombstone=DELETES) as writer:
        assert apply(writer, event) == ([APPLIED], [])
    assert calls(target) == [("DELETE", "/v1/entries/a%2Fb%20c")]
    assert (target.seen[0].headers["idempotency-key"], target.seen[0].body) == (key_of(event), b"")


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_already_has_been_deleted(target: Target, status: int) -> None:
    target.fault = lambda seen: Fault(status=status) if seen.method == "DELETE" else NONE
    with opened(target, on_tombstone=DELETES) as writer:
        assert apply(writer, gone("a")) == ([RECOVERED], [])
        applied, failures = apply(writer, delivered(entry("b"), 1))
        assert (applied, failures) == ([APPLIED], [])


def test_it_keeps_its_place_among_the_events_of_its_key(target: Target) -> None:
    with opened(target, on_tombstone=DELETES) as writer:
        batch = [delivered(entry("a"), 0), gone("a", 1), delivered(entry("a"), 2), gone("a", 3)]
        assert apply(writer, *batch)[0] == [APPLIED] * 4
    assert [method for method, _ in calls(target)] == ["POST", "DELETE", "POST", "DELETE"]


def test_a_delete_without_answer_is_sent_again_whatever_the_target_keeps(target: Target) -> None:
    """It does the same twice: nothing is looked up, and nothing left unknown."""
    late = gone("a")._replace(tried_since_ms=1)
    with opened(target, on_tombstone=DELETES) as writer:
        assert apply(writer, late) == ([APPLIED], [])
    with opened(target, on_tombstone=DELETES, idempotency=None, look_up=LookUp("/v1/entries/{entry_id}")) as writer:
        assert apply(writer, late)[0] == [APPLIED]
    assert [method for method, _ in calls(target)] == ["DELETE", "DELETE"]


def test_a_key_of_another_make_is_that_records_failure(target: Target) -> None:
    with opened(target, on_tombstone=DELETES) as writer:
        stranger = gone("a")
        stranger = stranger._replace(record=stranger.record._replace(key=b"7"))
        _, (failure,) = apply(writer, stranger)
    assert (failure.failure_class, failure.code, target.seen) == (FailureClass.CONTRACT, "bad-key", [])


def test_an_answer_of_a_delete_becomes_no_event(target: Target) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    emits = type(entry("a"))
    with opened(target, on_tombstone=DELETES, emits=emits, from_answer=never) as writer:
        assert apply(writer, gone("a")) == ([APPLIED], [])


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (Endpoint("POST", "/v1/entries/{entry_id}/archive"), "no DELETE without a body"),
        (Endpoint("DELETE", "/v1/entries/{kind}"), "{kind} is no key field of ledger.entry.v1"),
        (Endpoint("DELETE", "entries"), "does not begin with one '/'"),
    ],
)
def test_a_declaration_that_no_tombstone_can_fill_is_refused(endpoint: Endpoint[Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        sink_of("https://api.example.com", on_tombstone=endpoint)


# Under a worker


def test_by_default_it_is_parked_and_says_what_to_declare(target: Target) -> None:
    office = Office(target)
    office.feed("a", "-a", "a", "b")
    with running(office.scene.worker(office.step())):
        office.scene.settled(4)
    assert office.states() == [("dead", "tombstone"), ("waiting", "0-1")]
    (dead,) = [r for r in office.scene.newest() if dict(r.headers)["heddle-state"] == b"dead"]
    assert b"on_tombstone=" in (dict(dead.headers)["heddle-message"] or b"")
    assert len(target.effects) == 2


def test_one_that_is_ignored_counts_as_applied_and_waits_behind_what_failed(target: Target) -> None:
    target.fault = lambda seen: Fault(status=422) if b'"b"' in seen.body else NONE
    office = Office(target)
    office.feed("-a", "a", "b", "-b")
    with running(office.scene.worker(office.step(on_tombstone="ignore"))):
        office.scene.settled(4)
    assert office.states() == [("dead", "http-422"), ("waiting", "0-2")]
    assert office.scene.counts().by_outcome[Outcome.APPLIED] == 2
    assert [method for method, _ in calls(target)] == ["POST", "POST"]


def test_one_that_waits_in_the_dead_letters_is_still_a_tombstone_when_it_runs(target: Target) -> None:
    refused = iter([Fault(status=500), Fault(status=500)])
    target.fault = lambda seen: next(refused, NONE) if seen.method == "POST" else NONE
    office = Office(target)
    office.feed("a", "-a", "b")
    with running(office.scene.worker(office.step(on_tombstone=DELETES))):
        office.scene.settled(3)
        office.scene.drained()
    assert [seen.method for seen in target.effects if b'"b"' not in seen.body] == ["POST", "DELETE"]


def test_a_tombstone_of_before_the_window_is_not_unknown(target: Target) -> None:
    """`kept` is over when it is retried."""
    refused = iter([Fault(cut=True)])
    target.fault = lambda seen: next(refused, NONE)
    office = Office(target)
    office.feed("-a")
    key = sink_of(target.url).target.key
    assert key is not None
    short = type(key)(kept=timedelta(milliseconds=1))
    with running(office.scene.worker(office.step(on_tombstone=DELETES, idempotency=short))):
        office.scene.settled(1)
        office.scene.drained()
    assert {method for method, _ in calls(target)} == {"DELETE"}
