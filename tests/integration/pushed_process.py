"""Pushed sources whose deliveries can be told apart, and a real gateway that serves them: `python pushed_process.py
STATE_DIR`, settings and secrets by environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import time
from typing import Any

from heddle import Delivery, Draft, Stripe, WebhookSource, secret
from heddle.errors import ContractError
from heddle.local import die_with_parent
from heddle.settings import load_settings
from heddle.sources.delivery import Header
from heddle.sources.gateway import run_gateway
from heddle.sources.signatures import Hmac
from heddle.testing.conformance import Sent
from producers.payments import payments_of
from schemas.payments import Payment

KEY = "pushed/key"
TEXT = "a secret of these tests"
START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEME = Hmac(secret(KEY), header="x-signature", message="{timestamp}.{body}", timestamp_header="x-timestamp")


def shop_payments(delivery: Delivery) -> Iterator[Draft[Payment]]:
    told = delivery.json()
    try:
        amount, at = Decimal(told["amount"]), START + timedelta(seconds=told["version"])
    except (KeyError, TypeError) as error:
        raise ContractError("no payment") from error
    payment = Payment(
        payment_id=told["id"], invoice_id=told["order"], amount=amount, currency="EUR", status="SUCCEEDED", paid_at=at
    )
    yield Draft(payment, delivery.id, at)


def shop(name: str = "shop", **changed: Any) -> WebhookSource:
    """A vendor without a scheme of its own here."""
    declared: dict[str, Any] = {
        "path": "/hooks/shop", "signature": SCHEME, "emits": Payment, "convert": shop_payments, "owner": "tests",
        "entity": "order", "delivery_id": Header("x-event"),
    }  # fmt: skip
    return WebhookSource(name, **(declared | changed))


def shop_delivery(number: int, of: str = "") -> Sent:
    """`of`: tells the deliveries of one test from those of another."""
    body = {"id": f"P{of}-{number}", "order": f"O{of}-{number % 3}", "amount": "1.00", "version": number}
    return shop_signed(json.dumps(body).encode(), f"E{of}-{number}")


def shop_signed(body: bytes, event: str) -> Sent:
    stamp = str(int(time()))
    signature = SCHEME.sign(TEXT.encode(), stamp.encode() + b"." + body)
    return Sent(body, {"x-signature": signature, "x-timestamp": stamp, "x-event": event})


def stripe() -> WebhookSource:
    """Stripe's, as the reference integration declares it."""
    return WebhookSource(
        "stripe", path="/hooks/stripe", signature=Stripe(secret(KEY)), emits=Payment, convert=payments_of,
        entity="data.object.metadata.invoice_id", owner="tests",
    )  # fmt: skip


def stripe_delivery(number: int, of: str = "", currency: str = "eur") -> Sent:
    intent = {
        "id": f"pi_{of}{number}", "created": int(START.timestamp()) + number, "amount": 100, "currency": currency,
        "metadata": {"invoice_id": f"I{of}-{number % 3}"},
    }  # fmt: skip
    told = {"id": f"evt_{of}{number}", "type": "payment_intent.succeeded", "created": intent["created"]}
    body = json.dumps(told | {"data": {"object": intent}}).encode()
    stamp = str(int(time()))
    signature = Stripe(secret(KEY)).sign(TEXT.encode(), stamp.encode() + b"." + body)
    return Sent(body, {"stripe-signature": f"t={stamp},v1={signature}", "content-type": "application/json"})


if __name__ == "__main__":
    die_with_parent()
    run_gateway([shop(), stripe()], load_settings(), state_dir=Path(sys.argv[1]))
