"""The conformance checks of pulled sources can fail: each broken toy is caught by the check that is named for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from pulling import ListPuller, ListSource, Row, Upstream

from heddle.broker.log import Record
from heddle.event import Draft
from heddle.integration import Pull, Puller
from heddle.testing.conformance import PulledSourceConformance


class Forgetful(ListPuller):
    """Its position is one record too far."""

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        return pull and pull._replace(position=b'{"next": %d}' % (self._next + 1))


class Numbering(ListPuller):
    """Numbers what it pulls anew each time."""

    numbers = itertools.count()

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        return pull and pull._replace(records=[replace(r, number=next(self.numbers)) for r in rows_of(pull)])


class Pruning(ListPuller):
    """Takes for confirmed whatever was asked for."""

    def confirm(self, position: bytes) -> None:
        del self._upstream.rows[-1]


class Sharing(ListPuller):
    """Two rows have one id."""

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        return pull and pull._replace(records=[replace(r, number=r.number // 2) for r in rows_of(pull)])


class Reversing(ListPuller):
    """Reads the newest first when it reads from the beginning."""

    def begin(self, position: bytes | None) -> None:
        super().begin(position)
        if position is None:
            self._upstream = replace(self._upstream, rows=self._upstream.rows[::-1])


class Greedy(ListPuller):
    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        return super().pull(100, max_wait_s)


class Mending(ListSource):
    """Converts from the packed form what it did not convert at first."""

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        self.repaired = {"bad"}
        return super().convert_record(record)


class Renaming(ListSource):
    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return [replace(draft, id=f"{draft.id}x") for draft in super().convert_record(record)]


def rows_of(pull: Pull) -> list[Row]:
    return [record for record in pull.records if isinstance(record, Row)]


class TestToy(PulledSourceConformance):
    kind: Callable[[str, Upstream, int], ListSource] = ListSource
    puller: type[ListPuller] = ListPuller

    @pytest.fixture(autouse=True)
    def upstream_of_its_own(self) -> None:
        self.upstream = Upstream()

    def source(self) -> ListSource:
        source = type(self).kind("toy", self.upstream, 100)
        source.open = self.opened  # type: ignore[method-assign]
        return source

    def opened(self) -> Puller:
        return self.puller(self.upstream, 100)

    def change(self, number: int) -> None:
        self.upstream.add((f"k{number % 3}", f"v{number}"))

    def poison(self) -> None:
        self.upstream.add(("k0", "bad"))


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("test_a_position_goes_on_exactly_behind_what_was_pulled", {"puller": Forgetful}),
    ("test_what_was_pulled_and_not_committed_comes_again", {"puller": Numbering}),
    ("test_what_was_confirmed_loses_nothing_behind_it", {"puller": Pruning}),
    ("test_ids_are_nobody_elses", {"puller": Sharing}),
    ("test_order_per_key_is_upstreams", {"puller": Reversing}),
    ("test_a_pull_is_no_larger_than_asked", {"puller": Greedy}),
    ("test_poison_fails_alone_and_is_packed", {"kind": Mending}),
    ("test_a_packed_record_makes_the_same_events", {"kind": Renaming}),
]


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=[check for check, _ in BROKEN])
def test_a_broken_source_is_caught(check: str, broken: dict[str, Any]) -> None:
    toy = type("Broken", (TestToy,), broken)()
    toy.upstream = Upstream()
    with pytest.raises(AssertionError):
        getattr(toy, check)()


def test_every_check_has_a_source_that_it_catches() -> None:
    assert {check for check, _ in BROKEN} == {name for name in dir(PulledSourceConformance) if name.startswith("test_")}


def test_what_a_kind_cannot_do_is_skipped_with_its_reason() -> None:
    toy = type("Limited", (TestToy,), {"unsupported": {"order": "there is none upstream"}})()
    with pytest.raises(Exception, match="order: there is none upstream"):
        toy.test_order_per_key_is_upstreams()
