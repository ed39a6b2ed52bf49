"""A pulled source's side of its contract with the pull worker (`heddle.integration.Puller`), without a broker.

The worker commits events and position together; what is left to a kind is checked here: that a position stands for
exactly what was pulled before it, and that a record is the same whenever it is pulled.
"""

from __future__ import annotations

import contextlib
import time
import unittest
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from heddle.broker.log import Record
from heddle.errors import DependencyDownError
from heddle.integration import Pull, Pulled, PulledSource, Puller

CHANGES = 12
MAX_EMPTY_PULLS = 20
WAIT_S = 0.25
OPEN_LIMIT_S = 30.0


class PulledSourceConformance(ABC):
    """Subclass it in a test module as `Test...`, give the three methods, and pytest runs the checks.

    Each test gets an instance of its own: `source` and the changes belong to one fresh upstream. `unsupported`: checks
    that the kind cannot pass (position, uncommitted, confirm, ids, order, backpressure, poison, pack), each with the
    reason, with which they are skipped. `batch_slack`: by
    how many records a pull may be larger than it was asked to be, for example up to the end of a page."""

    unsupported: ClassVar[Mapping[str, str]] = {}
    batch_slack: ClassVar[int] = 0

    @abstractmethod
    def source(self) -> PulledSource:
        """The source, each time over the same upstream."""

    def start(self) -> bytes | None:
        """The position before all changes; None is the beginning. Where a kind begins with more than changes (with a
        snapshot, say), make it here, and give the position behind it."""
        return None

    @abstractmethod
    def change(self, number: int) -> None:
        """Upstream changes, so that one record more is pulled: of the entity `number % 3`."""

    @abstractmethod
    def poison(self) -> None:
        """Upstream changes to what the source cannot convert: one record more whose `drafts` raises."""

    def test_a_position_goes_on_exactly_behind_what_was_pulled(self) -> None:
        """Crash after the commit, before upstream is told."""
        base = self._begin("position")
        first = self._pulled(base, CHANGES)[0]
        rest = self._pulled(first.position, CHANGES - len(first.records))
        self._same(_ids([first, *rest]), self._all(base), "a position loses or repeats records")

    def test_what_was_pulled_and_not_committed_comes_again(self) -> None:
        """Crash before the commit: a pull and a close forget nothing upstream."""
        base = self._begin("uncommitted")
        before, after = self._all(base), self._all(base)
        assert len(before) == CHANGES, f"{len(before)} records of {CHANGES} changes"
        self._same(sorted(after), sorted(before), "what nobody confirmed does not come again with the same ids")

    def test_what_was_confirmed_loses_nothing_behind_it(self) -> None:
        """Crash after upstream was told."""
        base = self._begin("confirm")
        expected = self._all(base)
        with self._open(base) as puller:
            first = _next(puller, 2)
            puller.confirm(first.position)
        rest = self._pulled(first.position, CHANGES - len(first.records))
        self._same(_ids([first, *rest]), expected, "to confirm loses or repeats what comes behind the position")

    def test_ids_are_nobody_elses(self) -> None:
        base = self._begin("ids")
        ids = self._all(base)
        assert len(set(ids)) == len(ids), "two records have one id"

    def test_order_per_key_is_upstreams(self) -> None:
        """Each change is pulled before the next of its entity is made; then all of them are pulled anew."""
        self._require("order")
        base = position = self.start()
        made = []
        for number in range(CHANGES):
            self.change(number)
            pulls = self._pulled(position, 1)
            position = pulls[-1].position
            made += [(record.key, record.id) for pull in pulls for record in pull.records]
        again = [(record.key, record.id) for pull in self._pulled(base, CHANGES) for record in pull.records]
        for key in {key for key, _ in made}:
            self._same([i for k, i in again if k == key], [i for k, i in made if k == key], f"order of {key!r}")

    def test_a_pull_is_no_larger_than_asked(self) -> None:
        base = self._begin("backpressure")
        largest = max(len(pull.records) for pull in self._pulled(base, CHANGES))
        assert largest <= 2 + self.batch_slack, f"asked for 2 records, got {largest}"

    def test_poison_fails_alone_and_is_packed(self) -> None:
        """It fails when it is converted, not when it is pulled, and fails again from its packed form."""
        base = self._begin("poison")
        self.poison()
        bad = [record for record in self._records(base, CHANGES + 1) if not _converts(record)]
        assert len(bad) == 1, f"{len(bad)} records do not convert, not the one that is poison"
        try:
            list(self.source().convert_record(self._raw(bad[0])))
        except Exception:
            return
        raise AssertionError("what does not convert when it is pulled converts from its packed form")

    def test_a_packed_record_makes_the_same_events(self) -> None:
        base = self._begin("pack")
        for record in self._records(base, CHANGES):
            again = list(self.source().convert_record(self._raw(record)))
            self._same(again, list(record.drafts()), "the packed form makes other events")

    # What the checks share

    def _require(self, check: str) -> None:
        if reason := self.unsupported.get(check):
            raise unittest.SkipTest(f"{check}: {reason}")

    def _begin(self, check: str) -> bytes | None:
        self._require(check)
        base = self.start()
        for number in range(CHANGES):
            self.change(number)
        return base

    @contextlib.contextmanager
    def _open(self, position: bytes | None) -> Iterator[Puller]:
        """Again while upstream has not noticed yet that the former copy is gone, as the worker does."""
        deadline_s = time.monotonic() + OPEN_LIMIT_S
        while True:
            with contextlib.closing(self.source().open()) as puller:
                try:
                    puller.begin(position)
                except DependencyDownError:
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(WAIT_S / 5)
                    continue
                yield puller
                return

    def _pulled(self, position: bytes | None, count: int) -> list[Pull]:
        """Pulls until so many records came, and then one more, for what should not be there."""
        pulls: list[Pull] = []
        with self._open(position) as puller:
            while sum(len(pull.records) for pull in pulls) < count:
                pulls.append(_next(puller, 2))
            extra = puller.pull(2, 0.0)
        return pulls if extra is None or not extra.records else [*pulls, extra]

    def _records(self, base: bytes | None, count: int) -> list[Pulled]:
        return [record for pull in self._pulled(base, count) for record in pull.records]

    def _all(self, base: bytes | None) -> list[str]:
        return [record.id for record in self._records(base, CHANGES)]

    def _raw(self, record: Pulled) -> Record:
        return Record(self.source().raw_topic, 0, 0, record.key, record.pack(), [], 0)

    @staticmethod
    def _same(found: Sequence[object], expected: Sequence[object], what: str) -> None:
        assert found == expected, f"{what}: {found} instead of {expected}"


def _next(puller: Puller, max_records: int) -> Pull:
    for _ in range(MAX_EMPTY_PULLS):
        pull = puller.pull(max_records, WAIT_S)
        if pull is not None and pull.records:
            return pull
    raise AssertionError("records are missing: upstream has changed, and nothing is pulled")


def _ids(pulls: list[Pull]) -> list[str]:
    return [record.id for pull in pulls for record in pull.records]


def _converts(record: Pulled) -> bool:
    try:
        list(record.drafts())
    except Exception:
        return False
    return True
