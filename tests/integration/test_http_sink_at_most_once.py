"""An API that keeps no keys and cannot be asked: no call is made twice, and what is in doubt is known by name.

In-memory log, real HTTP. The process dies at every place around the call and its transaction."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from http_sink_harness import QUICK, sink_of
from http_sink_office import Dying, Killed, Office
from http_target import NONE, Fault, Target, mixed_faults

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from delivery_harness import Driven, eventually, running

from heddle import Deadlines, IdempotencyKey, LookUp, UsageError
from heddle.broker.log import Record
from heddle.delivery.envelope import original_of
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.steps import Budget, NoFence, Run
from heddle.delivery.subscription import subscription_of
from heddle.delivery.suspicion import InHand
from heddle.delivery.worker import _Stopped
from heddle.errors import AuthError, StaleGenerationError
from heddle.integration import Outcome

ONCE: dict[str, Any] = {"idempotency": None, "at_most_once": True}


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


@pytest.fixture
def office(target: Target) -> Iterator[Office]:
    made = Office(target)
    declared = subscription_of(sink_of(target.url, on_failure=QUICK, **ONCE))
    made.scene.subscription = replace(
        made.scene.subscription, at_most_once=declared.at_most_once, on_failure=declared.on_failure
    )
    yield made
    made.scene.close()


def effects(target: Target) -> Counter[str]:
    return Counter(seen.json["entry"] for seen in target.effects)


def killed(office: Office, step: Any) -> None:
    """A worker that dies."""
    driven = Driven(office.scene.worker(step))
    driven.open()
    with pytest.raises(Killed):
        driven.until(lambda: False)
    driven.abandon()


class _DyingBefore(NoFence):
    """Its process dies before the first call."""

    def __init__(self, step: Any) -> None:
        self.digest, self.longest_call_s = step.digest, step.longest_call_s
        self.close, self.holds, self.forget = step.close, step.holds, step.forget

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        raise Killed


def test_all_is_delivered_once_one_of_a_partition_at_a_time(office: Office) -> None:
    office.feed(*[f"k{number}" for number in range(30)])
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(30)
    assert effects(office.target) == Counter(f"k{number}" for number in range(30))
    assert office.scene.entries() == []
    assert [position.metadata for position in office.scene.positions().values() if _marks(position.metadata)] == []


def _marks(metadata: str) -> tuple[InHand, ...]:
    return PartitionMetadata.unpack(metadata).marks


@pytest.mark.parametrize("when", ["before the call", "between call and commit"])
def test_a_successor_parks_the_one_record_in_doubt_as_unknown_and_goes_on(office: Office, when: str) -> None:
    office.feed("a", "b", "c")
    step = office.step(**ONCE)
    killed(office, _DyingBefore(step) if when == "before the call" else Dying(step, iter([True])))
    assert _marks(office.scene.positions()[0].metadata) == (InHand("live", 0),)
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(3)
    assert office.states() == [("unknown", "unknown-effect")]
    assert effects(office.target) == Counter(["b", "c"] if when == "before the call" else ["a", "b", "c"])


def test_a_crash_in_an_entrys_retry_leaves_that_entry_unknown(office: Office) -> None:
    refused = iter([Fault(status=503)])
    office.target.fault = lambda _: next(refused, NONE)
    office.feed("a")
    deaths = iter([False, True])
    killed(office, Dying(office.step(**ONCE), deaths))
    assert len(office.target.effects) == 1
    office.feed("b", first=1)
    with running(office.scene.worker(office.step(**ONCE))):
        eventually(lambda: office.states() == [("unknown", "unknown-effect")], "parked as unknown")
        office.scene.settled(2)
    assert effects(office.target) == Counter("ab")


@pytest.mark.parametrize(
    "fault", [Fault(cut=True), Fault(reset=True), Fault(delay_s=30), Fault(status=500), Fault(status=502)], ids=str
)
def test_what_gives_no_clear_answer_is_unknown_at_once(office: Office, fault: Fault) -> None:
    office.target.fault = lambda seen: fault if b'"a"' in seen.body else NONE
    office.feed("a", "b")
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(2)
    assert office.states() == [("unknown", "unknown-effect")]
    assert Counter(seen.json["entry"] for seen in office.target.seen) == Counter("ab")


@pytest.mark.parametrize("status", [503, 429, 408])
def test_what_was_refused_from_the_start_is_sent_again(office: Office, status: int) -> None:
    refused = iter([Fault(status=status)] * 2)
    office.target.fault = lambda _: next(refused, NONE)
    office.feed("a")
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(1)
        eventually(lambda: not office.states(), "every entry resolved")
    assert (effects(office.target), len(office.target.seen)) == (Counter("a"), 3)


def test_a_target_that_is_down_is_waited_for_and_a_stop_meanwhile_leaves_nothing_in_doubt(office: Office) -> None:
    office.target.stop()
    office.feed("a", "b")
    with running(office.scene.worker(office.step(**ONCE))) as (worker,):
        eventually(lambda: worker.worker.waiting is not None, "it pauses")
    assert not any(_marks(position.metadata) for position in office.scene.positions().values())
    office.target.start()
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(2)
    assert (effects(office.target), office.states()) == (Counter("ab"), [])


def test_a_call_whose_transaction_is_refused_is_not_made_again_by_the_same_hands(office: Office) -> None:
    office.feed("a", "b")
    driven = Driven(office.scene.worker(office.step(**ONCE)))
    driven.open()
    transactions, refused = driven.worker._transactions, iter([True, False, True])
    commit = transactions.commit

    def refusing(settlement: Any, group: Any) -> None:
        if settlement.settled and next(refused, False):
            transactions._producer.begin()
            raise StaleGenerationError("the group has moved on")
        commit(settlement, group)

    transactions.commit = refusing  # type: ignore[method-assign]
    driven.until(lambda: office.scene.counts().total == 2)
    driven.close()
    assert (effects(office.target), office.states()) == (Counter("ab"), [])
    assert office.scene.counts().by_outcome[Outcome.APPLIED] == 2


def test_a_mark_that_the_log_refused_is_written_before_the_call_after_all(office: Office) -> None:
    """The group moved on while the mark was on its way; the partition is still ours."""
    office.feed("a")
    driven = Driven(office.scene.worker(Dying(office.step(**ONCE), iter([True]))))
    driven.open()
    assignment, refused = driven.worker._assignment, iter([True])
    commit = assignment.commit

    def refusing(found: Any, *others: Any) -> None:
        if any(owned.metadata.marks for owned in found.values()) and next(refused, False):
            assignment._producer.begin()
            raise StaleGenerationError("the group has moved on")
        commit(found, *others)

    assignment.commit = refusing  # type: ignore[method-assign]
    with pytest.raises(Killed):
        driven.until(lambda: False)
    driven.abandon()
    assert effects(office.target) == Counter("a")
    assert _marks(office.scene.positions()[0].metadata) == (InHand("live", 0),)
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(1)
    assert (effects(office.target), office.states()) == (Counter("a"), [("unknown", "unknown-effect")])


def test_a_stop_before_the_call_leaves_nothing_in_doubt(office: Office) -> None:
    """It comes while the mark is on its way."""
    office.feed("a", "b")
    stop = threading.Event()
    worker = office.scene.worker(office.step(**ONCE))
    worker.open(stop)
    assignment = worker._assignment
    commit = assignment.commit

    def stopping(found: Any, *others: Any) -> None:
        commit(found, *others)
        if any(owned.metadata.marks for owned in found.values()):
            stop.set()

    assignment.commit = stopping  # type: ignore[method-assign]
    with pytest.raises(_Stopped):
        Driven(worker).until(lambda: False)
    worker.close()
    assert (effects(office.target), _marks(office.scene.positions()[0].metadata)) == (Counter(), ())
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(2)
    assert (effects(office.target), office.states()) == (Counter("ab"), [])


def test_refused_credentials_leave_nothing_in_doubt(office: Office) -> None:
    refused = iter([Fault(status=401)])
    office.target.fault = lambda _: next(refused, NONE)
    office.feed("a", "b")
    with pytest.raises(AuthError), running(office.scene.worker(office.step(**ONCE))) as (worker,):
        worker.ended()
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(2)
    assert (effects(office.target), office.states()) == (Counter("ab"), [])


@pytest.mark.parametrize("error", [ConnectionResetError(), ZeroDivisionError(), SystemExit()], ids=repr)
def test_what_a_writer_lets_through_behind_its_call_is_doubt(office: Office, error: BaseException) -> None:
    """Whether it is parked at once or by a successor."""
    office.feed("a", "b")
    step = office.step(**ONCE)
    apply_while, errors = step._writer.apply_while, iter([error])

    def breaking(*given: Any) -> Any:
        made = apply_while(*given)
        if (raised := next(errors, None)) is not None:
            raise raised
        return made

    step._writer.apply_while = breaking
    with contextlib.suppress(SystemExit), running(office.scene.worker(step)):
        eventually(lambda: bool(office.target.effects), "called")
    with running(office.scene.worker(office.step(**ONCE))):
        office.scene.settled(2)
    assert (effects(office.target), office.states()) == (Counter("ab"), [("unknown", "unknown-effect")])


def test_no_effect_is_doubled_and_none_lost_through_faults_and_crashes(office: Office, record_property: Any) -> None:
    """Every record has had its effect once, or is unknown: then at most once."""
    target, count = office.target, 120
    target.dedupes = False
    target.fault = mixed_faults(0.1, 5, 0.4, target.injected)
    office.feed(*[f"k{number}" for number in range(count)])
    deaths, crashes = iter([number in (7, 8, 30, 60, 61) for number in range(1_000)]), 0
    options = {**ONCE, "deadlines": Deadlines(connect_s=0.5, read_s=0.3, total_s=0.5)}

    def done() -> bool:
        return office.scene.counts().total == count and all(state == "unknown" for state, _ in office.states())

    while True:
        driven = Driven(office.scene.worker(Dying(office.step(**options), deaths)))
        driven.open()
        try:
            driven.until(done)
        except Killed:
            crashes += 1
            driven.abandon()
            continue
        driven.close()
        break
    made, unknown = effects(target), {(r.key or b"").decode() for r in _originals(office)}
    record_property(
        "summary",
        f"{sum(target.injected.values())} faults, {crashes} crashes: {len(made)} effects, {len(unknown)} unknown",
    )
    assert crashes == 5
    assert set(made.values()) == {1}
    assert set(made) | {key.removeprefix("default/") for key in unknown} == {f"k{number}" for number in range(count)}
    assert len(unknown) < 20


def _originals(office: Office) -> list[Record]:
    return [original_of(record) for record in office.scene.newest()]


@pytest.mark.parametrize(
    "beside", [{"idempotency": IdempotencyKey()}, {"look_up": LookUp("/v1/entries/{entry_id}")}], ids=["key", "look-up"]
)
def test_it_does_not_stand_beside_what_makes_it_needless(beside: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at_most_once= stands beside"):
        sink_of("https://api.example.com", **{**ONCE, **beside})


def test_nothing_of_it_may_be_rewound() -> None:
    bound = sink_of("https://api.example.com", **ONCE).pruned_before()
    assert bound is not None
    assert datetime.now(UTC) - bound < timedelta(minutes=1)
