"""The harness that integrators test failures with: what it shows is what a worker does."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from heddle.errors import (
    AuthError,
    ContractError,
    DependencyDownError,
    EncodeError,
    FailureClass,
    Park,
    RateLimitError,
    RetryLater,
    Stop,
    TransientError,
    UnknownEffectError,
    UsageError,
)
from heddle.event import Draft
from heddle.integration import Flow
from heddle.on_failure import Breaker, Caps, FailureBudget, OnFailure, Order, Retry
from heddle.secrets import secret
from heddle.sources.delivery import Delivery
from heddle.sources.signatures import StandardWebhooks
from heddle.sources.webhook import WebhookSource
from heddle.testing import START, BreakableSink, Crash, Faults, Harness, PauseKind, RecordingSink

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record as schema_of
from building import types_of, write_contract

_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
_WHEN = {"type": "long", "logicalType": "timestamp-micros"}


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Order and Bill."""
    folder = tmp_path_factory.mktemp("contracts")
    order = [("id", "string"), ("product", "string"), ("amount", _MONEY), ("changed_at", _WHEN)]
    for name, fields in (("order", order), ("bill", [("id", "string"), ("product", "string"), ("total", _MONEY)])):
        write_contract(folder, schema_of(fields, name.capitalize(), "shop.v1"), f"shop/{name}.v1")
    return types_of(folder, "shop")


@pytest.fixture
def order(types: ModuleType) -> Callable[..., Any]:
    def make(id: str = "O-1", product: str = "tea", amount: str = "1.50", day: int = 1) -> Any:
        changed_at = datetime(2026, 3, day, tzinfo=UTC)
        return types.Order(id=id, product=product, amount=Decimal(amount), changed_at=changed_at)

    return make


class Desk:
    """A dependency of the flow, and what it was asked."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.calls: list[str] = []

    def price(self, product: str) -> Decimal:
        self.calls.append(product)
        self.faults.check(product)
        if product not in ("tea", "coffee"):
            raise ContractError("no such product", path="product")
        return Decimal("1.50")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def flow_of(types: ModuleType, desk: Desk) -> Callable[..., Flow[Any, Any]]:
    def make(order: Order = "park", **on_failure: Any) -> Flow[Any, Any]:
        def bill_of(order: Any) -> Any:
            return types.Bill(id=order.id, product=order.product, total=desk.price(order.product))

        return Flow(
            "bills", reads=types.Order, writes=types.Bill, do=bill_of, owner="testers", order=order,
            on_failure=OnFailure(**on_failure),
        )  # fmt: skip

    return make


@pytest.fixture
def h(flow_of: Callable[..., Flow[Any, Any]]) -> Iterator[Harness]:
    with Harness(flow_of()) as harness:
        yield harness


# What comes in, what goes out


def test_outputs_carry_what_the_worker_gives_them(h: Harness, order: Any) -> None:
    fed = h.feed(order(), id="e-1", time=datetime(2026, 2, 1, tzinfo=UTC))
    other = h.feed(order("O-2"))
    h.run()
    assert h.outcomes == {"emitted": 2}
    assert [bill.id for bill in h.outputs] == ["O-1", "O-2"]
    assert [bill.id for bill in h.outputs_of("O-2")] == ["O-2"]
    event = h.emitted[0]
    assert (event.key, event.time, event.lineage.root.id) == ("default/O-1", "2026-02-01T00:00:00.000000Z", "e-1")
    assert (fed.key, fed.id, other.id) == ("default/O-1", "e-1", "event-2")
    assert h.history(fed) == ["emitted"]
    assert h.dead_letters == []
    assert (h.paused, h.stopped, h.crashes) == (None, None, 0)


def test_keys_are_the_contracts_unless_they_are_given(h: Harness, order: Any) -> None:
    keys = [h.feed(order(), key=key).key for key in ("", "X", "acme/X", None)]
    assert keys == ["default/O-1", "default/X", "acme/X", None]
    assert h.run().outcomes == {"emitted": 4}


def test_bytes_that_are_no_event_are_dead_at_once(h: Harness) -> None:
    h.feed_bytes(b"{}", key="O-1")
    h.feed_bytes(None, key="O-2")
    h.feed_bytes(b"\0\0\0\0\x09abc")
    h.run()
    found = [(entry.key, entry.state, entry.code, entry.value) for entry in h.dead_letters]
    assert found == [
        ("default/O-1", "dead", "foreign-bytes", b"{}"),
        ("default/O-2", "dead", "tombstone", None),
        (None, "dead", "unknown-schema-id", b"\0\0\0\0\x09abc"),
    ]


def test_what_cannot_be_meant_is_refused_at_once(h: Harness, order: Any) -> None:
    with pytest.raises(EncodeError):
        h.feed(replace(order(), amount=Decimal("1.505")))
    with pytest.raises(UsageError, match="reads Order, not str"):
        h.feed("O-1")
    with pytest.raises(UsageError, match="gets no deliveries"):
        h.deliver({})
    with pytest.raises(UsageError, match="no entry of bills is selected"):
        h.replay()
    assert h.run().outcomes == {}


def test_a_declaration_that_no_worker_takes_is_refused_before_the_test(types: ModuleType) -> None:
    flow = Flow(
        "bills", reads=types.Order, writes=types.Bill, do=lambda _: None, owner="testers", deadline_s=250
    )  # fmt: skip
    with pytest.raises(UsageError, match="a batch may last"), Harness(flow):
        pass


# Parking, and getting back out


def test_later_events_of_a_key_wait_behind_the_one_that_failed(h: Harness, order: Any) -> None:
    failed, later, free = h.feed(order(product="tee")), h.feed(order()), h.feed(order("O-2"))
    h.run()
    assert h.outcomes == {"emitted": 1, "parked": 1, "diverted": 1}
    [entry, follower] = h.dead_letters
    assert (entry.name, entry.state, entry.key) == (f"bills/{failed.entry_id}", "dead", "default/O-1")
    assert (entry.failure_class, entry.code, entry.path) == ("contract", "contract", "product")
    assert (entry.message, entry.attempts, entry.value.product) == ("no such product", 1, "tee")
    assert entry.exception == "heddle.errors.ContractError"
    assert len(entry.fingerprint) == 12
    assert (entry.first_failed, entry.retry_at, entry.waits_behind) == (START, None, None)
    assert (follower.state, follower.attempts, follower.waits_behind) == ("waiting", 0, entry.name)
    assert [h.history(fed) for fed in (failed, later, free)] == [["parked"], ["diverted"], ["emitted"]]


def test_an_edit_repairs_and_what_waited_follows_in_order(h: Harness, order: Any) -> None:
    failed, later = h.feed(order(product="tee")), h.feed(order(product="coffee"))
    h.run()
    receipt = h.edit(h.dead_letters[0], to={"product": "tea"}, reason="misspelt")
    assert receipt.counts == {"emitted": 1}
    assert [bill.product for bill in h.outputs_of("O-1")] == ["tea", "coffee"]
    assert h.history(failed) == ["parked", "edited", "emitted"]
    assert h.history(later) == ["diverted", "emitted"]
    assert (h.dead_letters, h.entry_outcomes) == ([], {"emitted": 2})
    assert h.emitted[0].lineage.revision.endswith(".1")


def test_an_edit_may_be_a_function_and_may_wait_to_be_replayed(h: Harness, order: Any) -> None:
    h.feed(order(product="tee"))
    h.run()
    receipt = h.edit(to=lambda document: {**document, "product": "tea"}, replay=False)
    assert receipt.counts == {"edited": 1}
    [entry] = h.dead_letters
    assert (entry.state, entry.edits, entry.value.product) == ("dead", 1, "tea")
    assert h.replay(entry).counts == {"emitted": 1}


def test_an_edit_that_the_contract_refuses_is_refused_with_the_field(h: Harness, order: Any) -> None:
    h.feed(order(product="tee"))
    h.run()
    with pytest.raises(ContractError) as refused:
        h.edit(to={"amount": "1.505"})
    assert refused.value.path == "amount"
    assert [entry.edits for entry in h.dead_letters] == [0]


def test_a_replay_selects_as_on_the_command_line(h: Harness, order: Any, desk: Desk) -> None:
    desk.faults.fail(Park("closed books"), times=1, keys=["coffee"])
    h.feed(order("O-1", "tee"))
    h.feed(order("O-2", "coffee"))
    h.run()
    assert h.replay(code="parked").counts == {"emitted": 1}
    assert h.replay("0-0").counts == {"failed again": 1}
    [entry] = h.dead_letters
    assert (entry.attempts, h.replay(fingerprint=entry.fingerprint[:6]).failed[0].code) == (2, "contract")
    assert h.replay(where="value.product == 'tee'").counts == {"failed again": 1}
    with pytest.raises(UsageError):
        h.replay(key="O-9")


def test_what_cannot_be_done_with_any_entry_says_why(h: Harness, order: Any) -> None:
    h.feed(order(product="tee"))
    h.run()
    with pytest.raises(UsageError, match="nothing to settle: 0-0: it is dead"):
        h.settle(applied=True)


def test_a_discarded_entry_is_gone_and_what_waited_follows(h: Harness, order: Any) -> None:
    failed = h.feed(order(product="tee"))
    h.feed(order())
    h.run()
    assert h.discard(h.dead_letters[0], reason="an order of our own tests").counts == {"discarded": 1}
    assert (h.history(failed), h.dead_letters) == (["parked", "discarded"], [])
    assert len(h.outputs_of("O-1")) == 1


def test_a_discarded_event_is_recognised_for_a_week_when_it_comes_again(h: Harness, order: Any) -> None:
    h.feed(order(product="tee"), id="e-1")
    h.run()
    h.discard()
    again = h.feed(order(product="tee"), id="e-1")
    h.advance(days=6)
    assert (h.history(again), h.dead_letters) == (["duplicate"], [])
    h.advance(days=2)
    forgotten = h.feed(order(product="tee"), id="e-1")
    h.run()
    assert h.history(forgotten) == ["parked"]


def test_a_deployment_mends_what_a_replay_then_brings_through(
    flow_of: Callable[..., Flow[Any, Any]], types: ModuleType, order: Any
) -> None:
    fixed = Flow(
        "bills", reads=types.Order, writes=types.Bill, owner="testers",
        do=lambda order: types.Bill(id=order.id, product="tea", total=order.amount),
    )  # fmt: skip
    with Harness(flow_of()) as h:
        h.feed(order(product="tee"))
        h.run().restart(fixed).run()
        assert [entry.state for entry in h.dead_letters] == ["dead"]
        assert h.replay().counts == {"emitted": 1}
        with pytest.raises(UsageError, match="not another version"):
            h.restart(Flow("other", reads=types.Order, writes=types.Bill, do=lambda _: None, owner="testers"))


def test_superseding_events_resolve_what_is_parked(flow_of: Callable[..., Flow[Any, Any]], order: Any) -> None:
    with Harness(flow_of("supersede")) as h:
        failed, newer = h.feed(order(product="tee")), h.feed(order(day=2))
        h.run()
        assert h.outcomes == {"emitted": 1, "parked": 1}
        assert h.history(failed) == ["parked", "superseded"]
        assert h.history(newer) == ["emitted"]
        assert h.dead_letters == []


def test_events_may_pass_what_is_parked(flow_of: Callable[..., Flow[Any, Any]], order: Any) -> None:
    with Harness(flow_of("continue")) as h:
        h.feed(order(product="tee"))
        h.feed(order())
        h.run()
        assert h.outcomes == {"emitted": 1, "parked": 1}
        assert [entry.waits_behind for entry in h.dead_letters] == [None]


# Retries, and the clock


def test_retries_come_at_their_times_with_growing_delays(flow_of: Any, desk: Desk, order: Any) -> None:
    policy = Retry(tries=4, first_delay_s=10, longest_delay_s=30)
    desk.faults.fail(TransientError("reset"))
    with Harness(flow_of(transient=policy, quick_tries=3)) as h:
        fed = h.feed(order())
        h.run()
        assert len(desk.calls) == 3  # the quick tries of one run
        for attempts, delay_s in ((1, 10), (2, 20), (3, 30)):
            [entry] = h.dead_letters
            assert entry.retry_at == h.now + timedelta(seconds=delay_s)
            assert (entry.state, entry.attempts) == ("retrying", attempts)
            h.advance_to(entry.retry_at - timedelta(milliseconds=1))
            assert len(desk.calls) == 3 * attempts
            h.advance_to(entry.retry_at)
        [entry] = h.dead_letters
        assert (entry.state, entry.attempts, entry.retry_at) == ("dead", 4, None)
        assert h.history(fed) == ["parked", "failed-again", "failed-again", "failed-again"]
        assert h.entry_outcomes == {"parked": 3}


def test_one_long_advance_lets_every_retry_happen_at_its_time(flow_of: Any, desk: Desk, order: Any) -> None:
    desk.faults.fail(TransientError("reset"), times=3 * 3)
    with Harness(flow_of(transient=Retry(tries=9, first_delay_s=60, longest_delay_s=600))) as h:
        h.feed(order())
        h.advance(minutes=30)
        assert (len(h.outputs), h.entry_outcomes) == (1, {"emitted": 1, "parked": 2})
        assert h.now == START + timedelta(minutes=30)


def test_a_handler_is_taken_at_its_word(h: Harness, desk: Desk, order: Any) -> None:
    desk.faults.fail(RetryLater(after=timedelta(hours=2)), times=1)
    h.feed(order())
    h.feed(order(product="coffee"))
    h.run()
    [entry, follower] = h.dead_letters
    assert entry.retry_at == START + timedelta(hours=2)
    assert (follower.waits_behind, follower.retry_at) == (entry.name, None)
    h.advance(hours=1, minutes=59, seconds=59)
    assert len(h.dead_letters) == 2
    h.advance(seconds=1)
    assert [bill.product for bill in h.outputs] == ["tea", "coffee"]


def test_attempts_and_times_survive_a_restart(flow_of: Any, desk: Desk, order: Any) -> None:
    desk.faults.fail(TransientError("reset"))
    policy = Retry(tries=9, first_delay_s=3600, longest_delay_s=36000)
    with Harness(flow_of(transient=policy, longest_age_s=5000)) as h:
        h.feed(order())
        h.run()
        retry_at = h.dead_letters[0].retry_at
        h.restart().run()
        [entry] = h.dead_letters
        assert (entry.retry_at, entry.attempts, entry.first_failed) == (retry_at, 1, START)
        h.advance_to(START + timedelta(hours=1)).crash().run()
        assert h.dead_letters[0].attempts == 2
        h.advance(hours=3)
        assert (h.dead_letters[0].state, h.dead_letters[0].attempts) == ("dead", 3)


def test_a_command_does_not_expire_on_a_clock_that_has_leapt(h: Harness, order: Any) -> None:
    h.feed(order(product="tee"))
    h.advance(days=400)
    assert h.replay().counts == {"failed again": 1}


# Pauses and stops


def test_an_outage_opens_the_breaker_and_parks_nothing(flow_of: Any, desk: Desk, order: Any) -> None:
    desk.faults.fail(TransientError("connection reset"))
    breaker = Breaker(keys=5, first_probe_s=4, longest_probe_s=8)
    with Harness(flow_of(breaker=breaker)) as h:
        for number in range(20):
            h.feed(order(f"O-{number}"))
        h.run()
        assert h.paused is not None
        assert (h.paused.kind, h.paused.until) == (PauseKind.BREAKER, START + timedelta(seconds=4))
        assert "failed alike" in h.paused.reason
        assert (h.outcomes, h.dead_letters) == ({}, [])
        before = len(desk.calls)
        h.advance(seconds=3)
        assert len(desk.calls) == before
        h.advance(seconds=1)
        assert len(desk.calls) > before
        h.advance(seconds=30)
        waits = [(pause.until - pause.began).total_seconds() for pause in h.pauses if pause.until is not None]
        assert waits == [4, 8, 8, 8, 8]
        desk.faults.mend()
        assert h.advance(seconds=8).paused is None
        assert (h.outcomes, h.dead_letters) == ({"emitted": 20}, [])


def test_a_dependency_that_is_down_is_waited_for(h: Harness, desk: Desk, order: Any) -> None:
    desk.faults.fail(DependencyDownError("the price service does not answer"), keys=["coffee"])
    h.feed(order("O-1"))
    h.feed(order("O-2", "coffee"))
    h.feed(order("O-3"))
    h.run()
    assert h.paused is not None
    assert (h.paused.kind, h.paused.code) == (PauseKind.DEPENDENCY, "dependency-down")
    assert h.outcomes == {"emitted": 1}
    h.advance(hours=1)
    assert (h.outcomes, h.dead_letters) == ({"emitted": 1}, [])
    assert h.paused is not None
    desk.faults.mend()
    assert h.run().outcomes == {"emitted": 1}  # mended, but time has not come
    assert h.advance_to(h.paused.until).outcomes == {"emitted": 3}
    assert [bill.id for bill in h.outputs] == ["O-1", "O-2", "O-3"]


def test_a_rate_limit_is_waited_out_as_told(h: Harness, desk: Desk, order: Any) -> None:
    desk.faults.fail(RateLimitError("slow down", after=timedelta(seconds=90)), times=1)
    h.feed(order())
    h.run()
    [pause] = h.pauses
    assert (pause.kind, pause.until) == (PauseKind.RATE_LIMIT, START + timedelta(seconds=90))
    assert h.advance(seconds=89).outcomes == {}
    assert len(desk.calls) == 1
    assert h.advance(seconds=1).outcomes == {"emitted": 1}
    assert h.paused is None


def test_on_call_is_heard_while_the_subscription_pauses(h: Harness, desk: Desk, order: Any) -> None:
    h.feed(order("O-1", "tee"))
    h.run()
    desk.faults.fail(DependencyDownError("down"))
    h.feed(order("O-2"))
    h.run()
    assert h.paused is not None
    assert h.discard().counts == {"discarded": 1}
    assert (h.outcomes, h.dead_letters) == ({"parked": 1}, [])


def test_at_a_cap_nothing_new_is_read(flow_of: Any, order: Any) -> None:
    with Harness(flow_of(caps=Caps(entries=40), budget=FailureBudget(ratio=1))) as h:
        for number in range(60):
            h.feed(order(f"O-{number}", "tee"))
        h.run()
        assert len(h.dead_letters) == 40
        assert h.paused is not None
        assert (h.paused.kind, h.paused.reason, h.paused.until) == (PauseKind.CAP, "cap: 40 entries", None)
        assert h.outcomes == {"parked": 40}
        h.discard(*h.dead_letters[:10])
        assert (len(h.dead_letters), h.outcomes) == (40, {"parked": 50})
        h.discard()
        h.run()
        assert (h.outcomes, h.paused) == ({"parked": 60}, None)


def test_a_flood_stops_the_subscription_before_it_is_parked(flow_of: Any, order: Any) -> None:
    with Harness(flow_of(budget=FailureBudget(records=10, ratio=0.5))) as h:
        for number in range(30):
            h.feed(order(f"O-{number}", "tee"))
        h.run()
        assert isinstance(h.stopped, Stop)
        assert h.stopped.code == "failure-budget"
        assert (h.outcomes, h.dead_letters) == ({}, [])


@pytest.mark.parametrize("error", [Stop("closed for the year"), AuthError("refused")])
def test_a_stop_is_at_the_record_and_ends_with_a_restart(h: Harness, desk: Desk, order: Any, error: Exception) -> None:
    desk.faults.fail(error, times=1, keys=["coffee"])
    h.feed(order("O-1"))
    h.feed(order("O-2", "coffee"))
    h.run()
    assert h.stopped is error
    assert h.outcomes == {"emitted": 1}
    h.advance(days=1)
    assert h.outcomes == {"emitted": 1}
    assert h.restart().run().outcomes == {"emitted": 2}
    assert h.stopped is None


def test_with_order_stop_a_failure_is_tried_in_its_place_and_then_stops(flow_of: Any, desk: Desk, order: Any) -> None:
    desk.faults.fail(TransientError("reset"))
    with Harness(flow_of("stop", transient=Retry(tries=3, first_delay_s=10, longest_delay_s=10))) as h:
        h.feed(order())
        h.run()
        assert h.paused is not None
        assert h.paused.kind is PauseKind.RETRY
        assert h.stopped is None
        h.advance(minutes=1)
        assert isinstance(h.stopped, Stop)
        assert len(h.pauses) == 2
        assert h.dead_letters == []


def test_a_stop_that_the_test_does_not_look_at_fails_it(flow_of: Any, desk: Desk, order: Any) -> None:
    desk.faults.fail(Stop("closed"))

    def a_test() -> None:
        with Harness(flow_of()) as h:
            h.feed(order())
            h.run()

    with pytest.raises(Stop) as stop:
        a_test()
    assert "stopped: Stop: closed" in stop.value.__notes__[0]


# Crashes


def test_a_record_that_kills_the_process_is_dead_in_the_end_and_its_neighbours_are_not(
    h: Harness, desk: Desk, order: Any
) -> None:
    desk.faults.fail(Crash, keys=["coffee"])
    for number in range(10):
        h.feed(order(f"O-{number}", "coffee" if number == 4 else "tea"))
    h.run()
    assert h.outcomes == {"emitted": 9, "parked": 1}
    [entry] = h.dead_letters
    assert (entry.key, entry.state, entry.code) == ("default/O-4", "dead", "kills-the-process")
    assert h.crashes == 3
    assert len({bill.id for bill in h.outputs}) == len(h.outputs) == 9


def test_an_entry_that_kills_the_process_at_its_retry_is_found_though_no_live_record_is_there(
    h: Harness, desk: Desk, order: Any
) -> None:
    desk.faults.fail(RetryLater(after=timedelta(hours=1)), times=6)
    for number in range(6):
        h.feed(order(f"O-{number}", "coffee" if number == 4 else "tea"))
    h.run()
    assert len(h.dead_letters) == 6
    desk.faults.fail(Crash, keys=["coffee"])
    h.advance(hours=1)
    [entry] = h.dead_letters
    assert (entry.key, entry.state, entry.code, entry.attempts) == ("default/O-4", "dead", "kills-the-process", 2)
    assert h.crashes == 3
    assert h.entry_outcomes == {"emitted": 5, "parked": 1}


def test_a_crash_between_batches_loses_nothing(h: Harness, order: Any) -> None:
    h.feed(order("O-1", "tee"))
    h.run().crash()
    h.feed(order("O-1"))
    h.feed(order("O-2"))
    h.run()
    assert (h.outcomes, h.crashes) == ({"emitted": 1, "parked": 1, "diverted": 1}, 1)


def test_what_crashes_for_ever_ends_the_test(types: ModuleType, order: Any) -> None:
    class Dying(RecordingSink[Any]):
        def open(self) -> Any:
            raise Crash

    with pytest.raises(AssertionError, match="crashed 100 times"), Harness(Dying("bills", reads=types.Order)) as h:
        h.run()


# Async functions and sources


def test_an_async_flow_on_the_callers_thread(types: ModuleType, order: Any) -> None:
    threads = set()
    faults = Faults()

    async def bill_of(order: Any) -> list[Any]:
        threads.add(threading.current_thread())
        faults.check(order.product)
        return [types.Bill(id=order.id, product=order.product, total=order.amount) for _ in range(2)]

    flow = Flow("bills", reads=types.Order, writes=types.Bill, do=bill_of, owner="testers")
    with Harness(flow) as h:
        faults.fail(TransientError("reset"), keys=["tee"])
        faults.fail(Crash, times=1, keys=["tea"])
        h.feed(order("O-1", "tee"))
        h.feed(order("O-1"))
        h.feed(order("O-2"))
        h.run()
        assert (h.outcomes, h.crashes) == ({"emitted": 1, "parked": 1, "diverted": 1}, 1)
        assert [entry.state for entry in h.dead_letters] == ["retrying", "waiting"]
        faults.mend()
        h.advance(minutes=1)
        assert [bill.product for bill in h.outputs_of("O-1")] == ["tee", "tee", "tea", "tea"]
    assert threads == {threading.current_thread()}


@pytest.fixture
def source(types: ModuleType) -> WebhookSource:
    def orders_of(delivery: Delivery) -> Iterator[Draft[Any]]:
        for number, item in enumerate(delivery.json()["orders"]):
            if item["amount"] is None:
                raise ContractError("an order without an amount", path=f"orders[{number}].amount")
            when = datetime(2026, 3, 1, tzinfo=UTC)
            value = types.Order(id=item["id"], product="tea", amount=Decimal(item["amount"]), changed_at=when)
            yield Draft(value, id=f"{delivery.id}:{number}", time=when)

    return WebhookSource(
        "shop", path="/hooks/shop", signature=StandardWebhooks(secret("shop/webhook")), emits=types.Order,
        convert=orders_of, entity="customer", owner="testers",
    )  # fmt: skip


def test_a_sources_conversion_parks_edits_and_replays_from_the_original_bytes(source: WebhookSource) -> None:
    with Harness(source) as h:
        first = h.deliver({"customer": "C-1", "orders": [{"id": "a", "amount": None}]}, id="msg-1")
        h.deliver({"customer": "C-1", "orders": [{"id": "b", "amount": "1.00"}]}, id="msg-2")
        h.deliver('{"customer": "C-2", "orders": []}')
        h.deliver(b"no json", headers={"webhook-id": "msg-4", "cookie": "secret"})
        h.run()
        assert (first.key, first.id) == ("default/C-1", "msg-1")
        assert h.outcomes == {"emitted": 1, "parked": 2, "diverted": 1}
        [failed, follower, garbled] = h.dead_letters
        assert (failed.path, follower.waits_behind) == ("orders[0].amount", failed.name)
        assert (garbled.code, garbled.key, garbled.value) == ("malformed-json", None, b"no json")
        assert h.edit(failed, to={"orders[0].amount": "2.00"}).counts == {"emitted": 1}
        assert [(order.id, order.amount) for order in h.outputs] == [("a", Decimal("2.00")), ("b", Decimal("1.00"))]
        assert [event.identity.id for event in h.emitted] == ["msg-1:0", "msg-2:0"]
        with pytest.raises(UsageError, match="fed with deliveries"):
            h.feed(h.outputs[0])


# Sinks


@pytest.fixture
def sink(types: ModuleType) -> RecordingSink[Any]:
    policy = OnFailure(breaker=Breaker(keys=3))
    return RecordingSink("ledger", reads=types.Order, version="changed_at", on_failure=policy)


def test_a_sink_in_memory_knows_what_it_has_done(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        first = h.feed(order(day=2), id="e-1")
        again = h.feed(order(day=2), id="e-1")
        older = h.feed(order(day=1))
        h.feed(order(day=2, amount="7.00"))
        other = h.feed(order(day=9), id="e-1")
        h.run()
        assert h.outcomes == {"applied": 2, "duplicate": 1, "superseded": 1, "parked": 1}
        assert [h.history(fed) for fed in (first, again, older)] == [["applied"], ["duplicate"], ["superseded"]]
        assert [str(order.amount) for order in sink.applied] == ["1.50", "7.00"]
        assert [event.key for event in sink.events] == ["default/O-1", "default/O-1"]
        assert (h.history(other), h.dead_letters[0].code) == (["parked"], "identity-conflict")


def test_a_row_that_is_refused_holds_up_its_key_alone(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        sink.fail(ContractError("check constraint", path="amount"), keys=["O-1"])
        for id in ("O-1", "O-2", "O-1"):
            h.feed(order(id))
        h.run()
        assert h.outcomes == {"applied": 1, "parked": 1, "diverted": 1}
        sink.mend()
        receipt = h.replay(h.dead_letters[0])
        assert (receipt.counts, len(receipt.followers)) == ({"applied": 1}, 1)
        assert [order.id for order in sink.applied] == ["O-2", "O-1", "O-1"]


def test_a_target_that_is_down_pauses_also_a_worker_that_starts(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        sink.fail(DependencyDownError("no connection"))
        h.feed(order())
        h.run()
        assert h.paused is not None
        assert h.paused.kind is PauseKind.DEPENDENCY
        h.restart().run()
        assert h.paused is not None
        assert h.paused.reason == "no connection"
        h.advance(minutes=1)
        assert (h.outcomes, sink.applied) == ({}, [])
        sink.mend()
        assert h.advance(seconds=5).outcomes == {"applied": 1}
        assert h.paused is None


def test_the_breaker_looks_at_a_sinks_failures_too(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        sink.fail(TransientError("lock time-out"), times=4)
        for number in range(4):
            h.feed(order(f"O-{number}"))
        h.run()
        assert h.paused is not None
        assert h.paused.kind is PauseKind.BREAKER
        assert h.dead_letters == []
        assert h.advance(seconds=2).outcomes == {"applied": 4}


def test_an_effect_that_nobody_knows_of_waits_for_a_person(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        sink.fail(UnknownEffectError("the answer is lost"), times=2)
        booked, lost, later = h.feed(order("O-1")), h.feed(order("O-2")), h.feed(order("O-2"))
        h.run()
        h.advance(days=2)
        assert [entry.state for entry in h.dead_letters] == ["unknown", "unknown", "waiting"]
        with pytest.raises(UsageError, match="settle"):
            h.replay("0-0")
        assert h.settle(h.dead_letters[0], applied=True).counts == {"settled": 1}
        assert h.settle(key="O-2", states=["unknown"], applied=False).counts == {"settled": 1}
        assert [h.history(fed) for fed in (booked, lost, later)] == [
            ["parked", "settled"],
            ["parked", "settled", "applied"],
            ["diverted", "applied"],
        ]
        assert [order.id for order in sink.applied] == ["O-2", "O-2"]


def test_a_crash_after_the_effect_is_recovered_from(sink: RecordingSink[Any], order: Any) -> None:
    with Harness(sink) as h:
        sink.crash_after_effect()
        h.feed(order("O-1"))
        h.feed(order("O-2"))
        h.run()
        assert (h.outcomes, h.recovered, h.crashes) == ({"applied": 2}, 2, 1)
        assert len(sink.applied) == 2


def test_faults_stand_in_front_of_any_sink(types: ModuleType, sink: RecordingSink[Any], order: Any) -> None:
    breakable = BreakableSink(sink)
    with Harness(breakable) as h:
        breakable.fail(Park("not this one"), times=1)
        h.feed(order("O-1"))
        h.feed(order("O-2"))
        h.run()
        assert [order.id for order in sink.applied] == ["O-2"]
        assert [entry.code for entry in h.dead_letters] == ["parked"]
    stand_in = RecordingSink.in_place_of(breakable, version="changed_at")
    assert (stand_in.name, stand_in.reads, stand_in.on_failure) == (sink.name, types.Order, sink.on_failure)


def test_an_integrators_own_exceptions_are_classed_as_declared(sink: RecordingSink[Any], order: Any) -> None:
    class LedgerClosed(Exception):
        pass

    sink.on_failure = OnFailure(classes={LedgerClosed: FailureClass.RATE_LIMIT})
    with Harness(sink) as h:
        sink.fail(LedgerClosed("until Monday"), times=1)
        h.feed(order())
        h.run()
        assert h.paused is not None
        assert (h.paused.kind, h.dead_letters) == (PauseKind.RATE_LIMIT, [])


# For whoever reads why a test failed


def test_a_test_that_fails_is_told_what_happened(flow_of: Any, desk: Desk, order: Any) -> None:

    def a_test() -> None:
        with Harness(flow_of()) as h:
            h.feed(order("O-1", "tee"))
            h.feed(order("O-1"))
            h.run()
            desk.faults.fail(DependencyDownError("no answer"))
            h.feed(order("O-2"))
            h.run()
            assert h.outcomes == {}

    with pytest.raises(AssertionError) as failed:
        a_test()
    assert re.sub(r"\s+$", "", failed.value.__notes__[0], flags=re.MULTILINE) == (
        "what happened to bills, 0:00:00 after the start:\n"
        "  fed: 3, settled: parked 1, diverted 1, not yet: 1\n"
        "  dead letters:\n"
        "    bills/0-0  dead  default/O-1  contract contract at product  attempts: 1\n"
        "    bills/0-2  waiting  default/O-1  behind bills/0-0\n"
        "  pauses:\n"
        "    00:00:00  dependency: no answer, next try 00:00:00 (now)"
    )


def test_what_a_test_itself_raises_inside_a_handler_comes_through(types: ModuleType, order: Any) -> None:
    flow = Flow("bills", reads=types.Order, writes=types.Bill, do=lambda _: pytest.fail("not here"), owner="testers")

    def a_test() -> None:
        with Harness(flow) as h:
            h.feed(order())
            h.run()

    with pytest.raises(pytest.fail.Exception):
        a_test()


def test_nothing_is_left_running(flow_of: Any) -> None:
    before = threading.active_count()
    with Harness(flow_of()) as h:
        h.restart().crash().restart()
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(5)
    assert threading.active_count() <= before


# Tombstones


def test_a_flow_passes_a_tombstone_on_behind_the_event_of_its_key(types: ModuleType, desk: Desk, order: Any) -> None:
    flow = Flow(
        "bills", reads=types.Order, writes=types.Bill, owner="testers", on_tombstone=lambda key: {"id": key["id"]},
        do=lambda order: types.Bill(id=order.id, product=order.product, total=desk.price(order.product)),
    )  # fmt: skip
    with Harness(flow) as h:
        h.feed(order("O-1"))
        gone = h.feed_tombstone("O-1", id="gone")
        h.feed(order("O-2", product="soap"))
        h.feed_tombstone({"id": "O-2"})
        h.feed_tombstone(order("O-3"))
        h.run()
        assert (gone.key, gone.id) == ("default/O-1", "gone")
        assert h.outcomes == {"emitted": 3, "parked": 1, "diverted": 1}
        assert [(entry.key, entry.value is None) for entry in h.dead_letters] == [
            ("default/O-2", False), ("default/O-2", True),
        ]  # fmt: skip
        assert [(event.key, event.value is None) for event in h.emitted] == [
            ("default/O-1", False), ("default/O-1", True), ("default/O-3", True),
        ]  # fmt: skip
        assert h.outputs_of("O-3") == [None]
        with pytest.raises(EncodeError):
            h.feed_tombstone({"product": "tea"})


def test_a_source_is_fed_no_tombstones(source: WebhookSource) -> None:
    with Harness(source) as h, pytest.raises(UsageError, match="fed with deliveries"):
        h.feed_tombstone("C-1")
