"""Cyclic garbage of a worker: gone after each batch, bounded inside of one, and the collector left as it was found."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from heddle.delivery.garbage import EVERYTHING_S, MOST_IN_BATCH, WORTH_A_LOOK, collected_between_batches, forget_frames
from heddle.errors import ContractError
from heddle.integration import Flow
from heddle.testing import Harness
from schemas.billing import Invoice
from schemas.crm import Deal

DEAL = Deal(
    deal_id="D-1", stage="WON", sales_agent="A", product="GTX Basic", account="Acme", closed_on=date(2017, 3, 1),
    close_value=Decimal("500.00"), changed_at=datetime(2017, 3, 1, tzinfo=UTC),
)  # fmt: skip


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before, ours = gc.get_threshold(), (701, 11, 12)
    gc.set_threshold(*ours)
    yield ours
    gc.enable()
    gc.set_threshold(*before)


def lost() -> weakref.ref[Node]:
    return weakref.ref(Node())


def test_what_a_batch_has_lost_is_gone_after_it_when_it_is_more_than_a_few() -> None:
    with collected_between_batches() as collect:
        few = lost()
        collect()
        assert few() is not None
        many = [lost() for _ in range(WORTH_A_LOOK)]
        assert all(node() is not None for node in many)
        collect()
        assert [few(), *(node() for node in many)] == [None] * (1 + WORTH_A_LOOK)


def test_what_lasted_longer_than_its_batch_is_looked_for_once_in_a_while() -> None:
    now_s = 0.0
    with collected_between_batches(lambda: now_s) as collect:
        kept, others = Node(), [Node() for _ in range(WORTH_A_LOOK)]
        seen = weakref.ref(kept)
        collect()
        del kept, others
        collect()
        assert seen() is not None
        now_s = EVERYTHING_S
        collect()
        assert seen() is None


def test_a_handler_that_makes_cycles_all_the_time_is_bounded_within_its_batch() -> None:
    with collected_between_batches():
        nodes = [lost() for _ in range(MOST_IN_BATCH + 1_000)]
        assert sum(node() is not None for node in nodes) <= MOST_IN_BATCH


@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_is_left_as_it_was_found(thresholds: tuple[int, int, int], fails: bool) -> None:
    with contextlib.suppress(RuntimeError), collected_between_batches():
        assert gc.get_threshold()[0] == MOST_IN_BATCH
        assert gc.get_freeze_count() > 0
        if fails:
            raise RuntimeError
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)


def test_what_was_there_before_is_not_looked_at() -> None:
    """Else each look would walk the whole application."""
    before = Node()
    seen = weakref.ref(before)
    with collected_between_batches():
        del before
        gc.collect()
        assert seen() is not None
    gc.collect()
    assert seen() is None


class Held:
    """What a handler had in hand when it failed."""


def test_a_batch_in_which_something_failed_is_freed_like_any_other() -> None:
    held: list[weakref.ref[Held]] = []

    def fails(_: Deal) -> None:
        in_hand = Held()
        held.append(weakref.ref(in_hand))
        raise ContractError("no such product") from ValueError("why")

    flow = Flow("deal-to-invoice", reads=Deal, writes=Invoice, do=fails, owner="testers")
    with Harness(flow) as harness:
        harness.feed(DEAL)
        gc.disable()
        harness.run()
        assert [each() for each in held] == [None]
        assert "no such product" in harness.dead_letters[0].message


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_frames_of_all_that_an_error_came_from_are_forgotten() -> None:
    error, cause, context, part = (raised(ValueError(name)) for name in "abcd")
    group = raised(ExceptionGroup("several", [part]))
    error.__cause__, error.__context__, cause.__cause__, context.__context__ = cause, context, group, error
    forget_frames(error)
    assert [each.__traceback__ for each in (error, cause, context, part, group)] == [None] * 5
