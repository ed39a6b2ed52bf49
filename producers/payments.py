"""Payments from the card processor: Stripe events about payment intents; other event types pass unused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from heddle import ContractError, Delivery, Draft, Stripe, WebhookSource, secret
from schemas.payments import Payment, PaymentStatus

STATUS_OF: dict[str, PaymentStatus] = {
    "payment_intent.succeeded": "SUCCEEDED",
    "payment_intent.payment_failed": "FAILED",
}

# Amounts come in the currency's minor unit. Only currencies whose exponent is written here are accepted.
MINOR_DIGITS = {"usd": 2, "eur": 2, "gbp": 2, "jpy": 0}


def payments_of(delivery: Delivery) -> Iterator[Draft[Payment]]:
    event = delivery.json()
    status = STATUS_OF.get(event.get("type", ""))
    if status is None:
        return
    intent = event["data"]["object"]
    paid_at = datetime.fromtimestamp(intent["created"], UTC)
    payment = Payment(
        payment_id=intent["id"],
        invoice_id=invoice_of(intent),
        amount=amount_of(intent["amount"], intent["currency"]),
        currency=intent["currency"].upper(),
        method=next(iter(intent.get("payment_method_types") or []), None),
        status=status,
        paid_at=paid_at,
    )
    yield Draft(payment, id=event["id"], time=datetime.fromtimestamp(event["created"], UTC))


def invoice_of(intent: dict[str, Any]) -> str:
    invoice_id = (intent.get("metadata") or {}).get("invoice_id")
    if not isinstance(invoice_id, str):
        raise ContractError("the payment names no invoice", path="data.object.metadata.invoice_id")
    return invoice_id


def amount_of(minor_units: int, currency: str) -> Decimal:
    digits = MINOR_DIGITS.get(currency)
    if digits is None:
        raise ContractError("the currency's minor unit is not known here", path="data.object.currency")
    return Decimal(minor_units).scaleb(-digits).quantize(Decimal("0.01"))


source = WebhookSource(
    "payments",
    path="/hooks/payments",
    signature=Stripe(secret("payments/webhook")),
    emits=Payment,
    convert=payments_of,
    entity="data.object.metadata.invoice_id",
    owner="treasury",
)
