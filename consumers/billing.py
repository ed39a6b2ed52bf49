"""The billing API: customers have accounts there, and each line of an order is a charge. What the ERP removed is
deleted there, too."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from heddle import Bearer, Deadlines, HttpCall, HttpSink, IdempotencyKey, secret
from schemas.erp import Customer, OrderLine

URL = os.environ.get("BILLING_API_URL", "http://127.0.0.1:8095/v1")
"""No secret, and another one in each environment."""

DEADLINES = Deadlines(connect_s=1, read_s=2, total_s=4)

R = TypeVar("R")


def account_of(customer: Customer) -> HttpCall:
    path = f"/accounts/{customer.customer_id}"
    if customer.removed:
        return HttpCall("DELETE", path)
    name = customer.company or f"{customer.first_name} {customer.last_name}"
    return HttpCall("PUT", path, {"name": name, "email": customer.email, "country": customer.country})


def charge_of(line: OrderLine) -> HttpCall:
    path = f"/charges/{line.order_line_id}"
    if line.removed:
        return HttpCall("DELETE", path)
    amount = line.unit_price * line.quantity
    return HttpCall("PUT", path, {"order": line.order_id, "item": line.track_id, "amount": amount, "currency": "USD"})


def billing(name: str, reads: type[R], call: Callable[[R], HttpCall]) -> HttpSink[R]:
    return HttpSink(
        name,
        reads=reads,
        url=URL,
        call=call,
        auth=Bearer(secret("billing/token")),
        idempotency=IdempotencyKey(header="Idempotency-Key", kept=timedelta(hours=24)),
        deadlines=DEADLINES,
        owner="finance",
    )


accounts = billing("billing-accounts", Customer, account_of)
charges = billing("billing-charges", OrderLine, charge_of)
