"""Types of the billing contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Invoice",
    "InvoiceStatus",
]

InvoiceStatus: TypeAlias = Literal["OPEN", "VOID"]
"""Whether the amount is due. A void invoice is kept and owes nothing."""


@contract("billing.invoice.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What a customer owes for one won deal."""

    invoice_id: str
    """Invoice number, derived from the deal; one deal has one invoice."""

    deal_id: str
    """The won opportunity that this invoice bills."""

    customer: str
    """Name of the company that is billed."""

    sales_agent: str
    """Full name of the agent who won the deal, for commission."""

    issued_on: date
    """Invoice date; payment terms count from it."""

    product: str
    """Name of the product that was sold, as in the price table."""

    list_price: Decimal
    """Price of the product in the price table."""

    discount: Decimal
    """List price less total. Negative where the customer paid more than the list price."""

    total: Decimal
    """Amount due."""

    currency: str
    """ISO 4217 code of all amounts of this invoice."""

    status: InvoiceStatus
    """Status after this change."""

    changed_at: datetime
    """When the invoice last changed; orders the changes of one invoice."""
