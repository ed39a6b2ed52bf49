"""The reference flows on the real opportunities that the demo plays: what becomes an invoice, and what balances."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest

from heddle.mapping import RuleError
from schemas.billing import Invoice
from schemas.crm import Deal, DealStage
from schemas.ledger import Entry, Line
from schemas.payments import Payment
from topologies.deal_to_invoice import invoice_of
from topologies.invoice_to_ledger import entry_of as entry_of_invoice
from topologies.payment_to_ledger import entry_of as entry_of_payment

ROWS = Path(__file__).parents[2] / "demo" / "data" / "crm_sales_pipeline.csv"


def deals() -> Iterator[Deal]:
    with ROWS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            day = date.fromisoformat(row["close_date"] or row["engage_date"] or "2016-10-01")
            yield Deal(
                deal_id=row["opportunity_id"],
                stage=cast(DealStage, row["deal_stage"].upper()),
                sales_agent=row["sales_agent"],
                product=row["product"],
                account=row["account"] or None,
                engaged_on=date.fromisoformat(row["engage_date"]) if row["engage_date"] else None,
                closed_on=date.fromisoformat(row["close_date"]) if row["close_date"] else None,
                close_value=Decimal(row["close_value"]) if row["close_value"] else None,
                changed_at=datetime.combine(day, time(), UTC),
            )


@pytest.fixture(scope="module")
def invoices() -> tuple[list[Invoice], Counter[tuple[str, str]]]:
    """All invoices, and refusals counted by code and path."""
    made, refused = [], Counter[tuple[str, str]]()
    for deal in deals():
        try:
            invoice = invoice_of(deal)
        except RuleError as error:
            refused[error.code, error.path] += 1
        else:
            assert (invoice is not None) == (deal.stage == "WON")
            made += [invoice] if invoice else []
    return made, refused


def test_won_deals_are_invoiced_but_for_the_misspelt_product(
    invoices: tuple[list[Invoice], Counter[tuple[str, str]]],
) -> None:
    made, refused = invoices
    won = [deal for deal in deals() if deal.stage == "WON"]
    misspelt = sum(deal.product == "GTXPro" for deal in won)
    assert misspelt > 0
    assert refused == {("lookup", "list_price"): misspelt}
    assert len(made) == len(won) - misspelt
    assert len({invoice.invoice_id for invoice in made}) == len(made)


def test_amounts_of_all_invoices_add_up(invoices: tuple[list[Invoice], Counter[tuple[str, str]]]) -> None:
    made, _ = invoices
    assert all(invoice.list_price - invoice.discount == invoice.total for invoice in made)
    priced = [deal.close_value or 0 for deal in deals() if deal.stage == "WON" and deal.product != "GTXPro"]
    assert sum(invoice.total for invoice in made) == sum(priced)


def test_one_real_deal_field_by_field() -> None:
    deal = next(deal for deal in deals() if deal.deal_id == "1C1I7A6R")
    assert invoice_of(deal) == Invoice(
        invoice_id="INV-1C1I7A6R",
        deal_id="1C1I7A6R",
        customer="Cancity",
        sales_agent="Moses Frase",
        issued_on=date(2017, 3, 1),
        product="GTX Plus Basic",
        list_price=Decimal(1096),
        discount=Decimal(42),
        total=Decimal(1054),
        currency="USD",
        status="OPEN",
        changed_at=datetime(2017, 3, 1, tzinfo=UTC),
    )


WON = Deal(
    deal_id="D-1",
    stage="WON",
    sales_agent="A",
    product="GTX Basic",
    account=None,
    closed_on=date(2017, 3, 1),
    close_value=Decimal("600.50"),
    changed_at=datetime(2017, 3, 1, tzinfo=UTC),
)


def test_a_deal_without_account_is_billed_to_an_unknown_one_and_may_cost_more_than_the_list_price() -> None:
    invoice = invoice_of(WON)
    assert invoice is not None
    assert (invoice.customer, invoice.discount) == ("UNKNOWN ACCOUNT", Decimal("-50.50"))


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"closed_on": None}, "required", "issued_on"),
        ({"close_value": None}, "required", "discount"),
        ({"product": "GTXPro"}, "lookup", "list_price"),
        ({"currency": "EUR"}, "currency", "currency"),
    ],
)
def test_a_won_deal_that_cannot_be_billed_is_refused(changes: dict[str, object], code: str, path: str) -> None:
    with pytest.raises(RuleError) as caught:
        invoice_of(replace(WON, **changes))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.path) == (code, path)


def test_every_ledger_entry_balances(invoices: tuple[list[Invoice], Counter[tuple[str, str]]]) -> None:
    made, _ = invoices
    entries = [entry_of_invoice(invoice) for invoice in made]
    assert len({entry.entry_id for entry in entries if entry}) == len(made)
    for entry in entries:
        assert entry is not None
        assert sum(line.debit for line in entry.lines) == sum(line.credit for line in entry.lines)


def test_a_void_invoice_is_not_booked(invoices: tuple[list[Invoice], Counter[tuple[str, str]]]) -> None:
    assert entry_of_invoice(replace(invoices[0][0], status="VOID")) is None


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "REFUNDED"])
def test_only_a_payment_that_succeeded_is_booked(status: str) -> None:
    moment = datetime(2017, 4, 1, 12, tzinfo=UTC)
    payment = Payment(
        payment_id="pi_1",
        invoice_id="INV-1",
        amount=Decimal("10.01"),
        currency="USD",
        method="card",
        status=status,  # type: ignore[arg-type]
        paid_at=moment,
    )
    booked = Entry(
        entry_id="payment:pi_1",
        source_id="pi_1",
        kind="PAYMENT",
        booked_at=moment,
        currency="USD",
        lines=(
            Line(account="cash", debit=Decimal("10.01"), credit=Decimal(0)),
            Line(account="accounts-receivable", debit=Decimal(0), credit=Decimal("10.01")),
        ),
    )
    assert entry_of_payment(payment) == (booked if status == "SUCCEEDED" else None)
