"""Types of the orders contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Customer",
    "Line",
    "Order",
    "Status",
]

Status: TypeAlias = Literal["NEW", "PAID", "SHIPPED", "CANCELLED"]
"""State in the shop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who ordered."""

    id: str
    """Customer number."""

    first: str
    """First name."""

    last: str
    """Last name."""

    email: str | None = None
    """Address for messages."""

    vip: bool
    """Whether served first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the order."""

    sku: str
    """Stock keeping unit."""

    qty: int
    """Pieces."""

    price: Decimal
    """Price of one piece."""


@contract("orders.order.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as the shop sends it."""

    order_id: str
    """Order number."""

    event_ts: datetime
    """When it was placed."""

    amount: Decimal
    """Total."""

    currency: str
    """ISO 4217 code."""

    status: Status
    """State."""

    coupon: str | None = None
    """Coupon code."""

    note: str | None = None
    """The customer's words."""

    priority: int | None = None
    """1 is first."""

    channel: str
    """Where it was placed."""

    customer: Customer
    """Who ordered."""

    lines: tuple[Line, ...]
    """What was ordered."""

    source_system: str
    """Which shop."""
