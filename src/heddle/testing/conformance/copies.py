"""What the pull worker makes of a pulled source, over a log in memory, when its copies die, freeze and stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from heddle.testing.conformance.pulling import Copy, PullScene
from heddle.testing.conformance.upstream import CHANGES, OPEN_LIMIT_S, PulledUpstream, converts
from heddle.testing.faults import Crash

STEPS = ("pull", "convert", "commit", "confirm", "confirmed")


class CopyChecks(PulledUpstream):
    """Part of `PulledSourceConformance`: the worker runs the source, as it does before Kafka."""

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
            packed = [record.pack() for record in scene.pulled.values() if not converts(record)]
            assert parked == packed, (
                f"the raw topic holds {parked}, not the one record that does not convert: {packed}. `pack` has to give "
                "the same bytes each time"
            )

    # What they share

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
