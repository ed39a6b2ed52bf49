"""The circuit breaker: many keys that fail alike open it, one probe closes it."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.delivery.breaker import MAX_GROUPS, Board, BreakerState, feeds
from heddle.delivery.classify import failure_of
from heddle.errors import Failure, FailureClass, UnknownEffectError
from heddle.on_failure import Breaker

TIMEOUT = Failure(0, FailureClass.TRANSIENT, "timeout", "", "timed out")
Failed = list[tuple[bytes | None, Failure]]


class _Clock:
    now_s = 5_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def board(clock: _Clock) -> Board:
    return Board(Breaker(), clock)


def failures(count: int, failure: Failure = TIMEOUT, first: int = 0) -> Failed:
    return [(b"k%d" % number, failure) for number in range(first, first + count)]


def coded(code: str) -> Failure:
    return TIMEOUT._replace(code=code)


def test_it_opens_on_the_batch_in_which_enough_keys_fail_alike(board: Board) -> None:
    assert board.consider(0, failures(9)) is None
    reason = board.consider(0, failures(10))
    assert reason == "10 of 10 attempts failed alike within 30 s: transient timeout"
    assert (board.state, board.reason) == (BreakerState.CLOSED, None), "considering remembers nothing"
    board.record(0, failures(10))
    assert (board.state, board.reason) == (BreakerState.OPEN, reason)


def test_failures_add_up_over_batches_within_the_window(board: Board, clock: _Clock) -> None:
    for number in range(9):
        board.record(0, failures(1, first=number))
        clock.now_s += 2
    assert board.state is BreakerState.CLOSED
    assert board.consider(0, failures(1, first=9)) is not None
    clock.now_s += 20
    assert board.consider(0, failures(1, first=9)) is None


def test_one_key_that_fails_for_ever_opens_nothing(board: Board) -> None:
    for _ in range(100):
        board.record(0, [(b"same", TIMEOUT)])
    assert board.state is BreakerState.CLOSED


def test_null_keys_are_each_a_key_of_their_own(board: Board) -> None:
    assert board.consider(0, [(None, TIMEOUT)] * 10) is not None


def test_only_what_fails_alike_counts_together(board: Board) -> None:
    mixed = [(b"k%d" % number, coded(f"c{number % 4}")) for number in range(36)]
    assert board.consider(0, mixed) is None


def _of_host(host: str, code: str) -> Failure:
    status = int(code)
    response = httpx2.Response(status, request=httpx2.Request("POST", f"https://{host}/orders"))
    try:
        response.raise_for_status()
    except httpx2.HTTPStatusError as error:
        return failure_of(0, error)
    raise AssertionError


def test_whatever_one_target_answers_counts_for_that_target(board: Board) -> None:
    crm = [(b"k%d" % number, _of_host("crm.example", str(500 + number % 5))) for number in range(10)]
    reason = board.consider(0, crm)
    assert reason is not None
    assert "(crm.example)" in reason
    two = [(b"k%d" % number, _of_host(f"{number % 2}.example", "503")) for number in range(18)]
    assert board.consider(0, two) is None


@pytest.mark.parametrize("failure_class", [c for c in FailureClass if c not in ("transient", "unknown")])
def test_what_is_wrong_with_records_never_feeds_it(board: Board, failure_class: FailureClass) -> None:
    failure = TIMEOUT._replace(failure_class=failure_class)
    assert not feeds(failure)
    board.record(0, failures(500, failure))
    assert board.consider(0, failures(500, failure)) is None
    assert board.state is BreakerState.CLOSED


def test_unknown_failures_and_unknown_effects_feed_it(board: Board) -> None:
    assert board.consider(0, failures(10, failure_of(0, KeyError("x")))) is not None
    assert board.consider(0, failures(10, failure_of(0, UnknownEffectError("?")))) is not None


def test_a_share_that_is_small_opens_nothing(board: Board) -> None:
    assert board.consider(11, failures(10)) is None
    assert board.consider(10, failures(10)) is not None
    for _ in range(50):
        board.record(19, failures(1))
    assert board.state is BreakerState.CLOSED


def test_what_succeeded_before_an_outage_does_not_hide_it(board: Board, clock: _Clock) -> None:
    board.record(60_000, ())
    assert board.consider(0, failures(10)) is not None
    for number in range(4):
        clock.now_s += 3
        board.record(1, failures(3, first=3 * number))
    assert board.state is BreakerState.OPEN


def test_probes_come_after_growing_delays_and_success_closes(board: Board, clock: _Clock) -> None:
    board.record(0, failures(10))
    waited = []
    for _ in range(4):
        waited.append(board.probe_delay_s)
        assert not board.probe_due()
        clock.now_s += board.probe_delay_s
        assert board.probe_due()
        assert (board.state, board.probe_delay_s) == (BreakerState.HALF_OPEN, 0.0)
        board.failed()
        assert board.state is BreakerState.OPEN
    assert waited == [1, 2, 2, 2]
    clock.now_s += 30
    board.succeeded()
    assert (board.state, board.reason, board.probe_delay_s) == (BreakerState.CLOSED, None, 0.0)
    assert board.consider(0, failures(9)) is None, "what failed before is forgotten"
    board.record(0, failures(10))
    assert board.probe_delay_s == 1, "the delays begin anew"


def test_while_open_every_failure_is_held_back(board: Board) -> None:
    board.record(0, failures(10))
    assert board.consider(0, failures(1)) == board.reason
    assert board.consider(5, ()) == board.reason
    board.record(0, failures(500))
    board.succeeded()
    assert board.consider(0, failures(9)) is None


def test_the_answer_of_a_probe_means_nothing_to_a_closed_breaker(board: Board) -> None:
    board.failed()
    assert board.state is BreakerState.CLOSED


def test_memory_is_bounded_whatever_fails(board: Board, clock: _Clock) -> None:
    for number in range(30):
        batch = [(b"%d-%d" % (number, each), coded(f"{number}-{each}")) for each in range(200)]
        board.record(1_000, batch)
        board.record(10_000, [(b"%d-%d" % (number, each), TIMEOUT) for each in range(300)])
        clock.now_s += 0.5
    slices = board._window.all()
    assert all(len(each.groups) <= MAX_GROUPS for each in slices)
    assert all(len(group.keys) <= Breaker().keys for each in slices for group in each.groups.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.lists(st.tuples(st.integers(0, 14), st.integers(0, 1)), max_size=14))),
)
def test_it_considers_what_it_then_records(batches: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """And it opens exactly when a stretch of batches up to the newest is over the limits."""
    board = Board(Breaker(keys=5), _Clock())
    history: list[tuple[int, list[tuple[int, int]]]] = []
    for keys_ok, failed in batches:
        batch = [(b"%d" % key, coded(f"c{kind}")) for key, kind in failed]
        history.insert(0, (keys_ok, failed))
        reason = board.consider(keys_ok, batch)
        board.record(keys_ok, batch)
        assert board.reason == reason
        assert (reason is not None) == (bool(failed) and (_over(history[:1]) or _over(history)))
        if reason is not None:
            return


def _over(history: list[tuple[int, list[tuple[int, int]]]]) -> bool:
    attempts = sum(keys_ok + len(failed) for keys_ok, failed in history)
    for kind in (0, 1):
        alike = [key for _, failed in history for key, each in failed if each == kind]
        if len(set(alike)) >= 5 and len(alike) >= 0.5 * attempts:
            return True
    return False
