"""A pulled source's side of its contract with the pull worker (`heddle.integration.Puller`), without Kafka.

First what a puller has to do by itself: a position stands for exactly what was pulled before it, and a record is the
same whenever it is pulled. Then what the worker makes of it, over a log in memory, when copies die, freeze and stop.
"""

from __future__ import annotations

import contextlib
import threading
import time
import unittest
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from heddle.broker.log import Record
from heddle.errors import DependencyDownError
from heddle.integration import Pull, Pulled, PulledSource, Puller
from heddle.testing.conformance.pulling import Copy, PullScene
from heddle.testing.faults import Crash

CHANGES = 12
STEPS = ("pull", "convert", "commit", "confirm", "confirmed")
CHANGES_OF_A_STEP = 3
MAX_EMPTY_PULLS = 20
WAIT_S = 0.25
OPEN_LIMIT_S = 30.0
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


class PulledSourceConformance(ABC):
    """Subclass it in a test module as `Test...`, give the three methods, and pytest runs the checks.

    Each test gets an instance of its own: `source` and the changes belong to one fresh upstream. `unsupported`: checks
    that the kind cannot pass (position, uncommitted, confirm, crash, fencing, late-confirm, ids, order, backpressure,
    shutdown, poison, pack), each with the reason, with which they are skipped. `batch_slack`: by how many records a
    pull may be larger than it was asked to be, for example up to the end of a page. `stop_limit_s`: within it a source
    has to stop."""

    unsupported: ClassVar[Mapping[str, str]] = {}
    batch_slack: ClassVar[int] = 0
    stop_limit_s: ClassVar[float] = 10.0

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

    def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(self) -> None:
        """Of the worker: at each step once, and the next copy goes on."""
        self._require("crash")
        with self._scene() as scene:
            made = 0
            for step in STEPS:
                with scene.copy() as dying:
                    made = self._more(made)
                    dying.drain(made)
                    self._all_convert(scene)
                    made = self._more(made)
                    scene.hook = _crash_at(step)
                    _until_it_crashes(dying, step)
                scene.hook = lambda _: None
            with scene.copy() as last:
                last.drain(made)
            self._is_emitted_once(scene, made, "after crashes")

    def test_a_copy_that_was_replaced_writes_nothing_more(self) -> None:
        """It is frozen between pull and commit; where upstream lets in one at a time, it wakes up before its successor
        has begun."""
        self._require("fencing")
        with self._scene() as scene:
            made = self._more(0, CHANGES)
            with scene.copy("0") as frozen, _frozen(scene, frozen) as thaw, scene.copy("1") as successor:
                frozen.expel()
                successor.attempt(made)
                thaw()
                successor.drain(made)
                made = self._more(made)
                successor.drain(made)
            self._is_emitted_once(scene, made, "with two copies at once")

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

    def test_a_stop_ends_it_in_time_and_the_next_one_goes_on(self) -> None:
        """While it is at work, and while nothing comes."""
        self._require("shutdown")
        with contextlib.closing(self.source().open()):
            """A copy that is stopped before it has begun."""
        with self._scene() as scene:
            made = self._more(0, CHANGES)
            self._stops(scene, lambda step: step == "confirmed", "while it is at work")
            with scene.copy() as drained:
                drained.drain(made)
            self._stops(scene, lambda step: step == "pull", "while nothing comes")
            made = self._more(made)
            with scene.copy() as last:
                last.drain(made)
            self._is_emitted_once(scene, made, "after two stops")

    def test_poison_fails_alone_and_is_packed(self) -> None:
        """It fails when it is converted, not when it is pulled, and fails again from its packed form."""
        base = self._begin("poison")
        self.poison()
        bad = [record for record in self._records(base, CHANGES + 1) if not _converts(record)]
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

    def test_poison_is_parked_raw_and_others_flow(self) -> None:
        self._require("poison")
        with self._scene() as scene:
            self.change(0)
            self.poison()
            with scene.copy() as worker:
                worker.drain(2)
            assert scene.emitted(), (
                "beside poison nothing is emitted: in this check poison needs a key that no change has, and what "
                f"`change` makes has to convert ({scene.trouble()})"
            )
            parked = [record.value for record in scene.read(scene.source.raw_topic)]
            packed = [record.pack() for record in scene.pulled.values() if not _converts(record)]
            assert parked == packed, (
                f"the raw topic holds {parked}, not the one record that does not convert: {packed}. `pack` has to give "
                "the same bytes each time"
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

    def _require(self, check: str) -> None:
        if reason := self.unsupported.get(check):
            raise unittest.SkipTest(f"{check}: {reason}")

    def _begin(self, check: str) -> bytes | None:
        self._require(check)
        base = self.start()
        for number in range(CHANGES):
            self.change(number)
        return base

    def _more(self, made: int, count: int = CHANGES_OF_A_STEP) -> int:
        """So many changes more; how many were made then."""
        for number in range(made, made + count):
            self.change(number)
        return made + count

    @contextlib.contextmanager
    def _scene(self) -> Iterator[PullScene]:
        base = self.start()
        yield PullScene(self.source(), base)

    def _is_emitted_once(self, scene: PullScene, made: int, when: str) -> None:
        assert len(scene.pulled) == made, (
            f"{when} {len(scene.pulled)} records came of {made} changes: a record that is pulled again needs the same "
            "id, and none may be left out"
        )
        self._all_convert(scene)
        self._same(
            scene.emitted(), scene.expected(),
            f"{when} events are missing, doubled or out of order: `begin` has to go on right behind the position, "
            "`close` may confirm nothing, and `confirm` may touch only what its position covers",
        )  # fmt: skip

    def _all_convert(self, scene: PullScene) -> None:
        """What the worker could not make events of went to the raw topic."""
        diverted = len(scene.read(scene.source.raw_topic))
        assert not diverted, (
            f"{diverted} records did not become events: {scene.trouble() or 'drafts raises now and then'}. `drafts` "
            "has to yield values of the contracts in `emits`, for everything that `change` makes"
        )

    def _stops(self, scene: PullScene, at: Callable[[str], bool], when: str) -> None:
        """A copy that runs is told to stop at a step, and does."""
        running, reached = Copy(scene, "0"), threading.Event()

        def hook(step: str) -> None:
            if at(step):
                reached.set()

        scene.hook = hook
        thread = threading.Thread(target=running.worker.run, args=[running.stop], daemon=True)
        thread.start()
        assert reached.wait(OPEN_LIMIT_S), "it does not begin: `open` and `begin` have to come to an end"
        running.stop.set()
        thread.join(self.stop_limit_s)
        scene.hook = lambda _: None
        assert not thread.is_alive(), (
            f"{when} it does not stop within {self.stop_limit_s:g} s, so that it would be killed: `pull` has to return "
            "after max_wait_s at the latest, also when nothing comes, and `close` at once"
        )

    def _let_in(self, copies: contextlib.ExitStack, position: bytes | None) -> Puller | None:
        """One that has begun and is closed with `copies`; None where upstream does not let it in now."""
        with contextlib.ExitStack() as opened:
            try:
                puller = opened.enter_context(contextlib.closing(self.source().open()))
                puller.begin(position)
            except DependencyDownError:
                return None
            copies.push(opened.pop_all())
            return puller

    @contextlib.contextmanager
    def _open(self, position: bytes | None) -> Iterator[Puller]:
        """Again while upstream has not noticed yet that the former copy is gone, as the worker does."""
        deadline_s = time.monotonic() + OPEN_LIMIT_S
        with contextlib.ExitStack() as opened:
            while (puller := self._let_in(opened, position)) is None:
                assert time.monotonic() < deadline_s, (
                    f"upstream does not let a copy in for {OPEN_LIMIT_S:.0f} s after the former one was closed: "
                    "`close` has to give back whatever keeps others out"
                )
                time.sleep(WAIT_S / 5)
            yield puller

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

    @staticmethod
    def _same(found: Sequence[object], expected: Sequence[object], what: str) -> None:
        assert found == expected, f"{what}. Found {found}, not {expected}"


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


def _converts(record: Pulled) -> bool:
    try:
        list(record.drafts())
    except Exception:
        return False
    return True


def _crash_at(step: str) -> Callable[[str], None]:
    def hook(at: str) -> None:
        if at == step:
            raise Crash

    return hook


def _until_it_crashes(dying: Copy, step: str) -> None:
    deadline_s = time.monotonic() + OPEN_LIMIT_S
    with contextlib.suppress(Crash):
        while time.monotonic() < deadline_s:
            dying.turn()
        raise AssertionError(f"upstream has changed, and the worker never comes to the step {step}")


@contextlib.contextmanager
def _frozen(scene: PullScene, worker: Copy) -> Iterator[Callable[[], None]]:
    """It has pulled, and hangs before it commits; until the call."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hook(step: str) -> None:
        if step == "convert":
            scene.hook = lambda _: None
            hangs.set()
            goes_on.wait()

    def turn() -> None:
        while not hangs.is_set():
            worker.turn()

    thread = threading.Thread(target=turn, daemon=True)

    def thaw() -> None:
        goes_on.set()
        thread.join(OPEN_LIMIT_S)

    scene.hook = hook
    thread.start()
    try:
        assert hangs.wait(OPEN_LIMIT_S), "nothing is pulled: `pull` has to bring what was there before `begin`"
        yield thaw
    finally:
        thaw()
