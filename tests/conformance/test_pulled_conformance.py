"""The conformance checks of pulled sources can fail: each broken toy is caught by the check that is named for it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from pulling import WHEN, ListPuller, ListSource, Row, Upstream

from heddle.broker.log import Record
from heddle.event import Draft
from heddle.integration import Pull, Puller
from heddle.testing.conformance import PulledSourceConformance
from schemas.payments import Payment


class Paid(Row):
    """A row whose event is of a real contract."""

    def drafts(self) -> Iterable[Draft[Any]]:
        for draft in super().drafts():
            key, value = draft.value
            payment = Payment(
                payment_id=key.decode(), invoice_id=value, amount=Decimal(1), currency="EUR", status="SUCCEEDED",
                paid_at=WHEN,
            )  # fmt: skip
            yield replace(draft, value=payment)


class PaidSource(ListSource):
    emits = (Payment,)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        number, key, value = json.loads(record.value or b"")
        if value in self.repaired:
            value = value.removeprefix("bad")
        return Paid(number, key.encode(), value).drafts()


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


class Acking(ListPuller):
    """Acknowledges what it has only pulled; upstream gives the next copy what is behind that."""

    def begin(self, position: bytes | None) -> None:
        super().begin(position)
        self._next = max(self._next, self._upstream.confirmed)

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        self._upstream.confirmed = self._next
        return pull


@dataclass
class Handing(Upstream):
    """`taken`: numbers of the rows that a copy has and others are not given."""

    taken: set[int] = field(default_factory=set)


class Claiming(ListPuller):
    """What it has pulled nobody else is given as long as it lives."""

    _upstream: Handing

    def __init__(self, upstream: Upstream, batch: int) -> None:
        super().__init__(upstream, batch)
        self._mine: set[int] = set()

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        if pull is None:
            return None
        rows = [row for row in rows_of(pull) if row.number not in self._upstream.taken]
        self._mine |= {row.number for row in rows}
        self._upstream.taken |= self._mine
        return pull._replace(records=rows)

    def close(self) -> None:
        self._upstream.taken -= self._mine


class Returning(ListPuller):
    """Upstream forgets what was confirmed last, wherever that was, and gives the next one what it has not forgotten."""

    def begin(self, position: bytes | None) -> None:
        super().begin(position)
        self._next = min(self._next, self._upstream.confirmed)

    def confirm(self, position: bytes) -> None:
        self._upstream.confirmed = json.loads(position)["next"]


class Dropping(ListPuller):
    """Its buffer holds eight rows, and forgets the older ones."""

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        if self._next:
            self._next = max(self._next, len(self._upstream.rows) - 8)
        return super().pull(max_records, max_wait_s)


class Endless(ListPuller):
    """Waits until something comes."""

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        while (pull := super().pull(max_records, max_wait_s)) is None and not self.freed.wait(0.05):
            pass
        return pull

    freed: ClassVar[threading.Event] = threading.Event()


class Mending(PaidSource):
    """Converts from the packed form what it did not convert at first."""

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        self.repaired = {"bad"}
        return super().convert_record(record)


class Renaming(PaidSource):
    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return [replace(draft, id=f"{draft.id}x") for draft in super().convert_record(record)]


def rows_of(pull: Pull) -> list[Row]:
    return [record for record in pull.records if isinstance(record, Row)]


class TestToy(PulledSourceConformance):
    kind: Callable[[str, Upstream, int], ListSource] = PaidSource
    puller: type[ListPuller] = ListPuller
    row: type[Paid] = Paid

    @pytest.fixture(autouse=True)
    def upstream_of_its_own(self) -> None:
        self.upstream = Handing()

    def source(self) -> ListSource:
        source = type(self).kind("toy", self.upstream, 100)
        source.open = self.opened  # type: ignore[method-assign]
        return source

    def opened(self) -> Puller:
        return self.puller(self.upstream, 100)

    def change(self, number: int) -> None:
        self.add(f"k{number % 3}", f"v{number}")

    def poison(self) -> None:
        self.add("k9", "bad")

    def add(self, key: str, value: str) -> None:
        self.upstream.rows.append(self.row(len(self.upstream.rows), key.encode(), value))


@dataclass(frozen=True)
class Unpackable(Paid):
    """Its packed form is another one each time."""

    packs: ClassVar = itertools.count()

    def pack(self) -> bytes:
        return super().pack() + b" " * next(self.packs)


class Minding(ListPuller):
    """Keeps the number of each row beside the position, and does not begin without them."""

    known: tuple[bytes, ...] = ()

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.known = tuple(sorted(key for key, _ in entries))

    def begin(self, position: bytes | None) -> None:
        super().begin(position)
        assert self.known == tuple(sorted(b"%d" % number for number in range(self._next))), "not what was kept"

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        return pull and pull._replace(kept=[(row.id.encode(), b"") for row in rows_of(pull)])


class TestKeepingToy(TestToy):
    puller = Minding


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("test_a_position_goes_on_exactly_behind_what_was_pulled", {"puller": Forgetful}, "a position loses or repeats"),
    (
        "test_what_was_pulled_and_not_committed_comes_again",
        {"puller": Numbering},
        "does not come again with the same ids",
    ),
    ("test_what_was_confirmed_loses_nothing_behind_it", {"puller": Pruning}, "to confirm loses or repeats"),
    ("test_a_crash_at_any_step_loses_nothing_and_doubles_nothing", {"puller": Acking}, "after crashes"),
    ("test_a_copy_that_was_replaced_writes_nothing_more", {"puller": Claiming}, "with two copies at once"),
    ("test_a_copy_that_was_replaced_takes_nothing_from_its_successor", {"puller": Claiming}, "must not be hidden"),
    ("test_a_copy_that_was_replaced_takes_nothing_from_its_successor", {"puller": Returning}, "must not be hidden"),
    ("test_what_nobody_asks_for_is_kept_upstream", {"puller": Dropping}, "while nobody pulled is lost"),
    (
        "test_a_stop_ends_it_in_time_and_the_next_one_goes_on",
        {"puller": Endless, "stop_limit_s": 0.5},
        "does not stop within",
    ),
    ("test_poison_is_parked_raw_and_others_flow", {"row": Unpackable}, "the raw topic holds"),
    ("test_ids_are_nobody_elses", {"puller": Sharing}, "two records have one id"),
    ("test_order_per_key_is_upstreams", {"puller": Reversing}, "pulled in another order"),
    ("test_a_pull_is_no_larger_than_asked", {"puller": Greedy}, "asked for 2 records"),
    ("test_poison_fails_alone_and_is_packed", {"kind": Mending}, "converts from its packed form"),
    ("test_a_packed_record_makes_the_same_events", {"kind": Renaming}, "the packed form makes other events"),
]


@pytest.mark.parametrize(("check", "broken", "why"), BROKEN, ids=[check for check, *_ in BROKEN])
def test_a_broken_source_is_caught(check: str, broken: dict[str, Any], why: str) -> None:
    toy = type("Broken", (TestToy,), broken)()
    toy.upstream = Handing()
    with pytest.raises(AssertionError, match=why):
        getattr(toy, check)()


def test_every_check_has_a_source_that_it_catches() -> None:
    assert {check for check, *_ in BROKEN} == {
        name for name in dir(PulledSourceConformance) if name.startswith("test_")
    }


def test_what_a_kind_cannot_do_is_skipped_with_its_reason() -> None:
    toy = type("Limited", (TestToy,), {"unsupported": {"order": "there is none upstream"}})()
    with pytest.raises(Exception, match="order: there is none upstream"):
        toy.test_order_per_key_is_upstreams()
