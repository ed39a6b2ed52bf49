"""The failure budget: a subscription stops before it parks a flood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heddle.delivery.rolling import Rolling
from heddle.on_failure import FailureBudget


@dataclass(slots=True)
class _Counts:
    settled: int = 0
    failed: int = 0


class BudgetWindow:
    """One subscription's. In both methods `settled` counts a batch's records, the `failed` ones among them; what a
    breaker holds back is neither, because it is not parked.

    `now`: seconds that never go back."""

    def __init__(self, policy: FailureBudget, now: Callable[[], float]) -> None:
        self._policy = policy
        self._window = Rolling(policy.window_s, now, _Counts)

    def consider(self, settled: int, failed: int) -> bool:
        """Whether this batch, which is not remembered, would be over the budget. One without failures never is."""
        if not failed:
            return False
        slices = self._window.all()
        settled += sum(each.settled for each in slices)
        failed += sum(each.failed for each in slices)
        return settled >= self._policy.records and failed > self._policy.ratio * settled

    def record(self, settled: int, failed: int) -> None:
        """Remember a batch that has committed."""
        counts = self._window.present()
        counts.settled += settled
        counts.failed += failed
