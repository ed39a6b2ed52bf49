"""Types of the fulfilment contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Item",
    "Pick",
    "State",
]

State: TypeAlias = Literal["OPEN", "CLOSED", "DROPPED"]
"""State in the warehouse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line to pick."""

    item: str
    """Stock keeping unit."""

    pieces: int
    """Pieces."""

    unit_price: Decimal
    """Price of one piece."""


@contract("fulfilment.pick.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """An order as the warehouse wants it."""

    id: str
    """Order number."""

    placed_at: datetime
    """When it was placed."""

    total: Decimal
    """Total."""

    currency: str
    """ISO 4217 code."""

    state: State
    """State."""

    coupon: str | None = None
    """Coupon code."""

    priority: int
    """1 is first."""

    customer_id: str
    """Customer number."""

    name: str
    """Whole name."""

    email: str
    """Address for messages."""

    items: tuple[Item, ...]
    """What to pick."""

    item_count: int
    """Number of lines."""

    items_total: Decimal
    """Sum over the lines."""
