"""What the workers of one process have settled, for the metric of it."""

from __future__ import annotations

from typing import Protocol

from heddle.delivery.metadata import Counts
from heddle.telemetry.catalogue import OUTCOME, RECORDS_SETTLED, SUBSCRIPTION
from heddle.telemetry.metrics import Reading, observe


class HasTotals(Protocol):
    """A worker. `totals`: live records settled by it; a new value each time, never changed in place."""

    @property
    def totals(self) -> Counts: ...


class Settled:
    """Of one subscription. A worker that takes another's place (renewed credentials) counts on from there."""

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._following: tuple[Counts, HasTotals | None] = Counts(), None
        observe(RECORDS_SETTLED, subscription, self.read)

    def follow(self, worker: HasTotals) -> None:
        self._following = self._counts(), worker

    def read(self) -> list[Reading]:
        """Every outcome, also those that there were none of: a rate needs to have seen the 0."""
        name = self._subscription
        return [(n, {SUBSCRIPTION: name, OUTCOME: str(outcome)}) for outcome, n in self._counts().by_outcome.items()]

    def _counts(self) -> Counts:
        earlier, worker = self._following
        return earlier if worker is None else earlier + worker.totals
