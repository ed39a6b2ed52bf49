"""What a declaration of an HTTP sink may say, and what is refused when it is made; when a try may have had its
effect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from heddle import (
    Basic,
    Deadlines,
    DependencyDownError,
    Endpoint,
    HttpCall,
    HttpSink,
    IdempotencyKey,
    LookUp,
    TransientError,
    UsageError,
)
from heddle.broker.log import Record
from heddle.delivery.envelope import KILLS, NOT_APPLIED, Envelope, State, entry_of, may_have_effect, original_of
from heddle.delivery.revision import as_handled
from heddle.delivery.sink_step import delivered
from heddle.errors import ContractError, Failure, FailureClass
from heddle.sinks.http.call import encoded
from schemas.ledger import Entry


def sink(**options: Any) -> HttpSink[Entry]:
    given = {"url": "https://api.example.com/v2", "call": Endpoint("POST", "/entries"), "idempotency": IdempotencyKey()}
    return HttpSink("billing", reads=Entry, owner="finance", **{**given, **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "api.example.com"}, "no address of an API"),
        ({"url": "ftp://api.example.com"}, "no address of an API"),
        ({"url": "https://api.example.com/?a=1"}, "no address of an API"),
        ({"url": "https://u:p@api.example.com"}, "holds credentials"),
        ({"call": Endpoint("POST", "/entries/{entry}")}, r"\{entry\} is no field of ledger\.entry\.v1"),
        ({"call": Endpoint("POST", "/entries/{lines}")}, "no text that a path could hold"),
        ({"call": Endpoint("POST", "/entries/{entry_id")}, "without its partner"),
        ({"call": Endpoint("POST", "entries")}, "does not begin with one '/'"),
        ({"call": Endpoint("POST", "//evil/{entry_id}")}, "does not begin with one '/'"),
        ({"call": lambda: None}, "does not take one value"),
        ({"call": "POST /entries"}, "neither an Endpoint nor a plain function"),
        ({"look_up": LookUp("/entries/{id}")}, r"\{id\} is no field"),
        ({"idempotency": None}, "neither idempotency= nor look_up="),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_what_cannot_be_right_is_refused_when_it_is_declared(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        sink(**options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Endpoint("SEND", "/entries"),
        lambda: Endpoint("POST", "/entries", body={"a": 1}),  # type: ignore[arg-type]
        lambda: IdempotencyKey(kept=timedelta(0)),
        lambda: Deadlines(total_s=61),
        lambda: Deadlines(connect_s=40),
        lambda: Basic("a:b"),
    ],
)
def test_neither_are_its_parts(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_rewind_is_bounded_by_what_the_target_still_knows() -> None:
    bound = sink(idempotency=IdempotencyKey(kept=timedelta(days=7))).pruned_before()
    assert bound is not None
    assert timedelta(0) <= datetime.now(UTC) - timedelta(days=7) - bound < timedelta(seconds=5)
    assert sink(idempotency=None, look_up=LookUp("/entries/{entry_id}")).pruned_before() is None


def test_bodies_are_json_or_bytes() -> None:
    assert encoded({"a": Decimal("1.50"), "b": b"\x00", "c": datetime(2026, 1, 1, tzinfo=UTC)}) == (
        b'{"a":"1.50","b":"AA==","c":"2026-01-01T00:00:00Z"}',
        "application/json",
    )
    assert encoded(b"<xml/>") == (b"<xml/>", "application/octet-stream")
    assert encoded(None) == (b"", "")
    with pytest.raises(ContractError, match="the body is not JSON"):
        encoded({"a": object()})


def test_calls_are_values() -> None:
    assert HttpCall("POST", "/a") == HttpCall("POST", "/a", None, {})


# When a try may have had its effect

RECORD = Record("ledger.entry.v1", 0, 7, b"k", b"", [], 1)
ENVELOPE = Envelope("billing", "billing.dlq", "id", "0" * 64)


def entry_after(failure_class: FailureClass, code: str, *, settled: bool = False) -> Record:
    """What is stored of a record that failed so, perhaps settled as not applied."""
    outgoing = ENVELOPE.failed(RECORD, Failure(0, failure_class, code, "", "no"), State.UNKNOWN)
    stored = Record("billing.dlq", 0, 0, outgoing.key, outgoing.value, list(outgoing.headers), 1)
    if not settled:
        return stored
    moved = ENVELOPE.moved(stored, State.RETRYING, RETRY_AFTER="0", CODE=NOT_APPLIED)
    return stored._replace(headers=list(moved.headers))


@pytest.mark.parametrize(
    ("failure_class", "code", "may"),
    [
        (FailureClass.TRANSIENT, TransientError.code, True),
        (FailureClass.UNKNOWN, "KeyError", True),
        (FailureClass.POISON, KILLS, True),
        (FailureClass.POISON, "http-422", False),
        (FailureClass.CONTRACT, "forbidden-host", False),
        (FailureClass.DEPENDENCY_DOWN, DependencyDownError.code, False),
    ],
)
def test_a_try_may_have_had_its_effect_unless_the_target_refused_it(
    failure_class: FailureClass, code: str, may: bool
) -> None:
    assert may_have_effect(entry_after(failure_class, code)) is may
    assert not may_have_effect(entry_after(failure_class, code, settled=True))


@pytest.mark.parametrize(
    ("failure_class", "code", "may"),
    [(FailureClass.CONTRACT, "mapping", True), (FailureClass.POISON, "http-422", False)],
)
def test_a_try_that_sent_nothing_does_not_hide_one_before_it(failure_class: FailureClass, code: str, may: bool) -> None:
    """A mapping that a new release broke, say: the call before it is as undecided as it was."""

    def again(earlier: Record) -> Record:
        failure = Failure(0, failure_class, code, "", "no")
        outgoing = ENVELOPE.failed(RECORD, failure, State.DEAD, was=entry_of(earlier), earlier=earlier)
        return earlier._replace(headers=list(outgoing.headers))

    first = entry_after(FailureClass.TRANSIENT, "read-timeout")
    assert may_have_effect(again(again(first))) is may
    assert not may_have_effect(again(entry_after(FailureClass.TRANSIENT, "read-timeout", settled=True)))
    assert not may_have_effect(again(entry_after(FailureClass.CONTRACT, "mapping")))


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("since_ms", [None, 0, 12_345])
def test_a_sink_is_told_when_a_record_was_tried_first(is_ordered: bool, since_ms: int | None) -> None:
    original = original_of(entry_after(FailureClass.TRANSIENT, "deadline"))
    handled = as_handled(original, 0, is_ordered=is_ordered, tried_since_ms=since_ms)
    told = delivered(handled, None)
    assert (told.replayed, told.tried_since_ms) == (not is_ordered, since_ms)
    assert told.event.extra == []
