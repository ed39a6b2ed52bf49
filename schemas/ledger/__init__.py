"""Types of the ledger contracts, made from the .avsc files by `heddle types`. Not for editing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from heddle.contracts import contract

__all__ = [
    "Entry",
    "EntryKind",
    "Line",
]

EntryKind: TypeAlias = Literal["INVOICE", "PAYMENT"]
"""What kind of document is booked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One account's side of a booking."""

    account: str
    """Account that is debited or credited, for example receivables."""

    debit: Decimal
    """Amount debited; zero on a credit line."""

    credit: Decimal
    """Amount credited; zero on a debit line."""


@contract("ledger.entry.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One double-entry booking. The debits of its lines equal their credits."""

    entry_id: str
    """Kind and business id of what is booked, for example invoice:INV-1; booking it twice gives the same id."""

    source_id: str
    """Business id of the invoice or payment that is booked."""

    kind: EntryKind
    """What was booked."""

    booked_at: datetime
    """When the booked document last changed; orders corrections of one entry."""

    currency: str
    """ISO 4217 code of all amounts of this entry."""

    lines: tuple[Line, ...]
    """The accounts that move, at least two."""
