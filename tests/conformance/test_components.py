"""Declared components run by the worker, on both brokers: mapping, function, async function, converter, sink.

The contracts are the reference integration's own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from broker_world import World
from delivery_harness import Scene, running

from heddle import (
    ContractError,
    DependencyDownError,
    Draft,
    Event,
    Flow,
    Mapping,
    Sink,
    StandardWebhooks,
    WebhookSource,
    secret,
)
from heddle.broker.log import Broker, Outgoing, Record
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of, load_contracts
from heddle.delivery.build import open_step
from heddle.delivery.derived import DerivedHeaders
from heddle.delivery.revision import as_handled
from heddle.delivery.steps import Budget, Step
from heddle.errors import Failure, FailureClass, UnknownEffectError, UsageError
from heddle.event import Identity, Lineage, event_headers, event_time, parse_headers
from heddle.integration import Applied, Delivered, Outcome, SinkWriter
from heddle.mapping import constant, default, equals, required, take, text
from heddle.settings import Settings
from schemas.billing import Invoice
from schemas.crm import Deal

ROOT = Path(__file__).resolve().parents[2]
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CODE_DIGEST = "c0de" * 16
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def broker(world: World) -> Broker:
    return world.broker


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(load_contracts(ROOT))


@pytest.fixture
def stage(broker: Broker, registry: MemoryRegistry) -> Iterator[Stage]:
    made = Stage(Scene(broker), registry)
    yield made
    made.scene.close()


@dataclass
class Stage:
    """A scene whose step writes to the scene's own output topic, whatever the contract says."""

    scene: Scene
    registry: MemoryRegistry

    def run(self, component: Any, count: int, **settings: object) -> None:
        step = open_step(component, "shop", CODE_DIGEST, self.registry, Settings.model_validate(settings))
        with running(self.scene.worker(_Redirected(step, self.scene.subscription.writes[0]), **settings)):  # type: ignore[arg-type]
            self.scene.settled(count)

    def feed_deals(self, *deals: Deal, **more: Any) -> None:
        codec: AvroCodec[Deal] = AvroCodec(contract_of(Deal), self.registry)
        self.feed_values(*[(deal.deal_id, codec.encode(deal)) for deal in deals], **more)

    def feed_values(
        self, *records: tuple[str, bytes | None], extra: list[tuple[str, bytes | None]] | None = None
    ) -> None:
        producer = self.scene._feeder
        producer.begin()
        for number, (key, value) in enumerate(records):
            identity = Identity("/sources/crm", f"e{number}")
            lineage = Lineage("r.0", Identity("/sources/crm", f"root{number}")).pack()
            headers = event_headers(identity, "crm.deal.v1", event_time(NOW).encode(), lineage, TRACE, extra or [])
            producer.produce([Outgoing(self.scene.subscription.topic, key.encode(), value, headers, 0)])
        producer.commit(30)

    def invoices(self) -> list[tuple[Record, Invoice]]:
        codec: AvroCodec[Invoice] = AvroCodec(contract_of(Invoice), self.registry)
        records = self.scene.read(self.scene.subscription.writes[0])
        return [(record, codec.decode(record.value)) for record in records]


class _Redirected:
    """Two tests on one broker must not share a contract's topic."""

    def __init__(self, step: Step, topic: str) -> None:
        self._step = step
        self._topic = topic
        self.digest, self.longest_call_s = step.digest, step.longest_call_s
        self.bump, self.release, self.close = step.bump, step.release, step.close

    def run(self, records: Sequence[Record], budget: Budget) -> Any:
        run = self._step.run(records, budget)
        moved = [
            type(result)(o._replace(topic=self._topic) for o in result) if isinstance(result, list) else result
            for result in run.results
        ]
        return run._replace(results=moved, batch=run.batch._replace(topic=self._topic))


def deal(deal_id: str = "d1", **changes: Any) -> Deal:
    won = Deal(
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
    return replace(won, **changes)


def invoice_from(deal: Deal, suffix: str = "") -> Invoice:
    if deal.close_value is None:
        raise ContractError("the deal has no value", path="close_value")
    return Invoice(
        invoice_id=f"INV-{deal.deal_id}{suffix}",
        deal_id=deal.deal_id,
        customer=deal.account or "?",
        sales_agent=deal.sales_agent,
        issued_on=deal.closed_on or date(2026, 1, 1),
        product=deal.product,
        list_price=deal.close_value,
        discount=Decimal("0.00"),
        total=deal.close_value,
        currency=deal.currency,
        status="OPEN",
        changed_at=deal.changed_at,
    )


def flow(do: Any) -> Flow[Deal, Invoice]:
    return Flow("to-invoice", reads=Deal, writes=Invoice, do=do, owner="finance")


invoice_of = Mapping(
    Deal,
    Invoice,
    when=equals("stage", "WON"),
    invoice_id=text("INV-", take("deal_id")),
    deal_id="deal_id",
    customer=default("account", "?"),
    sales_agent="sales_agent",
    issued_on=required("closed_on"),
    product="product",
    list_price=required("close_value"),
    discount=constant(Decimal(0)),
    total=required("close_value"),
    currency="currency",
    status=constant("OPEN"),
    changed_at="changed_at",
)


def test_a_mapping_emits_with_derived_identity_and_forwards_what_is_not_ours(stage: Stage) -> None:
    stage.feed_deals(deal(), deal("d2", stage="LOST"), extra=[("x-team", b"1"), ("x-team", b"2")])
    stage.run(flow(invoice_of), 2)
    ((record, invoice),) = stage.invoices()
    assert invoice == invoice_from(deal())
    assert record.key == b"default/INV-d1"
    parsed = parse_headers(record.headers, "", 0, 0, 0)
    derived = DerivedHeaders("demo", "to-invoice", "billing.invoice.v1", "any")
    want = derived.id_of(b"/sources/crm", b"e0", b"default/INV-d1", 0).decode()
    assert parsed.identity == Identity("/shop/to-invoice", want)
    assert parsed.lineage == Lineage(f"{invoice_of.digest[:16]}.0", Identity("/sources/crm", "root0"))
    assert (parsed.time.decode(), parsed.traceparent) == (event_time(NOW), TRACE)
    assert parsed.extra == [("x-team", b"1"), ("x-team", b"2")]


def test_a_mapping_failure_parks_the_record_with_its_path(stage: Stage) -> None:
    stage.feed_deals(deal("d1", close_value=None), deal("d2"))
    stage.run(flow(invoice_of), 2)
    ((state, _, code),) = [(s, v, c) for s, v, c in _entries(stage)]
    assert (state, code) == ("dead", "required")
    assert len(stage.invoices()) == 1


def _entries(stage: Stage) -> list[tuple[str, bytes, str]]:
    records = stage.scene.read(stage.scene.subscription.dead_letter_topic)
    found = []
    for record in records:
        headers = {name: (value or b"").decode() for name, value in record.headers}
        found.append((headers["heddle-state"], record.value or b"", headers.get("heddle-code", "")))
    return found


def test_undecodable_bytes_are_dead_with_the_original_bytes(stage: Stage) -> None:
    good = AvroCodec(contract_of(Deal), stage.registry).encode(deal("d9"))
    bad = [("a", b"not avro"), ("b", good[:-3]), ("c", b"\0\xff\xff\xff\xff1"), ("d", good)]
    stage.feed_values(*bad)
    stage.run(flow(invoice_of), 4)
    assert [(value, code) for _, value, code in _entries(stage)] == [
        (b"not avro", "foreign-bytes"),
        (good[:-3], "truncated"),
        (b"\0\xff\xff\xff\xff1", "unknown-schema-id"),
    ]


def test_a_function_returns_none_one_or_many_and_ordinals_count_within_a_key(stage: Stage) -> None:
    def split(deal: Deal) -> list[Invoice] | Invoice | None:
        if deal.stage == "LOST":
            return None
        if deal.stage == "ENGAGING":
            return invoice_from(deal)
        return [invoice_from(deal), invoice_from(deal, "-b"), invoice_from(deal)]

    stage.feed_deals(deal("d1"), deal("d2", stage="LOST"), deal("d3", stage="ENGAGING"))
    stage.run(flow(split), 3)
    ids = {parse_headers(record.headers, "", 0, 0, 0).identity.id for record, _ in stage.invoices()}
    derived = DerivedHeaders("demo", "to-invoice", "billing.invoice.v1", "any")
    assert len(ids) == 4
    for key, ordinal in ((b"default/INV-d1", 0), (b"default/INV-d1-b", 0), (b"default/INV-d1", 1)):
        assert derived.id_of(b"/sources/crm", b"e0", key, ordinal).decode() in ids


def test_a_function_with_a_second_parameter_gets_the_event(stage: Stage) -> None:
    seen: list[Event[Deal]] = []

    def keep(deal: Deal, event: Event[Deal]) -> None:
        seen.append(event)

    stage.feed_deals(deal())
    stage.run(flow(keep), 1)
    (event,) = seen
    assert (event.value, event.identity, event.type) == (deal(), Identity("/sources/crm", "e0"), "crm.deal.v1")
    assert (event.key, event.time, event.lineage.root.id) == ("d1", event_time(NOW), "root0")


def test_a_function_that_yields_what_the_contract_refuses_is_that_records_failure(stage: Stage) -> None:
    def wrong(deal: Deal) -> Invoice:
        return replace(invoice_from(deal), total=Decimal("0.001"))

    stage.feed_deals(deal())
    stage.run(flow(wrong), 1)
    assert [(state, code) for state, _, code in _entries(stage)] == [("dead", "decimal-scale")]


def test_an_async_function_keeps_order_within_a_key_and_runs_keys_side_by_side(stage: Stage) -> None:
    order: list[str] = []
    together = asyncio.Event()
    waiting = 0

    async def slow(deal: Deal) -> Invoice:
        nonlocal waiting
        waiting += 1
        if waiting >= 2:
            together.set()  # reached only when two keys are in flight at once
        async with asyncio.timeout(20):
            await together.wait()
        order.append(f"{deal.deal_id}:{deal.sales_agent}")
        return invoice_from(deal)

    deals = [deal(key, sales_agent=str(n)) for n in range(3) for key in ("a", "b")]
    stage.feed_deals(*deals)
    stage.run(flow(slow), 6, batch_max_wait_s=1.0)
    for key in ("a", "b"):
        assert [entry for entry in order if entry.startswith(key)] == [f"{key}:{n}" for n in range(3)]
    assert len(stage.invoices()) == 6


def test_an_async_failure_holds_only_its_own_key(stage: Stage) -> None:
    async def picky(deal: Deal) -> Invoice:
        if deal.sales_agent == "bad":
            raise RuntimeError("no")
        return invoice_from(deal)

    stage.feed_deals(deal("a", sales_agent="bad"), deal("a"), deal("b"), deal("a"))
    stage.run(flow(picky), 4, batch_max_wait_s=1.0)
    assert [state for state, _, _ in _entries(stage)] == ["retrying", "waiting", "waiting"]
    assert [invoice.deal_id for _, invoice in stage.invoices()] == ["b"]


def test_an_async_handler_past_its_deadline_is_cancelled_and_parked_as_transient(stage: Stage) -> None:
    cancelled: list[str] = []

    async def stuck(deal: Deal) -> Invoice:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(deal.deal_id)
            raise
        return invoice_from(deal)

    late = Flow("late", reads=Deal, writes=Invoice, do=stuck, owner="finance", deadline_s=0.1)
    stage.feed_deals(deal())
    stage.run(late, 1)
    assert cancelled == ["d1"]
    assert [(state, code) for state, _, code in _entries(stage)] == [("retrying", "deadline")]


def test_something_cancelled_inside_an_async_handler_is_that_records_failure(stage: Stage) -> None:
    async def cancelled_inside(deal: Deal) -> Invoice:
        if deal.deal_id == "a":
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other
        return invoice_from(deal)

    stage.feed_deals(deal("a"), deal("b"))
    stage.run(flow(cancelled_inside), 2)
    assert [(state, code) for state, _, code in _entries(stage)] == [("retrying", "transient")]
    assert [invoice.deal_id for _, invoice in stage.invoices()] == ["b"]


def test_a_time_out_of_the_handlers_own_is_not_called_ours(stage: Stage) -> None:
    async def impatient(deal: Deal) -> Invoice:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        return invoice_from(deal)

    stage.feed_deals(deal())
    stage.run(flow(impatient), 1)
    assert [(state, code) for state, _, code in _entries(stage)] == [("retrying", "timeout")]


class _AsyncObject:
    async def __call__(self, deal: Deal) -> Invoice:
        return invoice_from(deal)


def test_an_object_with_an_async_call_is_an_async_handler(stage: Stage) -> None:
    stage.feed_deals(deal())
    stage.run(flow(_AsyncObject()), 1)
    assert len(stage.invoices()) == 1


def test_a_parameter_with_a_default_is_not_the_event(stage: Stage) -> None:
    def with_rates(deal: Deal, rates: str = "table") -> Invoice:
        assert rates == "table"
        return invoice_from(deal)

    stage.feed_deals(deal())
    stage.run(flow(with_rates), 1)
    assert len(stage.invoices()) == 1


def test_handlers_of_a_wrong_shape_are_refused_where_they_are_declared() -> None:
    async def generator(deal: Deal) -> Any:
        yield invoice_from(deal)

    for wrong in (generator, lambda: None, lambda a, b, c: None, lambda deal, *, rates: None):
        with pytest.raises(UsageError):
            flow(wrong)


def test_an_async_dependency_that_is_down_cuts_the_tail_and_the_rest_runs_later(stage: Stage) -> None:
    calls: list[str] = []

    async def once_down(deal: Deal) -> Invoice:
        calls.append(deal.deal_id)
        if deal.deal_id == "b" and calls.count("b") == 1:
            raise DependencyDownError("no answer")
        return invoice_from(deal)

    stage.feed_deals(deal("a"), deal("b"), deal("c"))
    stage.run(flow(once_down), 3, batch_max_wait_s=1.0)
    assert sorted(invoice.deal_id for _, invoice in stage.invoices()) == ["a", "b", "c"]
    assert _entries(stage) == []


def test_a_converter_gives_events_the_vendors_identity(stage: Stage) -> None:
    def convert(delivery: Any) -> Iterable[Draft[Deal]]:
        for number, body in enumerate(delivery.json()):
            yield Draft(deal(body["id"]), id=f"{delivery.id}-{number}", time=NOW)

    source = WebhookSource(
        "shop",
        path="/hooks/shop",
        signature=StandardWebhooks(secret("shop/webhook")),
        emits=Deal,
        convert=convert,
        owner="sales",
    )
    stage.feed_values(("k", json.dumps([{"id": "x"}, {"id": "y"}]).encode()), ("m", b"{nonsense"))
    stage.run(source, 2)
    records = stage.scene.read(stage.scene.subscription.writes[0])
    found = sorted((parse_headers(r.headers, "", 0, 0, 0).identity, r.key) for r in records)
    assert found == [
        (Identity("/sources/shop", "e0-0"), b"default/x"),
        (Identity("/sources/shop", "e0-1"), b"default/y"),
    ]
    parsed = parse_headers(records[0].headers, "", 0, 0, 0)
    assert parsed.traceparent == TRACE
    assert parsed.lineage.root == parsed.identity
    assert [(state, code) for state, _, code in _entries(stage)] == [("dead", "malformed-json")]


class _Ledger:
    """A sink writer in memory that refuses some deals."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    def bump(self, partitions: Iterable[int]) -> None: ...

    def release(self, partitions: Iterable[int]) -> None: ...

    def close(self) -> None: ...

    def apply(self, batch: Sequence[Delivered[Deal]]) -> tuple[list[Applied | None], list[Failure]]:
        answers: list[Applied | None] = []
        failures = []
        for index, delivered in enumerate(batch):
            if delivered.event.value.product == "refused":
                failures.append(Failure(index, FailureClass.CONTRACT, "check", "product", "refused"))
                answers.append(None)
                continue
            self.applied.append(delivered.event.value.deal_id)
            answers.append(Applied(Outcome.APPLIED))
        return answers, failures


class _LedgerSink(Sink[Deal]):
    reads = Deal

    def __init__(self, writer: _Ledger) -> None:
        super().__init__("mem-ledger", owner="finance")
        self._writer = writer

    def open(self) -> SinkWriter[Deal]:
        return self._writer


def test_a_sink_applies_what_decodes_and_keeps_a_failed_keys_later_events_back(stage: Stage) -> None:
    writer = _Ledger()
    good = AvroCodec(contract_of(Deal), stage.registry)
    stage.feed_values(
        ("a", b"junk"),
        ("a", good.encode(deal("a"))),
        ("b", good.encode(deal("b"))),
        ("c", good.encode(deal("c", product="refused"))),
        ("d", good.encode(deal("d"))),
    )
    stage.run(_LedgerSink(writer), 5)
    assert writer.applied == ["b", "d"]
    assert [state for state, _, _ in _entries(stage)] == ["dead", "waiting", "dead"]
    counts = stage.scene.counts().by_outcome
    assert (counts[Outcome.APPLIED], counts[Outcome.PARKED], counts[Outcome.DIVERTED]) == (2, 2, 1)


def test_what_a_sink_emits_of_an_effect_that_was_there_counts_as_recovered(stage: Stage) -> None:
    class Answering(_Ledger):
        def apply(self, batch: Sequence[Delivered[Deal]]) -> tuple[list[Applied | None], list[Failure]]:
            deals = [delivered.event.value for delivered in batch]
            return [Applied(Outcome.APPLIED, deal.deal_id == "a", (invoice_from(deal),)) for deal in deals], []

    sink = _LedgerSink(Answering())
    sink.emits = Invoice
    stage.feed_deals(deal("a"), deal("b"))
    stage.run(sink, 2)
    counts = stage.scene.counts()
    assert (counts.by_outcome[Outcome.EMITTED], counts.recovered) == (2, 1)
    assert len(stage.invoices()) == 2


# Tombstones


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_call_whose_effect_is_in_doubt_is_not_made_again_by_the_same_hands(stage: Stage, is_async: bool) -> None:
    """Its batch was cut before it, or its transaction refused: the record comes again before it was parked."""
    calls: list[str] = []

    def bill(deal: Deal) -> Invoice:
        calls.append(deal.deal_id)
        if deal.deal_id == "d2":
            raise UnknownEffectError("was it booked?")
        return invoice_from(deal)

    async def bill_async(deal: Deal) -> Invoice:
        return bill(deal)

    stage.feed_deals(deal(), deal("d2"))
    records = stage.scene.read(stage.scene.subscription.topic)
    do = flow(bill_async if is_async else bill)
    step = open_step(do, "shop", CODE_DIGEST, stage.registry, Settings.model_validate({}))

    def run(*records: Record) -> list[str]:
        calls.clear()
        result = step.run(records, Budget(60, threading.Event())).results[-1]
        assert isinstance(result, Failure)
        assert (result.code, result.index) == (UnknownEffectError.code, len(records) - 1)
        return calls

    assert run(*records) == ["d1", "d2"]
    assert run(*records) == ["d1"]
    assert run(as_handled(records[1], 0, is_ordered=True, tried_since_ms=0)) == ["d2"]  # an entry: settled since
    step.release([records[1].partition])
    assert run(records[1]) == ["d2"]
    step.close()


async def _async_invoice(deal: Deal) -> Invoice:
    return invoice_from(deal)


def _key_of_invoice(key: dict[str, Any]) -> dict[str, Any] | None:
    return None if key["deal_id"] == "d9" else {"invoice_id": f"INV-{key['deal_id']}"}


def _feed_lives(stage: Stage, *names: str) -> None:
    """A name behind a "-" is that of a deal which is gone."""
    codec: AvroCodec[Deal] = AvroCodec(contract_of(Deal), stage.registry)
    stage.feed_values(
        *[(f"default/{n.removeprefix('-')}", None if n.startswith("-") else codec.encode(deal(n))) for n in names]
    )


def _outputs(stage: Stage) -> list[tuple[str, bool]]:
    records = stage.scene.read(stage.scene.subscription.writes[0])
    return sorted(((r.key or b"").decode().removeprefix("default/"), r.value is None) for r in records)


@pytest.mark.parametrize("do", [invoice_of, invoice_from, _async_invoice], ids=["mapping", "function", "async"])
def test_a_tombstone_is_passed_on_under_the_key_of_the_output(stage: Stage, do: Any) -> None:
    _feed_lives(stage, "d1", "-d1", "d2", "-d9")
    declared = Flow("to-invoice", reads=Deal, writes=Invoice, do=do, owner="finance", on_tombstone=_key_of_invoice)
    stage.run(declared, 4)
    assert _outputs(stage) == [("INV-d1", False), ("INV-d1", True), ("INV-d2", False)]
    assert stage.scene.counts().by_outcome[Outcome.EMITTED] == 4
    gone = next(r for r in stage.scene.read(stage.scene.subscription.writes[0]) if r.value is None)
    parsed = parse_headers(gone.headers, "", 0, 0, 0)
    want = DerivedHeaders("shop", "to-invoice", "billing.invoice.v1", "any")
    assert parsed.identity.id == want.id_of(b"/sources/crm", b"e1", b"default/INV-d1", 0).decode()
    assert (parsed.lineage.root.id, parsed.type) == ("root1", b"billing.invoice.v1")


def test_a_tombstone_that_a_flow_ignores_writes_nothing(stage: Stage) -> None:
    _feed_lives(stage, "-d1", "d2")
    stage.run(Flow("to-invoice", reads=Deal, writes=Invoice, do=invoice_of, owner="finance", on_tombstone="ignore"), 2)
    assert _outputs(stage) == [("INV-d2", False)]
    assert stage.scene.entries() == []


def test_a_tombstone_waits_behind_what_failed_of_its_key(stage: Stage) -> None:
    codec: AvroCodec[Deal] = AvroCodec(contract_of(Deal), stage.registry)
    bad = codec.encode(deal("d1", close_value=None))
    stage.feed_values(("default/d1", bad), ("default/d1", None), ("default/d2", None))
    declared = Flow(
        "to-invoice", reads=Deal, writes=Invoice, do=invoice_of, owner="finance", on_tombstone=_key_of_invoice
    )
    stage.run(declared, 3)
    assert [(state, code) for state, _, code in _entries(stage)] == [("dead", "required"), ("waiting", "")]
    assert _outputs(stage) == [("INV-d2", True)]


def test_a_flow_that_declares_nothing_parks_a_tombstone(stage: Stage) -> None:
    _feed_lives(stage, "-d1")
    stage.run(flow(invoice_of), 1)
    assert [(state, code) for state, _, code in _entries(stage)] == [("dead", "tombstone")]


def test_a_key_that_the_function_does_not_make_parks_the_tombstone(stage: Stage) -> None:
    _feed_lives(stage, "-d1", "d2")
    declared = Flow(
        "to-invoice", reads=Deal, writes=Invoice, do=invoice_of, owner="finance", on_tombstone=lambda key: dict(key)
    )
    stage.run(declared, 2)
    assert [(state, code) for state, _, code in _entries(stage)] == [("dead", "missing-field")]
    assert _outputs(stage) == [("INV-d2", False)]
