"""Types of the crm contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Deal",
    "DealStage",
]

DealStage: TypeAlias = Literal["PROSPECTING", "ENGAGING", "WON", "LOST"]
"""How far the opportunity has come. WON and LOST are final."""


@contract("crm.deal.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """A sales opportunity as the CRM holds it after one change: the whole state, not the difference."""

    deal_id: str
    """The CRM's opportunity id; never reused."""

    stage: DealStage
    """Stage after this change."""

    sales_agent: str
    """Full name of the agent who owns the opportunity."""

    product: str
    """Product name exactly as the agent typed it; the price table decides whether it exists."""

    account: str | None = None
    """Name of the customer's company; null while the agent has not assigned one."""

    engaged_on: date | None = None
    """Day on which the agent first engaged with the customer; null while prospecting."""

    closed_on: date | None = None
    """Day on which the opportunity was won or lost; null while it is open."""

    close_value: Decimal | None = None
    """What the customer agreed to pay; zero for a lost opportunity, null while it is open."""

    currency: str = "USD"
    """ISO 4217 code of the close value."""

    changed_at: datetime
    """When the CRM made this change; orders the changes of one opportunity."""
