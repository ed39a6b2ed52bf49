"""What becomes of a failed record, by class, tries and age."""

from __future__ import annotations

from datetime import timedelta

import httpx2
import pytest

from heddle.delivery.classify import failure_of
from heddle.delivery.retry import Action, Verdict, decide
from heddle.errors import Failure, FailureClass, Park, RateLimitError, RetryLater, UnknownEffectError
from heddle.on_failure import OnFailure, Retry

POLICY = OnFailure(
    transient=Retry(tries=5, first_delay_s=2.0, longest_delay_s=10.0),
    unknown=Retry(tries=2, first_delay_s=1.0, longest_delay_s=60.0),
    longest_age_s=100.0,
)


def of(failure_class: FailureClass, error: BaseException | None = None, code: str = "x") -> Failure:
    return Failure(0, failure_class, code, "", "", error)


def decided(failure: Failure, tries: int = 1, age_s: float = 0.0, drawn: float = 0.0) -> Verdict:
    return decide(failure, POLICY, tries=tries, age_s=age_s, random=lambda: drawn)


@pytest.mark.parametrize(
    ("failure_class", "action"),
    [
        (FailureClass.TRANSIENT, Action.RETRY),
        (FailureClass.UNKNOWN, Action.RETRY),
        (FailureClass.CONTRACT, Action.DEAD),
        (FailureClass.POISON, Action.DEAD),
        (FailureClass.RATE_LIMIT, Action.PAUSE),
        (FailureClass.DEPENDENCY_DOWN, Action.PAUSE),
        (FailureClass.AUTH, Action.STOP),
        (FailureClass.OURS, Action.STOP),
    ],
)
def test_each_class_has_its_action(failure_class: FailureClass, action: Action) -> None:
    assert decided(of(failure_class)).action is action


def test_delays_double_up_to_the_longest_and_are_drawn_from_the_upper_half() -> None:
    lowest = [decided(of(FailureClass.TRANSIENT), tries).delay_s for tries in (1, 2, 3, 4)]
    highest = [decided(of(FailureClass.TRANSIENT), tries, drawn=1.0).delay_s for tries in (1, 2, 3, 4)]
    assert lowest == [1.0, 2.0, 4.0, 5.0]
    assert highest == [2.0, 4.0, 8.0, 10.0]


def test_tries_run_out_by_class() -> None:
    assert decided(of(FailureClass.TRANSIENT), tries=4).action is Action.RETRY
    assert decided(of(FailureClass.TRANSIENT), tries=5) == Verdict(Action.DEAD)
    assert decided(of(FailureClass.UNKNOWN), tries=1).action is Action.RETRY
    assert decided(of(FailureClass.UNKNOWN), tries=2) == Verdict(Action.DEAD)


def test_age_ends_the_tries_whatever_their_number() -> None:
    assert decided(of(FailureClass.TRANSIENT), age_s=99.0).action is Action.RETRY
    assert decided(of(FailureClass.TRANSIENT), age_s=100.0) == Verdict(Action.DEAD)


def test_no_number_of_tries_overflows() -> None:
    endless = OnFailure(transient=Retry(tries=10**9, first_delay_s=0.001, longest_delay_s=60.0))
    verdict = decide(of(FailureClass.TRANSIENT), endless, tries=10**6, age_s=0, random=lambda: 0.0)
    assert verdict == Verdict(Action.RETRY, 30.0)


def test_a_handler_that_asks_for_a_later_try_gets_it_not_before() -> None:
    assert decided(failure_of(0, RetryLater(after=timedelta(seconds=500)))).delay_s == 500.0
    assert decided(failure_of(0, RetryLater(after=timedelta(0))), tries=3).delay_s == 4.0
    assert decided(failure_of(0, RetryLater(after=timedelta(seconds=500))), tries=5) == Verdict(Action.DEAD)


def test_an_effect_that_nobody_knows_of_waits_for_a_person_from_its_first_try() -> None:
    assert decided(failure_of(0, UnknownEffectError("was it booked?"))) == Verdict(Action.UNKNOWN)
    assert decided(of(FailureClass.TRANSIENT, code="unknown-effect")) == Verdict(Action.UNKNOWN)
    assert decided(of(FailureClass.POISON, UnknownEffectError("mapped"))) == Verdict(Action.DEAD)


def test_a_handler_that_gives_a_record_up_is_taken_at_its_word() -> None:
    assert decided(failure_of(0, Park("hopeless"))) == Verdict(Action.DEAD)


def _status(status: int, **headers: str) -> Failure:
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("GET", "http://crm"))
    try:
        response.raise_for_status()
    except httpx2.HTTPStatusError as error:
        return failure_of(0, error)
    raise AssertionError


def test_a_target_is_asked_again_when_it_says_and_no_attempt_is_burned() -> None:
    assert decided(failure_of(0, RateLimitError("slow", after=timedelta(seconds=9))), tries=99) == Verdict(
        Action.PAUSE, 9.0
    )
    assert decided(failure_of(0, RateLimitError("slow"))) == Verdict(Action.PAUSE, 0.0)
    assert decided(_status(429, **{"retry-after": "30"})) == Verdict(Action.PAUSE, 30.0)
    assert decided(_status(503, **{"retry-after": "30"})) == Verdict(Action.RETRY, 30.0)


def test_a_target_that_asks_for_a_year_is_asked_again_before() -> None:
    assert decided(_status(429, **{"retry-after": "9" * 400})) == Verdict(Action.PAUSE, 100.0)
