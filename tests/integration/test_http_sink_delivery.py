"""The HTTP sink under a worker: exactly once in effect through faults and crashes, an outage that parks nothing, and
what nobody knows. In-memory log, real HTTP."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from http_sink_office import Dying, Killed, Office, keys
from http_target import NONE, Fault, Seen, Target, mixed_faults

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from delivery_harness import Driven, eventually, running

from heddle import Deadlines, IdempotencyKey, LookUp, OnFailure, Retry
from heddle.broker.log import Record
from heddle.delivery.steps import Budget, NoFence, Run


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


@pytest.fixture
def office(target: Target) -> Iterator[Office]:
    made = Office(target)
    yield made
    made.scene.close()


@pytest.mark.parametrize("dedupes", [True, False], ids=["deduplicating", "naive"])
def test_each_event_takes_effect_once_through_faults_and_crashes(
    office: Office, dedupes: bool, record_property: Any
) -> None:
    """Crashes lie between effect and commit. A target that keeps no keys acts on each try: that is counted, and
    shown."""
    target, count = office.target, 240
    target.dedupes = dedupes
    target.fault = mixed_faults(0.1, 7, 0.4, target.injected)
    office.feed(*[f"k{number % 80}" for number in range(count)])
    deaths = iter([False, True, False, False, True])
    policy = {"deadlines": Deadlines(connect_s=0.5, read_s=0.3, total_s=0.5)}
    crashes = 0
    while True:
        driven = Driven(office.scene.worker(Dying(office.step(**policy), deaths), batch_max_records=50))
        driven.open()
        try:
            driven.until(lambda: office.scene.counts().total == count and not office.states())
        except Killed:
            crashes += 1
            driven.abandon()
            continue
        driven.close()
        break
    effects = office.effects()
    assert set(effects) == set(keys(count))
    doubles = sum(effects.values()) - count
    record_property("summary", f"{sum(target.injected.values())} faults, {crashes} crashes, {doubles} doubled effects")
    assert crashes == 2
    assert (doubles == 0) if dedupes else (doubles > 0)


def test_a_target_that_is_down_parks_nothing_and_all_is_delivered_once_it_is_back(office: Office) -> None:
    office.target.stop()
    office.feed(*[f"k{number}" for number in range(40)])
    with running(office.scene.worker(office.step())) as (worker,):
        eventually(lambda: worker.worker.waiting is not None, "it pauses")
        assert office.states() == []
        office.target.start()
        office.scene.settled(40)
    assert office.effects() == Counter(keys(40))


def test_a_target_that_answers_500_opens_the_breaker_and_parks_nothing(office: Office) -> None:
    office.target.fault = lambda _: Fault(status=500)
    office.feed(*[f"k{number}" for number in range(40)])
    with running(office.scene.worker(office.step())) as (worker,):
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker opens")
        before = len(office.target.seen)
        eventually(lambda: len(office.target.seen) > before, "it probes")
        assert office.states() == []
        office.target.fault = lambda _: NONE
        office.scene.settled(40)
    assert office.effects() == Counter(keys(40))


def test_a_target_that_goes_down_in_the_middle_of_a_batch_parks_nothing_of_it(office: Office) -> None:
    """What went well before does not speak for a target that answers nothing but 500 from some moment on."""
    target = office.target
    target.fault = lambda _: Fault(status=500) if len(target.effects) >= 200 else NONE
    office.feed(*[f"k{number}" for number in range(400)])
    with running(office.scene.worker(office.step())) as (worker,):
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker opens")
        assert office.states() == []
        assert 100 < office.scene.counts().total <= 200
        target.fault = lambda _: NONE
        office.scene.settled(400)
    assert office.scene.entries() == []
    assert office.effects() == Counter(keys(400))


def test_a_rate_limit_is_waited_for_and_burns_no_attempt(office: Office) -> None:
    limits = iter([Fault(status=429, headers={"Retry-After": "1"})] * 3)
    office.target.fault = lambda _: next(limits, NONE)
    office.feed("a", "b", "c")
    with running(office.scene.worker(office.step(concurrency=1))):
        office.scene.settled(3)
    assert office.scene.entries() == []
    assert office.effects() == Counter(keys(3))


def test_refused_credentials_stop_the_worker_and_nothing_is_passed(office: Office) -> None:
    office.target.fault = lambda seen: Fault(status=403) if b'"b"' in seen.body else NONE
    office.feed("a", "b", "c")
    driven = Driven(office.scene.worker(office.step(concurrency=1)))
    with pytest.raises(Exception, match="HTTP 403"), driven:
        driven.until(lambda: False)
    assert (office.scene.counts().total, office.scene.entries()) == (1, [])


def test_a_refused_record_is_dead_with_the_targets_words_and_holds_its_key_alone(office: Office) -> None:
    office.target.fault = lambda seen: Fault(status=422, body=b"no such account") if b'"a"' in seen.body else NONE
    office.feed("a", "b", "a")
    with running(office.scene.worker(office.step())):
        office.scene.settled(3)
    assert office.states() == [("dead", "http-422"), ("waiting", "0-0")]
    assert len(office.target.seen) == 2
    (entry,) = [r for r in office.scene.newest() if dict(r.headers)["heddle-state"] == b"dead"]
    assert (dict(entry.headers)["heddle-message"] or b"").endswith(b"to POST: no such account")


@pytest.mark.parametrize("way", ["key", "look-up", "person"])
def test_an_answer_that_is_cut_after_the_effect_is_found_out_about(office: Office, way: str) -> None:
    """By the same key again, by asking, or by nobody but a person: the effect is there once in any case."""
    target, cut = office.target, iter([Fault(cut=True)])
    target.fault = lambda seen: next(cut, NONE) if seen.method == "POST" else NONE
    target.answer = lambda seen: (200 if target.effects else 404, {}, b"{}") if seen.method == "GET" else None
    asking = LookUp("/v1/entries/{entry_id}")
    declared: dict[str, dict[str, Any]] = {
        "key": {},
        "look-up": {"idempotency": None, "look_up": asking},
        "person": {"idempotency": None, "at_most_once": True},
    }
    if way == "person":
        office.scene.subscription = replace(office.scene.subscription, at_most_once=True)
    office.feed("a")
    with running(office.scene.worker(office.step(**declared[way]))):
        office.scene.settled(1)
        wanted = [("unknown", "unknown-effect")] if way == "person" else []
        eventually(lambda: office.states() == wanted, "it is found out, or parked")
    sent = [seen.method for seen in target.seen]
    assert sent == {"key": ["POST", "POST"], "look-up": ["GET", "POST", "GET"], "person": ["POST"]}[way]
    assert len(target.effects) == 1


def test_what_may_have_taken_effect_before_the_window_is_parked_as_unknown(target: Target) -> None:
    """The answer is lost; its retry comes when the target no longer keeps keys."""
    retry = Retry(tries=5, first_delay_s=0.6, longest_delay_s=0.7)
    office = Office(target, OnFailure(quick_tries=1, transient=retry))
    office.target.fault = lambda _: Fault(cut=True)
    office.feed("a")
    with running(office.scene.worker(office.step(idempotency=IdempotencyKey(kept=timedelta(milliseconds=200))))):
        eventually(lambda: office.states() == [("unknown", "unknown-effect")], "parked as unknown")
    assert len(office.target.effects) == 1


def test_doubts_about_many_keys_are_parked_and_no_reason_to_wait(office: Office) -> None:
    """An outage outlasts the window: nothing is sent to those in doubt, so no probe of them could go well."""
    target, count = office.target, 15
    target.fault = lambda _: Fault(cut=True)
    office.feed(*[f"k{number}" for number in range(count)])
    kept = timedelta(seconds=1)
    with running(office.scene.worker(office.step(idempotency=IdempotencyKey(kept=kept)))) as (worker,):
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker opens")
        eventually(lambda: len(target.effects) == count, "all were sent")
        assert office.states() == []
        since = time.monotonic()
        eventually(lambda: time.monotonic() - since > kept.total_seconds(), "the window is over")
        target.fault = lambda _: NONE
        office.scene.settled(count)
    assert office.states() == [("unknown", "unknown-effect")] * count
    assert office.effects() == Counter(keys(count))


def test_a_worker_that_was_frozen_longer_than_its_session_sends_nothing_more(office: Office) -> None:
    """The batch came into its hands seven seconds ago; the group has given its partitions away since."""
    office.feed("a", "b")
    step = office.step()
    records = office.scene.read(office.scene.subscription.topic)
    budget = Budget(60, threading.Event())
    budget._owned_at -= 7
    assert step.run(records, budget) == Run([])
    assert office.target.seen == []
    assert len(step.run(records, Budget(60, threading.Event())).results) == 2
    step.close()


class _Waking(NoFence):
    """A step whose process was frozen for seven seconds before its first run."""

    def __init__(self, step: Any) -> None:
        self.digest, self.longest_call_s, self.close = step.digest, step.longest_call_s, step.close
        self._step = step
        self.first: Run | None = None

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        if self.first is None:
            budget._owned_at -= 7
        run: Run = self._step.run(records, budget)
        self.first = self.first or run
        return run


def test_a_worker_that_wakes_polls_and_goes_on_if_it_is_still_the_owner(office: Office) -> None:
    office.feed("a", "b")
    step = _Waking(office.step())
    with running(office.scene.worker(step)):
        office.scene.settled(2)
    assert step.first == Run([])
    assert office.effects() == Counter(keys(2))


def test_a_slow_target_cuts_the_batch_and_the_rest_follows(office: Office) -> None:
    """With a session of a second, as it were: what was not begun in time is begun in the next turn."""
    paced = threading.Event()

    def slow(_: Seen) -> None:
        paced.wait(0.15)

    office.target.before = slow
    office.feed(*[f"k{number}" for number in range(20)])
    step = office.step(concurrency=1)
    step._session_timeout_s = 1.0
    with running(office.scene.worker(step)):
        office.scene.settled(20)
    assert office.effects() == Counter(keys(20))
    assert len(office.target.seen) == 20
