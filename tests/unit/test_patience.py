"""How a worker waits, and comes back."""

from __future__ import annotations

from heddle.delivery.patience import WAIT_MAX_S, Patience
from heddle.delivery.settlement import Interruption
from heddle.errors import DependencyDownError, Failure, FailureClass, RateLimitError

DOWN = Interruption(DependencyDownError("no answer"))
LIMITED = Interruption(RateLimitError("slow down"), 90.0, slows=True)
OPENED = Interruption(
    DependencyDownError("all fail alike"), failed_alike=[(b"k", Failure(0, FailureClass.TRANSIENT, "reset", "", ""))]
)


def test_waits_grow_and_begin_anew_once_something_went_well() -> None:
    patience = Patience(100)
    waits = [patience.delay_s(DOWN, 0.0) for _ in range(7)]
    assert waits == [0.2, 0.4, 0.8, 1.6, WAIT_MAX_S, WAIT_MAX_S, WAIT_MAX_S]
    patience.went_well()
    assert patience.delay_s(DOWN, 0.0) == 0.2


def test_a_target_is_waited_for_as_it_says_and_the_breaker_as_it_decides() -> None:
    patience = Patience(100)
    assert patience.delay_s(LIMITED, 7.0) == 90.0
    assert patience.delay_s(OPENED, 7.0) == 7.0


def test_after_a_pause_one_record_goes_first() -> None:
    patience = Patience(100)
    patience.delay_s(DOWN, 0.0)
    assert patience.bound == 1
    patience.went_well()
    assert patience.bound == 100


def test_a_rate_limit_makes_batches_smaller_and_they_grow_back() -> None:
    patience = Patience(100)
    for _ in range(2):
        patience.delay_s(LIMITED, 0.0)
    bounds = []
    for _ in range(3):
        patience.went_well()
        bounds.append(patience.bound)
    assert bounds == [50, 100, 100]


def test_a_pause_is_told_once_and_a_moment_is_none() -> None:
    patience = Patience(100)
    told = [patience.is_news(DOWN, patience.delay_s(DOWN, 0.0)) for _ in range(4)]
    assert told == [False, True, False, False]
    patience.went_well()
    assert patience.is_news(LIMITED, patience.delay_s(LIMITED, 0.0))
