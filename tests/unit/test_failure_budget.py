"""The failure budget: over it, nothing is parked any more."""

from __future__ import annotations

from heddle.delivery.failure_budget import BudgetWindow
from heddle.delivery.rolling import SLICES, Rolling
from heddle.on_failure import FailureBudget


class _Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_flood_in_one_batch_is_over_the_budget_before_anything_of_it_counts() -> None:
    window = BudgetWindow(FailureBudget(), _Clock())
    assert window.consider(200, 101)
    assert not window.consider(200, 100)
    assert not window.consider(199, 199)


def test_what_committed_counts_with_what_is_about_to() -> None:
    clock = _Clock()
    window = BudgetWindow(FailureBudget(window_s=60, records=200, ratio=0.5), clock)
    for _ in range(19):
        assert not window.consider(10, 10)
        window.record(10, 10)
        clock.now_s += 1
    assert window.consider(10, 10)
    assert window.consider(10, 1)


def test_successes_hold_a_flood_off() -> None:
    window = BudgetWindow(FailureBudget(), _Clock())
    window.record(1_000, 0)
    assert not window.consider(900, 900)
    assert window.consider(1_100, 1_100)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = _Clock()
    window = BudgetWindow(FailureBudget(window_s=60), clock)
    window.record(1_000, 1_000)
    clock.now_s += 50
    assert window.consider(10, 1)
    clock.now_s += 11
    assert not window.consider(10, 10)


def test_a_batch_without_failures_is_never_over() -> None:
    window = BudgetWindow(FailureBudget(), _Clock())
    window.record(1_000, 900)
    assert not window.consider(10, 0)


def test_a_ratio_of_one_never_stops() -> None:
    window = BudgetWindow(FailureBudget(ratio=1), _Clock())
    assert not window.consider(10_000, 10_000)


def test_a_window_keeps_a_bounded_number_of_slices() -> None:
    clock = _Clock()
    rolling: Rolling[list[int]] = Rolling(10.0, clock, list)
    for second in range(1_000):
        rolling.present().append(second)
        clock.now_s += 0.25
    assert len(rolling._slices) <= SLICES
    kept = [second for each in rolling.all() for second in each]
    assert kept == list(range(kept[0], 1_000))
    assert 36 <= len(kept) <= 40
    clock.now_s += 100
    assert rolling.all() == []
