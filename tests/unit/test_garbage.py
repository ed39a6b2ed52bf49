"""Cyclic garbage of a worker: gone after each batch, bounded inside of one, and the collector left as it was found."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from heddle.delivery.garbage import EVERYTHING_S, MOST_IN_BATCH, collected_between_batches


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before, ours = gc.get_threshold(), (701, 11, 12)
    gc.set_threshold(*ours)
    yield ours
    gc.set_threshold(*before)


def lost() -> weakref.ref[Node]:
    return weakref.ref(Node())


def test_what_a_batch_has_lost_is_gone_after_it() -> None:
    with collected_between_batches() as collect:
        node = lost()
        assert node() is not None
        collect()
        assert node() is None


def test_what_lasted_longer_than_its_batch_is_looked_for_once_in_a_while() -> None:
    now_s = 0.0
    with collected_between_batches(lambda: now_s) as collect:
        kept = Node()
        seen = weakref.ref(kept)
        collect()
        del kept
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
    with collected_between_batches() as collect:
        del before
        collect()
        gc.collect()
        assert seen() is not None
    gc.collect()
    assert seen() is None
