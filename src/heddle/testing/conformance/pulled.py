"""A pulled source's side of its contract with the pull worker (`heddle.integration.Puller`), without Kafka.

Here is what a puller has to do by itself: a position stands for exactly what was pulled before it, and a record is the
same whenever it is pulled. What the worker makes of it is in `copies`.
"""

from __future__ import annotations

import contextlib

from heddle.broker.log import Record
from heddle.errors import DependencyDownError
from heddle.integration import Pull, Pulled, Puller
from heddle.testing.conformance.copies import CopyChecks
from heddle.testing.conformance.upstream import CHANGES, WAIT_S, converts

MAX_EMPTY_PULLS = 20
MISSING = (
    "upstream has changed, and nothing is pulled: `pull` has to bring what was there before it, and what comes while "
    "it waits"
)
HIDDEN = (
    "what one copy has pulled must not be hidden from the next one, and to confirm an older position must not move "
    "upstream back or forward. Either keep nothing upstream but the confirmed position, which only rises, or let in "
    "one copy at a time and raise DependencyDownError to all others"
)
DROPPED = (
    "what came while nobody pulled is lost, or out of order: read from upstream when `pull` asks, and keep no buffer "
    "that drops what is too much for it"
)


class PulledSourceConformance(CopyChecks):
    """Subclass it in a test module as `Test...`, give the three methods, and pytest runs the checks.

    Each test gets an instance of its own: `source` and the changes belong to one fresh upstream. `unsupported`: checks
    that the kind cannot pass (position, uncommitted, confirm, crash, fencing, late-confirm, ids, order, backpressure,
    shutdown, poison, pack), each with the reason, with which they are skipped. `batch_slack`: by how many records a
    pull may be larger than it was asked to be, for example up to the end of a page. `stop_limit_s`: within it a source
    has to stop."""

    def test_a_position_goes_on_exactly_behind_what_was_pulled(self) -> None:
        """Crash after the commit, before upstream is told."""
        base = self._begin("position")
        first = self._pulled(base, CHANGES)[0]
        rest = self._rest(first.position, CHANGES - len(first.records))
        self._same(
            _ids([first, *rest]), self._all(base),
            "a position loses or repeats records: `Pull.position` has to stand right behind the last of its records, "
            "and `begin` has to go on right there",
        )  # fmt: skip

    def test_what_was_pulled_and_not_committed_comes_again(self) -> None:
        """Crash before the commit: a pull and a close forget nothing upstream."""
        base = self._begin("uncommitted")
        before, after = self._all(base), self._all(base)
        assert len(before) == CHANGES, (
            f"{len(before)} records of {CHANGES} changes: `change` has to make one record each, and `pull` has to miss "
            "and to repeat none"
        )
        self._same(
            sorted(after), sorted(before),
            "what nobody confirmed does not come again with the same ids: only `confirm` may let upstream forget, and "
            "`id` has to come from upstream (its key, its place in a log), never from a counter or the clock here",
        )  # fmt: skip

    def test_what_was_confirmed_loses_nothing_behind_it(self) -> None:
        """Crash after upstream was told."""
        base = self._begin("confirm")
        expected = self._all(base)
        with self._open(base) as puller:
            first = _next(puller, 2)
            puller.confirm(first.position)
        rest = self._rest(first.position, CHANGES - len(first.records))
        self._same(
            _ids([first, *rest]), expected,
            "to confirm loses or repeats what comes behind the position: `confirm` may let upstream forget what its "
            "position covers, and nothing else",
        )  # fmt: skip

    def test_a_copy_that_was_replaced_takes_nothing_from_its_successor(self) -> None:
        """It has pulled more than it committed, and confirms late what it did commit."""
        self._require("late-confirm")
        base, half = self.start(), CHANGES // 2
        self._more(0, half)
        with contextlib.ExitStack() as copies:
            former: Puller | None = copies.enter_context(self._open(base))
            assert former is not None
            done = _next(former, CHANGES)
            self._more(half, half)
            former.pull(CHANGES, WAIT_S)
            successor = self._let_in(copies, done.position)
            if successor is None:  # upstream has one copy at a time
                copies.close()
                successor = copies.enter_context(self._open(done.position))
                former = None
            mine = _next(successor, 2, HIDDEN)
            successor.confirm(mine.position)
            if former is not None:
                with contextlib.suppress(DependencyDownError):
                    former.confirm(done.position)
        rest = self._rest(mine.position, CHANGES - len(done.records) - len(mine.records))
        found = _ids([done, mine, *rest])
        assert len(found) == len(set(found)) == CHANGES, (
            f"{CHANGES} changes, and {len(found)} records ({len(set(found))} of them different) came to two copies in "
            f"turn: {HIDDEN}"
        )

    def test_ids_are_nobody_elses(self) -> None:
        base = self._begin("ids")
        ids = self._all(base)
        twice = sorted({id for id in ids if ids.count(id) > 1})
        assert not twice, (
            f"two records have one id, and the second one would be dropped as a duplicate: {twice}. An id has to name "
            "the change, not its entity: add the version, or the place in the log"
        )

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
            self._same(
                [i for k, i in again if k == key], [i for k, i in made if k == key],
                f"changes of {key!r} are pulled in another order than they were made: read upstream in the order of "
                "its commits, with a sort that is total",
            )  # fmt: skip

    def test_a_pull_is_no_larger_than_asked(self) -> None:
        base = self._begin("backpressure")
        largest = max(len(pull.records) for pull in self._pulled(base, CHANGES))
        assert largest <= 2 + self.batch_slack, (
            f"asked for 2 records, got {largest}: end a pull at max_records (or declare batch_slack, where upstream "
            "gives whole pages)"
        )

    def test_what_nobody_asks_for_is_kept_upstream(self) -> None:
        """Kafka takes nothing for a while, so that nothing is pulled, and upstream goes on changing."""
        base = self._begin("backpressure")
        with self._open(base) as puller:
            pulls = [_next(puller, 2)]
            self._more(CHANGES, 4 * CHANGES)
            while sum(len(pull.records) for pull in pulls) < 5 * CHANGES:
                pulls.append(_next(puller, 2, DROPPED))
        self._same(_ids(pulls), _ids(self._pulled(base, 5 * CHANGES)), DROPPED)
        largest = max(len(pull.records) for pull in pulls)
        assert largest <= 2 + self.batch_slack, (
            f"asked for 2 records after a pause, got {largest}: what has gathered has to be split as well"
        )

    def test_poison_fails_alone_and_is_packed(self) -> None:
        """It fails when it is converted, not when it is pulled, and fails again from its packed form."""
        base = self._begin("poison")
        self.poison()
        bad = [record for record in self._records(base, CHANGES + 1) if not converts(record)]
        assert len(bad) == 1, (
            f"{len(bad)} records do not convert, not the one that is poison: what is wrong with one record has to "
            "raise in its `drafts`, and nowhere else"
        )
        try:
            list(self.source().convert_record(self._raw(bad[0])))
        except Exception:
            return
        raise AssertionError(
            "what does not convert when it is pulled converts from its packed form: `convert_record` and `drafts` have "
            "to be one code over the same content"
        )

    def test_a_packed_record_makes_the_same_events(self) -> None:
        base = self._begin("pack")
        for record in self._records(base, CHANGES):
            again = list(self.source().convert_record(self._raw(record)))
            self._same(
                again, list(record.drafts()),
                "the packed form makes other events: `pack` has to hold all that `drafts` uses, and nothing may come "
                "from the clock or from chance",
            )  # fmt: skip

    # What the checks share

    def _pulled(self, position: bytes | None, count: int) -> list[Pull]:
        """Pulls until so many records came or no more do, and then one more, for what should not be there."""
        pulls = self._rest(position, count)
        assert pulls, MISSING
        return pulls

    def _rest(self, position: bytes | None, count: int) -> list[Pull]:
        """As `_pulled`, where nothing at all is an answer."""
        pulls: list[Pull] = []
        with self._open(position) as puller:
            while sum(len(pull.records) for pull in pulls) < count and (pull := _came(puller, 2)) is not None:
                pulls.append(pull)
            extra = puller.pull(2, 0.0)
        return pulls if extra is None or not extra.records else [*pulls, extra]

    def _records(self, base: bytes | None, count: int) -> list[Pulled]:
        return [record for pull in self._pulled(base, count) for record in pull.records]

    def _all(self, base: bytes | None) -> list[str]:
        return [record.id for record in self._records(base, CHANGES)]

    def _raw(self, record: Pulled) -> Record:
        return Record(self.source().raw_topic, 0, 0, record.key, record.pack(), [], 0)


def _came(puller: Puller, max_records: int) -> Pull | None:
    for _ in range(MAX_EMPTY_PULLS):
        pull = puller.pull(max_records, WAIT_S)
        if pull is not None and pull.records:
            return pull
    return None


def _next(puller: Puller, max_records: int, what: str = MISSING) -> Pull:
    pull = _came(puller, max_records)
    assert pull is not None, what
    return pull


def _ids(pulls: list[Pull]) -> list[str]:
    return [record.id for pull in pulls for record in pull.records]
