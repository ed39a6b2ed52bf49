"""Types of the erp contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from heddle.contracts import contract

__all__ = [
    "Customer",
    "Order",
    "OrderLine",
]


@contract("erp.customer.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer as the ERP holds it after one change: the whole row, not the difference."""

    customer_id: int
    """The ERP's number of the customer. It can be corrected: then the old number is removed."""

    first_name: str
    """Given name."""

    last_name: str
    """Family name."""

    company: str | None = None
    """Company; null for a private person."""

    address: str | None = None
    """Street and number."""

    city: str | None = None
    """City."""

    state: str | None = None
    """State or province, where the country has them."""

    country: str | None = None
    """Country, by its English name."""

    postal_code: str | None = None
    """Postal code."""

    phone: str | None = None
    """Telephone number as it was typed in."""

    fax: str | None = None
    """Fax number as it was typed in."""

    email: str
    """Where invoices are sent."""

    support_rep_id: int | None = None
    """The employee who looks after the customer."""

    removed: bool
    """Whether the row is gone. The other fields are then what it held last."""

    changed_at: datetime
    """When the ERP committed this change; orders the changes of one row."""


@contract("erp.order-line.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLine:
    """A line of an order as the ERP holds it after one change: the whole row, not the difference."""

    order_line_id: int
    """The ERP's number of the line. It can be corrected: then the old number is removed."""

    order_id: int
    """The order that it belongs to."""

    track_id: int
    """What was sold."""

    unit_price: Decimal
    """Price of one, in USD."""

    quantity: int
    """How many were sold."""

    removed: bool
    """Whether the row is gone. The other fields are then what it held last."""

    changed_at: datetime
    """When the ERP committed this change; orders the changes of one row."""


@contract("erp.order.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as the ERP holds it after one change: the whole row, not the difference."""

    order_id: int
    """The ERP's number of the order."""

    customer_id: int
    """Who ordered."""

    ordered_at: datetime
    """When it was ordered, by the ERP's clock, which names no zone."""

    billing_address: str | None = None
    """Street and number on the invoice."""

    billing_city: str | None = None
    """City on the invoice."""

    billing_state: str | None = None
    """State or province on the invoice."""

    billing_country: str | None = None
    """Country on the invoice, by its English name."""

    billing_postal_code: str | None = None
    """Postal code on the invoice."""

    total: Decimal
    """What the customer owes, in USD."""

    removed: bool
    """Whether the row is gone. The other fields are then what it held last."""

    changed_at: datetime
    """When the ERP committed this change; orders the changes of one row."""
