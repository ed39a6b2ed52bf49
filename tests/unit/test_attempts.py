"""Failures inside of a batch: quick tries, what cuts a batch short, and how a sink's batch tells of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog.testing

from heddle import AuthError, ContractError, DependencyDownError, Flow, Mapping, Sink
from heddle.broker.log import Record
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of, load_contracts
from heddle.delivery.attempts import Attempts
from heddle.delivery.build import open_step
from heddle.delivery.classify import Classifier
from heddle.delivery.steps import SKIPPED, Budget, Run
from heddle.errors import (
    Failure,
    FailureClass,
    RateLimitError,
    RetryLater,
    Stop,
    TransientError,
    UnknownEffectError,
)
from heddle.event import REPLAYED
from heddle.integration import Applied, Delivered, Outcome, SinkWriter
from heddle.mapping import call, constant, default, required, take, text
from heddle.on_failure import Breaker, OnFailure, Order
from heddle.settings import Settings
from schemas.billing import Invoice
from schemas.crm import Deal

REGISTRY = MemoryRegistry(load_contracts(Path(__file__).resolve().parents[2]))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUICK = OnFailure(quick_tries=3, quick_delay_s=0.001)

Handler = Callable[[Deal], Invoice]


def deal(deal_id: str) -> Deal:
    return Deal(
        deal_id=deal_id,
        stage="WON",
        sales_agent="Ana",
        product="GTX Basic",
        account="Cancity",
        engaged_on=date(2026, 1, 1),
        closed_on=date(2026, 3, 1),
        close_value=Decimal("550.00"),
        changed_at=NOW,
    )


def invoice_from(deal: Deal) -> Invoice:
    return Invoice(
        invoice_id=f"INV-{deal.deal_id}",
        deal_id=deal.deal_id,
        customer=deal.account or "?",
        sales_agent=deal.sales_agent,
        issued_on=date(2026, 3, 1),
        product=deal.product,
        list_price=Decimal("550.00"),
        discount=Decimal("0.00"),
        total=Decimal("550.00"),
        currency=deal.currency,
        status="OPEN",
        changed_at=deal.changed_at,
    )


def records(*keys: str, headers: Sequence[tuple[str, bytes | None]] = ()) -> list[Record]:
    codec: AvroCodec[Deal] = AvroCodec(contract_of(Deal), REGISTRY)
    return [
        Record("in", 0, offset, key.encode() or None, codec.encode(deal(key or "none")), list(headers), 0)
        for offset, key in enumerate(keys)
    ]


def plain(call_of: Callable[[str], None]) -> Handler:
    def handle(deal: Deal) -> Invoice:
        call_of(deal.deal_id)
        return invoice_from(deal)

    return handle


def awaited(call_of: Callable[[str], None]) -> Any:
    async def handle(deal: Deal) -> Invoice:
        call_of(deal.deal_id)
        return invoice_from(deal)

    return handle


@pytest.fixture(params=[plain, awaited])
def kind(request: pytest.FixtureRequest) -> Any:
    """A flow's function, plain and async: both fail alike."""
    return request.param


class Calls:
    """A handler's inside: counts its calls, and raises what is planned for a key, in turn; the last for ever."""

    def __init__(self, **planned: list[BaseException | None]) -> None:
        self.planned = planned
        self.seen: list[str] = []

    def __call__(self, key: str) -> None:
        turns = self.planned.get(key, [None])
        error = turns[min(self.seen.count(key), len(turns) - 1)]
        self.seen.append(key)
        if error is not None:
            raise error


def ran(
    do: Any, batch: list[Record], policy: OnFailure = QUICK, *, order: Order = "park", budget: Budget | None = None,
    deadline_s: float = 30.0,
) -> Run:  # fmt: skip
    made = Flow(
        "f", reads=Deal, writes=Invoice, do=do, owner="o", order=order, on_failure=policy, deadline_s=deadline_s
    )
    step = open_step(made, "shop", "c0de" * 16, REGISTRY, Settings())
    try:
        return step.run(batch, budget or Budget(30.0, threading.Event()))
    finally:
        step.close()


def codes(run: Run) -> list[str]:
    return [
        result.code if isinstance(result, Failure) else "skipped" if result is SKIPPED else "ok"
        for result in run.results
    ]


def test_what_a_moment_mends_is_tried_again_inside_the_batch(kind: Any) -> None:
    calls = Calls(a=[ConnectionResetError(), TransientError("once more"), None])
    assert codes(ran(kind(calls), records("a", "b"))) == ["ok", "ok"]
    assert sorted(calls.seen) == ["a", "a", "a", "b"]


def test_quick_tries_run_out_and_the_last_failure_stands(kind: Any) -> None:
    calls = Calls(a=[ConnectionResetError(), ConnectionResetError(), TransientError("third")])
    run = ran(kind(calls), records("a", "a", "b"))
    assert codes(run) == ["transient", "skipped", "ok"]
    assert calls.seen.count("a") == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContractError("no"), "contract"),
        (KeyError("x"), "KeyError"),
        (RetryLater(after=timedelta(seconds=1)), "retry-later"),
        (UnknownEffectError("was it booked?"), "unknown-effect"),
    ],
)
def test_what_a_moment_does_not_mend_is_tried_once(kind: Any, error: Exception, code: str) -> None:
    calls = Calls(a=[error, None])
    assert codes(ran(kind(calls), records("a", "b"))) == [code, "ok"]
    assert calls.seen.count("a") == 1


def test_one_quick_try_is_none_again(kind: Any) -> None:
    calls = Calls(a=[ConnectionResetError(), None])
    assert codes(ran(kind(calls), records("a"), OnFailure(quick_tries=1))) == ["connection"]


def test_a_failure_that_becomes_another_is_classed_as_that(kind: Any) -> None:
    calls = Calls(a=[ConnectionResetError(), ContractError("after all"), None])
    assert codes(ran(kind(calls), records("a"))) == ["contract"]
    calls = Calls(a=[ConnectionResetError(), DependencyDownError("no answer")])
    run = ran(kind(calls), records("a", "b"))
    assert isinstance(run.interrupted, DependencyDownError)


def test_the_integrators_classes_reach_the_quick_tries(kind: Any) -> None:
    policy = replace(QUICK, classes={LookupError: FailureClass.TRANSIENT})
    calls = Calls(a=[KeyError("stock"), None])
    assert codes(ran(kind(calls), records("a"), policy)) == ["ok"]


def test_no_quick_try_begins_once_the_worker_is_asked_to_stop(kind: Any) -> None:
    stop = threading.Event()
    calls = Calls(a=[ConnectionResetError(), None])

    def stopping(key: str) -> None:
        stop.set()
        calls(key)

    assert codes(ran(kind(stopping), records("a", "b"), budget=Budget(30.0, stop))) == ["connection"]
    assert calls.seen == ["a"]


@pytest.mark.parametrize(("answers", "calls"), [([False], 0), ([True, False, False], 0), ([True, True, False], 1)])
def test_before_each_wait_and_each_try_the_batch_is_asked_for_leave(answers: list[bool], calls: int) -> None:
    made: list[int] = []

    def call() -> None:
        made.append(1)
        raise ConnectionResetError

    left = iter(answers)
    result = Attempts(Classifier(), tries=9, delay_s=0.001).failed(
        5, ConnectionResetError(), time.monotonic(), call, lambda: next(left)
    )
    assert isinstance(result, Failure)
    assert (result.index, result.code, len(made), list(left)) == (5, "connection", calls, [])


def test_what_failed_slowly_is_not_tried_again_at_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.delivery.attempts.LONGEST_WAIT_S", -1.0)
    calls = Calls(a=[ConnectionResetError(), None])
    assert codes(ran(kind(calls), records("a"))) == ["connection"]


def test_a_handler_past_its_deadline_is_not_tried_again_at_once() -> None:
    began: list[str] = []

    async def stuck(deal: Deal) -> None:
        began.append(deal.deal_id)
        await asyncio.Event().wait()

    run = ran(stuck, records("a"), deadline_s=0.05)
    assert (codes(run), began) == (["deadline"], ["a"])


def test_the_log_of_quick_tries_holds_nothing_of_the_exception(kind: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        ran(kind(Calls(a=[ConnectionResetError("ana@example.com"), None])), records("a"))
    assert "ana@example.com" not in repr(lines)


def postgres_down() -> psycopg.Error:
    return psycopg.errors.lookup("57P01")("terminating connection")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DependencyDownError("no answer"), DependencyDownError),
        (postgres_down(), DependencyDownError),
        (AuthError("refused"), AuthError),
        (psycopg.errors.lookup("28P01")("no"), AuthError),
        (ExceptionGroup("", [postgres_down()]), DependencyDownError),
    ],
)
def test_a_dependency_that_is_down_cuts_the_batch_before_its_record(
    kind: Any, error: Exception, raised: type[Exception]
) -> None:
    calls = Calls(b=[error])
    run = ran(kind(calls), records("a", "b", "c"))
    assert codes(run) == ["ok"]
    assert type(run.interrupted) is raised
    assert calls.seen.count("b") == 1


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [(Stop("look"), FailureClass.OURS), (RateLimitError("slow"), FailureClass.RATE_LIMIT)],
)
def test_a_stop_and_a_rate_limit_end_the_run_with_their_own_failure(
    kind: Any, error: Exception, failure_class: FailureClass
) -> None:
    calls = Calls(b=[error])
    run = ran(kind(calls), records("a", "b", *("c",) * 200))
    last = run.results[1]
    assert isinstance(last, Failure)
    assert (last.failure_class, last.error, run.interrupted) == (failure_class, error, None)
    assert len(calls.seen) < 100


def test_a_target_that_is_down_is_not_asked_for_the_whole_batch() -> None:
    calls = Calls(**{f"k{number}": [ConnectionRefusedError()] for number in range(1, 100)})
    policy = replace(QUICK, quick_tries=1, breaker=Breaker(keys=4))
    batch = records(*(f"k{number}" for number in range(100)))
    assert codes(ran(plain(calls), batch, policy)) == ["ok", *["connection"] * 4]
    mixed = Calls(**{f"k{number}": [ConnectionRefusedError()] for number in range(100) if number % 4})
    assert len(codes(ran(plain(mixed), batch, policy))) == 100


@pytest.mark.parametrize(
    ("order", "skips"), [("park", True), ("stop", True), ("continue", False), ("supersede", False)]
)
def test_later_records_of_a_failed_key_wait_where_order_asks_for_it(kind: Any, order: Order, skips: bool) -> None:
    calls = Calls(a=[ContractError("first"), None])
    run = ran(kind(calls), records("a", "a", "b"), order=order)
    assert codes(run) == ["contract", "skipped" if skips else "ok", "ok"]


class OutOfStock(Exception): ...


def _mapping(function: Callable[[str], str]) -> Mapping[Deal, Invoice]:
    return Mapping(
        Deal,
        Invoice,
        invoice_id=text("INV-", take("deal_id")),
        deal_id="deal_id",
        customer=default("account", "?"),
        sales_agent="sales_agent",
        issued_on=required("closed_on"),
        product=call(function, "deal_id"),
        list_price=required("close_value"),
        discount=constant(Decimal(0)),
        total=required("close_value"),
        currency="currency",
        status=constant("OPEN"),
        changed_at="changed_at",
    )


def test_a_function_of_a_mapping_is_classed_too_and_tried_no_second_time() -> None:
    """It is asked once more for its words: the engine refuses the record, the object path says what is wrong."""
    calls = Calls(a=[OutOfStock()], b=[ConnectionResetError()], c=[KeyError("x")])

    def product(deal_id: str) -> str:
        calls(deal_id)
        return "GTX"

    policy = replace(QUICK, classes={OutOfStock: FailureClass.TRANSIENT})
    run = ran(_mapping(product), records("a", "b", "c", "d"), policy)
    classes = [result.failure_class for result in run.results if isinstance(result, Failure)]
    assert classes == [FailureClass.TRANSIENT, FailureClass.TRANSIENT, FailureClass.UNKNOWN]
    assert codes(run) == ["call", "call", "call", "ok"]
    assert calls.seen == ["a", "b", "c", "d", "a", "b", "c"]


def test_a_dependency_that_is_down_inside_of_a_mapping_cuts_the_batch() -> None:
    calls = Calls(b=[postgres_down()])

    def product(deal_id: str) -> str:
        calls(deal_id)
        return "GTX"

    run = ran(_mapping(product), records("a", "b", "c"))
    assert codes(run) == ["ok"]
    assert isinstance(run.interrupted, DependencyDownError)


class _Ledger:
    """A sink's open end that does as it is told."""

    def __init__(self, error: Exception | None = None, failures: Sequence[Failure] = ()) -> None:
        self.error = error
        self.failures = list(failures)
        self.got: list[Delivered[Deal]] = []

    def bump(self, partitions: Iterable[int]) -> None: ...

    def release(self, partitions: Iterable[int]) -> None: ...

    def close(self) -> None: ...

    def apply(self, batch: Sequence[Delivered[Deal]]) -> tuple[list[Applied | None], list[Failure]]:
        self.got += batch
        if self.error is not None:
            raise self.error
        failed = {failure.index for failure in self.failures}
        applied = [None if index in failed else Applied(Outcome.APPLIED) for index in range(len(batch))]
        return applied, self.failures


class _LedgerSink(Sink[Deal]):
    reads = Deal

    def __init__(self, writer: _Ledger, policy: OnFailure = QUICK) -> None:
        super().__init__("ledger", owner="finance")
        self.on_failure = policy
        self._writer = writer

    def open(self) -> SinkWriter[Deal]:
        return self._writer


def applied(writer: _Ledger, batch: list[Record], policy: OnFailure = QUICK) -> Run:
    step = open_step(_LedgerSink(writer, policy), "shop", "c0de" * 16, REGISTRY, Settings())
    return step.run(batch, Budget(30.0, threading.Event()))


def test_a_sink_is_told_which_events_were_replayed() -> None:
    writer = _Ledger()
    live = records("a", headers=[("x", b"1")])
    replayed = records("b", headers=[("x", b"1"), (REPLAYED, b"")])
    applied(writer, [*live, *replayed, *records("c")])
    assert [delivered.replayed for delivered in writer.got] == [False, True, False]
    assert [delivered.event.extra for delivered in writer.got] == [[("x", b"1")], [("x", b"1")], []]


def test_a_sinks_failures_are_classed_by_the_integrator_and_never_tried_twice() -> None:
    errors = [OutOfStock(), ConnectionResetError()]
    failures = [Failure(i, FailureClass.UNKNOWN, "refused", "", "", error) for i, error in enumerate(errors)]
    policy = replace(QUICK, classes={OutOfStock: FailureClass.POISON})
    writer = _Ledger(failures=failures)
    results = applied(writer, records("a", "b", "c"), policy).results
    classes = [result.failure_class for result in results if isinstance(result, Failure)]
    assert classes == [FailureClass.POISON, FailureClass.TRANSIENT]
    assert len(writer.got) == 3


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (postgres_down(), DependencyDownError),
        (ConnectionRefusedError(), DependencyDownError),
        (psycopg.errors.lookup("28P01")("no"), AuthError),
        (KeyError("a mistake in the sink"), KeyError),
    ],
)
def test_a_clients_exception_that_gets_through_a_sink_tells_of_its_target(
    error: Exception, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        applied(_Ledger(error), records("a"))
