"""What a target answers, as events: once each, under ids that outlast crashes, from a retry's or a look-up's answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_sink_harness import apply, events, opened, sink_of
from http_sink_office import Dying, Killed, Office
from http_target import NONE, Fault, Target, mixed_faults
from sql_sink_harness import contract_type

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from delivery_harness import Driven, running

from heddle import ContractError, Deadlines, Endpoint, HttpAnswer, LookUp, UsageError
from heddle.contracts import AvroCodec, contract_of
from heddle.delivery.classify import is_unknown_effect
from heddle.delivery.subscription import subscription_of
from heddle.errors import FailureClass
from heddle.event import parse_headers
from heddle.integration import Outcome
from schemas.ledger import Entry

_SCHEMA = {
    "type": "record",
    "name": "Booked",
    "doc": "Where the target keeps an entry.",
    "fields": [
        {"name": "entry_id", "type": "string", "doc": "Ours."},
        {"name": "remote_id", "type": "int", "doc": "Theirs."},
    ],
}


@pytest.fixture(scope="module")
def booked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The generated type of the contract that the sink emits."""
    return contract_type(tmp_path_factory.mktemp("booked"), _SCHEMA, "entry_id")


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


@pytest.fixture
def emitting(booked: Any) -> dict[str, Any]:
    def from_answer(entry: Entry, answer: HttpAnswer) -> Any:
        return booked(entry_id=entry.entry_id, remote_id=answer.json()["id"])

    return {"emits": booked, "from_answer": from_answer}


def once(fault: Fault) -> Any:
    faults = iter([fault])
    return lambda _: next(faults, NONE)


def told(answers: Any) -> list[list[int]]:
    applied, failures = answers
    assert failures == []
    return [[value.remote_id for value in each.tells] for each in applied]


def test_an_answer_becomes_a_value_of_the_contract(target: Target, emitting: dict[str, Any]) -> None:
    with opened(target, concurrency=1, **emitting) as writer:
        assert told(apply(writer, *events("a", "b"))) == [[1], [2]]


@pytest.mark.parametrize("fault", [Fault(cut=True), Fault(trickle_s=1.0)], ids=["cut", "trickle"])
def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    target: Target, emitting: dict[str, Any], fault: Fault
) -> None:
    target.fault = once(fault)
    with opened(target, **emitting) as writer:
        answers = apply(writer, *events("a"))
        if answers[1]:  # the trickle took too long for another try within the batch
            assert answers[1][0].code == "answer-cut"
            answers = apply(writer, *events("a"))
        assert told(answers) == [[1]]
    assert (len(target.effects), len(target.seen)) == (1, 2)


def test_an_answer_that_is_lost_where_there_is_no_key_is_that_of_the_look_up(
    target: Target, emitting: dict[str, Any]
) -> None:
    target.answer = lambda seen: (200 if target.effects else 404, {}, b'{"id": 7}') if seen.method == "GET" else None
    target.fault = lambda seen: NONE if seen.method == "GET" else Fault(cut=True)
    with opened(target, idempotency=None, look_up=LookUp("/v1/entries/{entry_id}"), **emitting) as writer:
        (failure,) = apply(writer, *events("a"))[1]
        assert failure.failure_class is FailureClass.TRANSIENT
        assert told(apply(writer, *events("a"))) == [[7]]
    assert len(target.effects) == 1


@pytest.mark.parametrize("given", [b"[]", b"not json", b'{"id": "seven"}', b"x" * 70_000])
def test_an_answer_of_which_no_event_can_be_made_is_that_records_failure_and_holds_its_key(
    target: Target, emitting: dict[str, Any], given: bytes
) -> None:
    """Of class unknown: the effect is there, so that an entry that runs again after the key's window is not sent."""
    target.answer = lambda seen: (201, {}, given) if b'"a"' in seen.body else None
    with opened(target, concurrency=1, **emitting) as writer:
        applied, (failure,) = apply(writer, *events("a", "a", "b"))
    assert (failure.index, failure.code, failure.failure_class) == (0, "unreadable-answer", FailureClass.UNKNOWN)
    assert not is_unknown_effect(failure)
    assert [each is not None for each in applied] == [False, False, True]
    assert len(target.seen) == 2


def test_what_the_function_calls_a_contract_failure_is_of_class_unknown_too(
    target: Target, emitting: dict[str, Any]
) -> None:
    def refusing(entry: Entry, answer: HttpAnswer) -> Any:
        raise ContractError("no id")

    with opened(target, **{**emitting, "from_answer": refusing}) as writer:
        (failure,) = apply(writer, *events("a"))[1]
    assert (failure.failure_class, failure.message) == (
        FailureClass.UNKNOWN,
        "billing: no event can be made of the answer (no id)",
    )


def test_several_events_or_none_may_be_made(target: Target, booked: Any) -> None:
    def from_answer(entry: Entry, answer: HttpAnswer) -> Any:
        if entry.entry_id == "b":
            return None
        return [booked(entry_id=entry.entry_id, remote_id=number) for number in (1, 2)]

    with opened(target, emits=booked, from_answer=from_answer) as writer:
        assert told(apply(writer, *events("a", "b"))) == [[1, 2], []]


def test_a_declaration_has_both_or_neither(booked: Any) -> None:
    with pytest.raises(UsageError, match="only one is given"):
        sink_of("https://api.example.com", emits=booked)


def test_the_subscription_writes_into_the_contracts_topic(emitting: dict[str, Any], booked: Any) -> None:
    subscription = subscription_of(sink_of("https://api.example.com", **emitting))
    assert subscription.writes == (contract_of(booked).topic,)


class Emitted:
    """What a reader of committed records finds in the topic."""

    def __init__(self, office: Office, booked: Any) -> None:
        codec: AvroCodec[Any] = AvroCodec(contract_of(booked), office.registry)
        records = office.scene.read(contract_of(booked).topic)
        self.values = [codec.decode(record.value) for record in records]
        parsed = [parse_headers(r.headers, r.topic, r.partition, r.offset, r.timestamp_ms) for r in records]
        self.ids = [each.identity for each in parsed]
        self.roots = [each.lineage.root.id for each in parsed]


def test_each_answer_is_emitted_once_through_faults_and_crashes(
    target: Target, emitting: dict[str, Any], booked: Any, record_property: Any
) -> None:
    """Crashes lie between effect and commit: what is sent again is answered as before."""
    office, count = Office(target, emits=[contract_of(booked)]), 120
    target.fault = mixed_faults(0.1, 3, 0.4, target.injected)
    office.feed(*[f"k{number % 40}" for number in range(count)])
    deaths, crashes = iter([False, True, False, True]), 0
    options = {**emitting, "deadlines": Deadlines(connect_s=0.5, read_s=0.3, total_s=0.5)}
    while True:
        driven = Driven(office.scene.worker(Dying(office.step(**options), deaths), batch_max_records=40))
        driven.open()
        try:
            driven.until(lambda: office.scene.counts().total == count and not office.states())
        except Killed:
            crashes += 1
            driven.abandon()
            continue
        driven.close()
        break
    emitted = Emitted(office, booked)
    record_property("summary", f"{sum(target.injected.values())} faults, {crashes} crashes, {len(emitted.ids)} events")
    assert crashes == 2
    assert len(target.effects) == len(emitted.ids) == len(set(emitted.ids)) == count
    assert sorted(value.remote_id for value in emitted.values) == list(range(1, count + 1))
    assert set(emitted.roots) == {f"e{number}" for number in range(count)}
    assert {identity.source for identity in emitted.ids} == {"/shop/billing"}


def test_the_id_of_an_answers_event_is_made_of_the_events_own(
    target: Target, emitting: dict[str, Any], booked: Any
) -> None:
    """Two sinks that never heard of one another, as before and after a rewind, give the same ids."""
    seen = []
    for _ in range(2):
        office = Office(target, emits=[contract_of(booked)])
        office.feed("a", "b")
        with running(office.scene.worker(office.step(**emitting))):
            office.scene.settled(2)
        assert office.scene.counts().by_outcome[Outcome.EMITTED] == 2
        seen.append(sorted(Emitted(office, booked).ids))
        office.scene.close()
    assert seen[0] == seen[1]
    assert len(target.effects) == 2


def test_an_event_without_an_answers_event_is_applied(target: Target, emitting: dict[str, Any], booked: Any) -> None:
    office = Office(target, emits=[contract_of(booked)])
    office.feed("a", "b")
    call: Endpoint[Any] = Endpoint("POST", "/v1/entries", body=lambda e: None if e.entry_id == "b" else {"id": 1})
    with running(office.scene.worker(office.step(**emitting, call=call))):
        office.scene.settled(2)
    outcomes = office.scene.counts().by_outcome
    assert (outcomes[Outcome.EMITTED], outcomes[Outcome.APPLIED]) == (1, 1)
    assert len(Emitted(office, booked).ids) == 1
