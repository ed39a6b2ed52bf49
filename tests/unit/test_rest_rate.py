"""When an API may be asked next: by our own limit, and by what it says."""

from __future__ import annotations

import pytest

from heddle.errors import UsageError
from heddle.http.notices import notice_of
from heddle.http.rate import LONGEST_WAIT_S, Pace, RateLimit, exhausted_for_s, retry_after_s

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # 1,700,000,000


class Now:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


def test_a_burst_then_the_rate() -> None:
    now = Now()
    pace = Pace(RateLimit(per_s=2, burst=3), now)
    for _ in range(3):
        assert pace.delay_s() == 0
        pace.sent()
    assert pace.delay_s() == pytest.approx(0.5)
    now.s += 0.5
    assert pace.delay_s() == 0
    now.s += 100
    for _ in range(3):
        assert pace.delay_s() == 0
        pace.sent()
    assert pace.delay_s() > 0  # what was not used is not saved up


def test_a_refusal_halves_the_rate_and_answers_win_it_back() -> None:
    now = Now()
    pace = Pace(RateLimit(per_s=8, burst=1), now)
    assert pace.refused({"retry-after": "30"}) == 30
    assert (pace.delay_s(), pace.per_s) == (30, 4)
    pace.refused({})
    assert pace.per_s == 2
    for _ in range(40):
        pace.answered({})
    assert pace.per_s == 8


def test_refusals_slow_it_down_no_further_than_a_64th() -> None:
    pace = Pace(RateLimit(per_s=64, burst=1), Now())
    for _ in range(20):
        pace.refused({"retry-after": "0"})
    assert pace.per_s == 1


def test_after_a_refusal_what_is_left_of_a_burst_is_one_request() -> None:
    now = Now()
    pace = Pace(RateLimit(per_s=2, burst=9), now)
    pace.refused({"retry-after": "0"})
    assert pace.delay_s() == 0
    pace.sent()
    assert pace.delay_s() > 0


def test_a_shorter_pause_does_not_cut_a_longer_one() -> None:
    pace = Pace(RateLimit(), Now())
    pace.pause(30)
    pace.answered({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"})
    assert pace.delay_s() == 30


def test_refusals_that_do_not_say_for_how_long_are_waited_out_longer_each_time() -> None:
    pace = Pace(RateLimit(), Now())
    assert [pace.refused({}) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 64, 64]
    pace.answered({})
    assert pace.refused({}) == 1


def test_nobody_is_believed_who_asks_for_a_year() -> None:
    assert Pace(RateLimit(), Now()).refused({"retry-after": "31536000"}) == LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("120", 120.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_in_both_forms(given: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": given, "date": DATE}) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "17"}, 17.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000040"}, 40.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000040500"}, 40.5),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5.0),
        ({"ratelimit": '"default";r=0;t=9'}, 9.0),
        ({"ratelimit": '"default";r=1;t=9'}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "17"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-remaining": "none", "x-ratelimit-reset": "x"}, None),
        ({}, None),
    ],
)
def test_what_vendors_say_of_their_limits(headers: dict[str, str], seconds: float | None) -> None:
    assert exhausted_for_s({**headers, "date": DATE}) == seconds


def test_the_last_answer_of_a_window_is_followed_by_a_wait() -> None:
    pace = Pace(RateLimit(), Now())
    pace.answered({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "17"})
    assert pace.delay_s() == 17


def test_a_limit_that_cannot_be_is_refused() -> None:
    for wrong in ({"per_s": 0}, {"burst": 0}, {"per_s": -1}):
        with pytest.raises(UsageError):
            RateLimit(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"deprecation": "@1767225600"}, ("2026-01-01", "")),
        ({"deprecation": "true", "sunset": DATE}, ("yes", "2023-11-14")),
        ({"deprecation": "?1"}, ("yes", "")),
        ({"sunset": "Tue, 14 Nov 2023 22:13:20 -0500"}, ("", "2023-11-15")),
        ({"deprecation": "@999999999999999"}, None),
        ({"deprecation": DATE}, ("2023-11-14", "")),
        ({"deprecation": "@999999999999999999999"}, None),
        ({"deprecation": "no", "sunset": "one day"}, None),
        ({}, None),
    ],
)
def test_announcements(headers: dict[str, str], told: tuple[str, str] | None) -> None:
    notice = notice_of(headers)
    assert (None if notice is None else notice.dates) == told


def test_an_end_alone_is_told_without_a_deprecation() -> None:
    notice = notice_of({"sunset": DATE})
    assert notice is not None
    assert notice.told_of("GET /deals") == "GET /deals answers no more from 2023-11-14 on"
