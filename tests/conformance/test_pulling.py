"""Pulled sources: nothing is lost, nothing told twice, whoever dies between two steps; one copy pulls, others wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from broker_world import World
from delivery_harness import Scene, eventually, running
from pulling import Pulling

from heddle.errors import DependencyDownError, FormatError, PositionLostError
from heddle.integration import Outcome

STEPS = ["pull", "convert", "commit", "confirm"]


@pytest.fixture
def pulling(world: World) -> Iterator[Pulling]:
    scene = Scene(world.broker)
    yield Pulling(scene)
    scene.close()


class Crash(BaseException):
    """What no code catches."""


def numbered(pulling: Pulling) -> list[str]:
    return [f"{row.number}:{row.value}" for row in pulling.upstream.rows]


def test_events_and_position_commit_together_and_upstream_is_told_after(pulling: Pulling) -> None:
    pulling.upstream.add(*((f"k{n % 3}", f"v{n}") for n in range(10)))
    seen: list[int] = []

    def told(step: str) -> None:
        if step == "confirm":
            seen.append(len(pulling.outputs()) - pulling.upstream.confirmed)

    worker = pulling.copy()
    pulling.upstream.hook = told
    pulling.pull_all(worker)
    assert worker.counts.by_outcome[Outcome.EMITTED] == 10
    worker.close()
    assert pulling.outputs() == numbered(pulling)
    assert all(ahead > 0 for ahead in seen)


def test_a_successor_goes_on_behind_the_last_position(pulling: Pulling) -> None:
    pulling.upstream.add(*(("k", f"v{n}") for n in range(5)))
    first = pulling.copy()
    pulling.pull_all(first)
    first.close()
    pulling.upstream.add(*(("k", f"v{n}") for n in range(5, 9)))
    second = pulling.copy("1")
    pulling.pull_all(second)
    assert second.counts.total == 9
    second.close()
    assert pulling.outputs() == numbered(pulling)


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(pulling: Pulling, step: str) -> None:
    pulling.upstream.add(*((f"k{n % 3}", f"v{n}") for n in range(12)))
    worker = pulling.copy()
    pulling.turns(worker, lambda: pulling.upstream.confirmed >= 3, "some of it is pulled")

    def crash(at: str) -> None:
        if at == step:
            raise Crash

    if step == "convert":
        pulling.drafts.before = lambda _: crash("convert")
    elif step == "commit":
        worker._producer.send_offsets = lambda *_: crash("commit")  # type: ignore[method-assign]
    else:
        pulling.upstream.hook = crash
    with pytest.raises(Crash):
        pulling.turns(worker, lambda: False, "it crashes")
    pulling.upstream.hook, pulling.drafts.before = (lambda _: None), (lambda _: None)
    worker.abandon()
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    assert pulling.outputs() == numbered(pulling)


def test_one_copy_pulls_and_the_next_one_takes_over(pulling: Pulling) -> None:
    pulling.upstream.add(*(("k", f"v{n}") for n in range(4)))
    first = pulling.copy("0")
    pulling.pull_all(first)
    second = pulling.copy("1")
    for _ in range(3):
        second.turn(pulling.stop)
        first.turn(pulling.stop)
    assert (first.is_leader, second.is_leader, pulling.upstream.opened) == (True, False, 1)
    first.close()
    pulling.upstream.add(("k", "v4"))
    pulling.pull_all(second)
    assert second.is_leader
    second.close()
    assert pulling.outputs() == numbered(pulling)


def test_who_has_lost_the_lead_commits_nothing_more(pulling: Pulling) -> None:
    pulling.upstream.add(*(("k", f"v{n}") for n in range(4)))
    frozen = pulling.copy("0")
    pulling.turns(frozen, lambda: pulling.upstream.confirmed >= 3, "some of it is pulled")
    stop, done = threading.Event(), threading.Event()

    def freeze(_: str) -> None:
        done.set()
        assert stop.wait(60)

    pulling.drafts.before = freeze
    thread = threading.Thread(target=lambda: frozen.turn(pulling.stop), daemon=True)
    thread.start()
    assert done.wait(30)
    pulling.drafts.before = lambda _: None
    frozen._consumer.close()  # its membership ends while it converts
    successor = pulling.copy("1")
    pulling.pull_all(successor)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    successor.close()
    assert pulling.outputs() == numbered(pulling)


def test_what_does_not_convert_is_parked_and_its_key_waits_and_all_others_flow(pulling: Pulling) -> None:
    pulling.upstream.add(("a", "bad0"), ("b", "v1"), ("a", "v2"), ("b", "v3"), ("a", "v4"))
    worker = pulling.copy()
    pulling.pull_all(worker)
    assert (worker.counts.by_outcome[Outcome.EMITTED], worker.counts.by_outcome[Outcome.DIVERTED]) == (2, 3)
    assert pulling.outputs() == ["1:v1", "3:v3"]
    with running(pulling.converter()):
        pulling.scene.settled(3)
    states = [(state, why) for state, _, why in pulling.scene.unresolved()]
    assert states[0] == ("dead", "contract")
    assert [state for state, _ in states[1:]] == ["waiting", "waiting"]
    worker.close()
    successor = pulling.copy("1")  # who restores from entries alone which keys are diverted
    pulling.upstream.add(("a", "v5"), ("b", "v6"))
    pulling.pull_all(successor)
    pulling.upstream.add(("a", "v7"), ("b", "v8"))
    pulling.pull_all(successor)
    assert pulling.outputs() == ["1:v1", "3:v3", "6:v6", "8:v8"]
    successor.close()


def test_a_key_flows_again_once_nothing_of_it_is_unsettled(pulling: Pulling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.delivery.diverted.LOOK_AGAIN_S", 0.0)
    failing = [True]
    pulling.upstream.add(("a", "v0"), ("a", "v1"))

    def fail(value: str) -> None:
        if value == "v0" and failing:
            failing.clear()
            raise ZeroDivisionError

    pulling.drafts.before = fail
    worker = pulling.copy()
    pulling.pull_all(worker)
    assert pulling.outputs() == []
    pulling.upstream.add(("a", "v2"))
    pulling.pull_all(worker)
    with running(pulling.converter()):
        pulling.scene.settled(3)
    pulling.upstream.add(("a", "v3"))
    pulling.pull_all(worker)
    assert worker.counts.by_outcome[Outcome.DIVERTED] == 3
    worker.close()
    assert pulling.outputs() == numbered(pulling)


def test_a_source_that_does_not_answer_is_begun_again_where_it_was(pulling: Pulling) -> None:
    pulling.upstream.add(*(("k", f"v{n}") for n in range(7)))
    outage = iter([False, True, False, True])

    def hook(step: str) -> None:
        if step == "pull" and next(outage, False):
            raise DependencyDownError("upstream is away")

    pulling.upstream.hook = hook
    worker = pulling.copy()
    pulling.pull_all(worker)
    assert pulling.upstream.opened == 3
    worker.close()
    assert pulling.outputs() == numbered(pulling)


def test_a_registry_that_is_down_diverts_nothing(pulling: Pulling) -> None:
    pulling.upstream.add(("k", "v0"), ("k", "v1"))
    down = [True]

    def ask(_: str) -> None:
        if down:
            down.clear()
            raise DependencyDownError("registry away")

    pulling.drafts.before = ask
    worker = pulling.copy()
    pulling.pull_all(worker)
    assert worker.counts.by_outcome[Outcome.DIVERTED] == 0
    worker.close()
    assert pulling.outputs() == numbered(pulling)


def test_what_a_dead_leader_could_not_confirm_its_successor_does(pulling: Pulling) -> None:
    pulling.upstream.add(("k", "v0"))

    def crash(step: str) -> None:
        if step == "confirm":
            raise Crash

    pulling.upstream.hook = crash
    worker = pulling.copy()
    with pytest.raises(Crash):
        pulling.turns(worker, lambda: False, "it crashes")
    pulling.upstream.hook = lambda _: None
    worker.abandon()
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    assert pulling.outputs() == numbered(pulling)


@pytest.mark.parametrize("step", ["pull", "commit", "confirm"])
def test_what_a_source_keeps_is_in_the_transaction_of_its_events(pulling: Pulling, step: str) -> None:
    """A successor finds what belongs to the last position: nothing of what was pulled and not committed."""
    pulling.source.keeps = True
    pulling.upstream.add(*((f"k{number}", f"v{number}") for number in range(9)))
    worker = pulling.copy()
    pulling.pull_all(worker)
    pulling.upstream.add(("k", "v9"))

    def crash(at: str) -> None:
        if at == step:
            raise Crash

    def crash_at_commit(timeout_s: float) -> None:
        raise Crash

    pulling.upstream.hook = crash
    if step == "commit":
        worker._producer.commit = crash_at_commit  # type: ignore[method-assign]
    with pytest.raises(Crash):
        pulling.turns(worker, lambda: False, "it crashes")
    pulling.upstream.hook = lambda _: None
    worker.abandon()
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    first = 6 if step == "confirm" else 5
    assert pulling.upstream.restored == [{}, {b"%d" % n: b"v%d" % n for n in range(first, first + 4)}]
    assert pulling.outputs() == numbered(pulling)


def test_a_position_that_is_gone_upstream_stops_loudly(pulling: Pulling) -> None:
    def lost(step: str) -> None:
        if step == "begin":
            raise PositionLostError("the slot is gone", hint="take a snapshot")

    pulling.upstream.hook = lost
    worker = pulling.copy()
    with pytest.raises(PositionLostError, match="the slot is gone"):
        pulling.turns(worker, lambda: False, "it stops")
    worker.close()


def test_a_position_of_another_format_is_not_guessed(pulling: Pulling, world: World) -> None:
    world.write(f"{pulling.scene.name}.position", b'{"v":2,"position":{}}', key=pulling.scene.name.encode())
    worker = pulling.copy()
    with pytest.raises(FormatError, match="cannot be read here"):
        pulling.turns(worker, lambda: False, "it stops")
    worker.close()


def test_after_two_crashes_what_comes_next_is_left_to_the_raw_topic(pulling: Pulling) -> None:
    pulling.upstream.add(*((f"k{n}", f"v{n}") for n in range(9)))

    def crash(value: str) -> None:
        if value == "v4":
            raise Crash

    for _ in range(2):
        pulling.drafts.before = crash
        worker = pulling.copy()
        with pytest.raises(Crash):
            pulling.turns(worker, lambda: False, "it crashes")
        worker.abandon()
    third = pulling.copy()
    pulling.pull_all(third)
    assert (third.counts.by_outcome[Outcome.EMITTED], third.counts.by_outcome[Outcome.DIVERTED]) == (6, 3)
    third.close()
    assert [value.split(":")[1] for value in pulling.outputs()] == ["v0", "v1", "v2", "v6", "v7", "v8"]
    assert len(pulling.scene.read(pulling.source.raw_topic)) == 3


def test_an_upstream_that_is_away_when_a_copy_begins_raises_no_doubts(pulling: Pulling) -> None:
    """Each try to begin would otherwise count as a crash, and the third would divert what converts."""
    pulling.upstream.add(("k", "v0"), ("k", "v1"))
    away = iter(range(3))

    def begin(step: str) -> None:
        if step == "begin" and next(away, None) is not None:
            raise DependencyDownError("upstream is away")

    pulling.upstream.hook = begin
    worker = pulling.copy()
    pulling.pull_all(worker)
    assert worker.counts.by_outcome[Outcome.DIVERTED] == 0
    worker.close()
    assert pulling.outputs() == numbered(pulling)


def test_it_leaves_cleanly(pulling: Pulling) -> None:
    pulling.upstream.add(("k", "v0"))
    first = pulling.copy()
    pulling.pull_all(first)
    first.close()
    second = pulling.copy()
    pulling.turns(second, lambda: second.is_leader, "it leads")
    assert second._metadata is not None
    assert second._metadata.started == 1
    second.close()
    eventually(lambda: pulling.scene.members(f"{pulling.scene.name}.pull") == 0, "the group is empty")
