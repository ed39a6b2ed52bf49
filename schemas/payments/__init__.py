"""Types of the payments contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Payment",
    "PaymentStatus",
]

PaymentStatus: TypeAlias = Literal["SUCCEEDED", "FAILED", "REFUNDED"]
"""What became of the attempt. Only SUCCEEDED moved money to us."""


@contract("payments.payment.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One attempt to pay an invoice, as the payment provider reports it."""

    payment_id: str
    """The payment provider's id of the attempt."""

    invoice_id: str
    """The invoice that is paid."""

    amount: Decimal
    """Amount of the attempt; always positive, also for a refund."""

    currency: str
    """ISO 4217 code of the amount, in upper case."""

    method: str | None = None
    """Kind of payment method as the provider names it, for example card; null when the provider does not say."""

    status: PaymentStatus
    """Status after this change."""

    paid_at: datetime
    """When the provider recorded this status; orders the changes of one payment."""
