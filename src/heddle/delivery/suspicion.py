"""The attempt marker: finding the one record that kills the process, at no cost while nothing does.

A successor that finds its predecessor unfinished runs what that one may have had in hand in small batches: a crash
divides the batch bound by 32 (2,000 → 62 → 1). Alone, a record is named in the offset metadata before it is run; when
the process dies on it then, it is dead: its third crash. Its neighbours ran without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

DIVISOR = 32
ALONE = 2  # the level at which records are run one by one
_MARGIN = 4  # due entries may come in another order than they did before

Kind = Literal["live", "entry"]


class InHand(NamedTuple):
    """What is being run alone: a record by its offset, or an entry by its version."""

    kind: Kind
    offset: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`left`: how many more records are run under it."""

    level: int
    left: int
    in_hand: InHand | None = None

    def bound(self, batch_max_records: int) -> int:
        return 1 if self.level >= ALONE else max(1, batch_max_records // DIVISOR)

    def after(self, runs: int, *, least: int = 0) -> Suspicion | None:
        """Once that many more records ran and nothing died; `least`: how many are left in any case."""
        left = max(self.left - runs, least)
        return replace(self, left=left, in_hand=None) if left > 0 else None

    def naming(self, in_hand: InHand) -> Suspicion:
        return replace(self, in_hand=in_hand)


def after_crash(found: Suspicion | None, batch_max_records: int, pending: int) -> Suspicion | None:
    """What a successor suspects. `pending`: records and due entries that the dead owner can have had in hand."""
    if found is None:
        left = min(batch_max_records, pending)
        return Suspicion(1, left) if left else None
    if found.in_hand is not None or found.level >= ALONE:
        return found
    return Suspicion(ALONE, min(found.bound(batch_max_records) * _MARGIN, pending)) if pending else None
