"""What the reference integration does with failures: each declared component, as on-call would meet it."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from consumers import ledger
from heddle.errors import DependencyDownError, TransientError
from heddle.integration import Flow
from heddle.testing import Harness, PauseKind, RecordingSink
from producers import crm_deals, payments
from schemas.crm import Deal
from schemas.ledger import Entry, Line
from topologies import deal_to_invoice, invoice_to_ledger

ROOT = Path(__file__).parents[2]
AT = datetime(2017, 3, 1, 12, tzinfo=UTC)


def deal(deal_id: str = "D-1", **changes: Any) -> Deal:
    won = Deal(
        deal_id=deal_id,
        stage="WON",
        sales_agent="Moses Frase",
        product="GTX Pro",
        account="Cancity",
        engaged_on=date(2016, 10, 20),
        closed_on=date(2017, 3, 1),
        close_value=Decimal("4514.00"),
        changed_at=AT,
    )
    return replace(won, **changes)


def entry(entry_id: str = "invoice:INV-1") -> Entry:
    amount, zero = Decimal("4514.00"), Decimal("0.00")
    lines = (
        Line(account="accounts-receivable", debit=amount, credit=zero),
        Line(account="revenue", debit=zero, credit=amount),
    )
    return Entry(
        entry_id=entry_id, source_id="INV-1", kind="INVOICE", booked_at=AT, currency="USD", lines=lines
    )  # fmt: skip


def with_alias() -> Flow[Any, Any]:
    """The flow after the price table has learnt how agents write it."""
    source = Path(deal_to_invoice.__file__).read_text(encoding="utf-8")
    known = '"GTX Pro": Decimal(4821),'
    assert source.count(known) == 1
    module: dict[str, Any] = {}
    exec(compile(source.replace(known, f'{known} "GTXPro": Decimal(4821),'), "deal_to_invoice.py", "exec"), module)
    flow = module["flow"]
    assert isinstance(flow, Flow)
    return flow


def test_deals_with_a_misspelt_product_park_alike_and_all_others_flow() -> None:
    with Harness(deal_to_invoice.flow) as h:
        misspelt = [h.feed(deal(f"M-{n}", product="GTXPro")) for n in range(5)]
        later = h.feed(deal("M-0", product="GTXPro", stage="LOST"))
        fine = [h.feed(deal(f"D-{n}")) for n in range(20)]
        h.run()
        assert h.outcomes == {"emitted": 20, "parked": 5, "diverted": 1}
        heads = [letter for letter in h.dead_letters if letter.waits_behind is None]
        assert {(letter.code, letter.path) for letter in heads} == {("lookup", "list_price")}
        [fingerprint] = {letter.fingerprint for letter in heads}

        assert h.edit(heads[0], to={"product": "GTX Pro"}, reason="asked the agent").counts == {"emitted": 1}
        assert h.history(later) == ["diverted", "emitted"]
        assert [invoice.invoice_id for invoice in h.outputs_of("INV-M-0")] == ["INV-M-0"]  # LOST makes no invoice

        receipt = h.restart(with_alias()).replay(fingerprint=fingerprint, reason="the price table knows the alias")
        assert receipt.counts == {"emitted": 4}
        assert h.dead_letters == []
        assert all(h.history(fed)[-1] == "emitted" for fed in [*misspelt, *fine])
        assert len(h.outputs) == len({invoice.invoice_id for invoice in h.outputs}) == 25


def test_the_demos_own_deals_fail_as_its_price_table_says() -> None:
    with (ROOT / "demo" / "data" / "crm_sales_pipeline.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["deal_stage"] == "Won"][:200]
    misspelt = {row["opportunity_id"] for row in rows if row["product"] == "GTXPro"}
    assert 0 < len(misspelt) < len(rows)
    with Harness(deal_to_invoice.flow) as h:
        for row in rows:
            value = Decimal(row["close_value"]).quantize(Decimal("0.01"))
            h.feed(deal(row["opportunity_id"], product=row["product"], close_value=value))
        h.run()
        assert {letter.value.deal_id for letter in h.dead_letters} == misspelt
        assert len(h.outputs) == len(rows) - len(misspelt)


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"currency": "EUR"}, "currency", "currency"),
        ({"close_value": None}, "required", "discount"),
        ({"closed_on": None}, "required", "issued_on"),
    ],
)
def test_a_won_deal_that_cannot_be_billed_waits_for_a_person(changes: dict[str, Any], code: str, path: str) -> None:
    with Harness(deal_to_invoice.flow) as h:
        h.feed(deal(**changes))
        h.advance(days=2)
        [letter] = h.dead_letters
        assert (letter.state, letter.attempts, letter.failure_class) == ("dead", 1, "contract")
        assert (letter.code, letter.path) == (code, path)


def test_a_stage_that_the_crm_invents_parks_the_delivery_and_its_bytes_can_be_corrected() -> None:
    body = {
        "opportunity_id": "D-1",
        "deal_stage": "Won-ish",
        "sales_agent": "Moses Frase",
        "product": "GTX Pro",
        "changed_at": AT.isoformat(),
    }
    with Harness(crm_deals.source) as h:
        h.deliver(body, id="msg-1")
        h.deliver(body | {"deal_stage": "Engaging"}, id="msg-2")
        h.deliver(body | {"deal_stage": "Engaging", "opportunity_id": "D-2"}, id="msg-3")
        h.run()
        assert h.outcomes == {"emitted": 1, "parked": 1, "diverted": 1}
        [letter, follower] = h.dead_letters
        assert (letter.path, letter.key, follower.waits_behind) == ("deal_stage", "default/D-1", letter.name)
        h.edit(letter, to={"deal_stage": "Won"})
        assert [deal.stage for deal in h.outputs_of("D-1")] == ["WON", "ENGAGING"]
        assert [event.identity.id for event in h.emitted] == ["msg-3", "msg-1", "msg-2"]


def test_a_payment_in_an_unknown_currency_is_parked_and_other_event_types_pass_unused() -> None:
    intent = {"id": "pi_1", "amount": 451400, "currency": "kwd", "created": 1488369600, "metadata": {"invoice_id": "I"}}
    event = {"id": "evt_1", "type": "payment_intent.succeeded", "created": 1488369600, "data": {"object": intent}}
    with Harness(payments.source) as h:
        h.deliver(event)
        h.deliver({"id": "evt_2", "type": "customer.created", "data": {"object": {}}})
        h.run()
        assert [(letter.path, letter.key) for letter in h.dead_letters] == [("data.object.currency", "default/I")]
        assert h.edit(to={"data.object.currency": "usd"}).counts == {"emitted": 1}
        assert [(payment.amount, payment.currency) for payment in h.outputs] == [(Decimal("4514.00"), "USD")]


def test_an_outage_of_the_ledger_parks_nothing_and_books_each_entry_once() -> None:
    sink = RecordingSink.in_place_of(ledger.sink, version="booked_at")
    with Harness(sink) as h:
        sink.fail(DependencyDownError("the ledger does not answer"))
        for number in range(50):
            h.feed(entry(f"invoice:INV-{number}"))
        h.run().advance(hours=6)
        assert h.paused is not None
        assert h.paused.kind is PauseKind.DEPENDENCY
        assert (h.outcomes, h.dead_letters, sink.applied) == ({}, [], [])
        sink.mend()
        h.advance(seconds=5)
        assert (h.outcomes, h.dead_letters) == ({"applied": 50}, [])
        assert len(sink.applied) == 50


def test_a_ledger_that_refuses_every_booking_alike_opens_the_breaker() -> None:
    sink = RecordingSink.in_place_of(ledger.sink, version="booked_at")
    with Harness(sink) as h:
        sink.fail(TransientError("deadlock"))
        for number in range(50):
            h.feed(entry(f"invoice:INV-{number}"))
        h.run().advance(minutes=10)
        assert {pause.kind for pause in h.pauses} == {PauseKind.BREAKER}
        assert h.dead_letters == []
        sink.mend()
        assert h.advance(seconds=30).outcomes == {"applied": 50}


def test_a_crash_while_the_ledger_holds_a_batch_books_nothing_twice() -> None:
    sink = RecordingSink.in_place_of(ledger.sink, version="booked_at")
    with Harness(sink) as h:
        sink.crash_after_effect()
        for number in range(10):
            h.feed(entry(f"invoice:INV-{number}"))
        h.run()
        assert (h.outcomes, h.recovered) == ({"applied": 10}, 10)
        assert len(sink.applied) == 10


def test_what_is_not_an_invoice_is_dead_and_holds_up_nothing() -> None:
    with Harness(invoice_to_ledger.flow) as h:
        h.feed_bytes(b"INV-1;4514.00", key="INV-1")
        h.feed_bytes(b"INV-2;4514.00", key=None)
        h.run()
        assert [letter.code for letter in h.dead_letters] == ["foreign-bytes", "foreign-bytes"]
        assert h.discard(code="foreign-bytes", reason="a spreadsheet was uploaded").counts == {"discarded": 2}
