"""Commands meet what else happens to a partition's owner, on both brokers: pauses, fences, aborted transactions,
restarts, and other commands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from broker_world import World
from delivery_harness import EchoStep, Scene, eventually, running
from office import POLICY, Office, lines_of, outcomes, refusals, send, targets, unless

from heddle.broker.log import Broker, Consumer, Record
from heddle.delivery.command import Action, Foreign, Kind, Slice, Target
from heddle.delivery.envelope import entry_of
from heddle.delivery.steps import Budget, Run
from heddle.errors import DependencyDownError, UnknownEffectError
from heddle.integration import Outcome, PartitionFencedError
from heddle.operators import Operators, make_key


@pytest.fixture
def broker(world: World) -> Broker:
    return world.broker


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(make_key(tmp_path, "ada"), make_key(tmp_path, "grace"))


@pytest.fixture
def scene_of(broker: Broker, office: Office) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(broker, **{"on_failure": POLICY, "operators": office.operators} | options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(scene_of: Callable[..., Scene]) -> Scene:
    return scene_of()


def mended(scene: Scene) -> EchoStep:
    """Whatever failed before goes through now."""
    step = scene.step()
    step.one = unless((), step)  # type: ignore[method-assign]
    return step


def parked(scene: Scene, *values: str) -> None:
    """Each under a key of its own."""
    scene.feed(*[(f"key of {value}", value) for value in values])
    with running(scene.worker(scene.step())):
        scene.settled(len(values))
    assert [value for _, value, _ in scene.unresolved()] == list(values)


def test_on_call_is_heard_while_a_dependency_is_down(scene: Scene, office: Office) -> None:
    parked(scene, "bad")
    step = scene.step()
    tried, down = threading.Event(), threading.Event()
    down.set()

    def before(_: Record) -> None:
        tried.set()
        if down.is_set():
            raise DependencyDownError("no answer")

    step.before = before
    scene.feed(("a", "one"))
    with running(scene.worker(step)):
        assert tried.wait(40)
        send(scene, office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad"))))
        scene.drained()
        assert scene.counts().total == 1
        down.clear()
        scene.settled(2)


def test_what_is_done_is_not_read_again_by_the_next_owner_and_the_chain_holds(scene: Scene, office: Office) -> None:
    parked(scene, "bad")
    command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")))
    send(scene, command)
    with running(scene.worker(scene.step())):
        scene.drained()
    after = scene.metadata().next_command
    assert after == 1
    with running(scene.worker(scene.step())):
        scene.feed(("a", "one"))
        scene.settled(2)
        second = office.command(scene, Action.DISCARD, Slice(0, ()))
        send(scene, second)
        eventually(lambda: scene.metadata().next_command > after, "read on from there")
    assert [r.body["job"] for r in scene.audit() if r.kind == "command"] == [command.job, second.job]
    assert scene.chain_break() is None


def test_a_fence_in_the_middle_of_a_job_leaves_nothing_of_it_undone(scene: Scene, office: Office) -> None:
    """The partition proves itself again, and its index is read anew: so are its commands."""
    values = [f"bad {number}" for number in range(10, 20)]
    parked(scene, *values)
    step = mended(scene)
    run, runs = step.run, []

    def fenced_once(records: Sequence[Record], budget: Budget) -> Run:
        runs.append(len(records))
        if len(runs) == 2:
            raise PartitionFencedError
        return run(records, budget)

    step.run = fenced_once  # type: ignore[method-assign]
    command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, *values)))
    send(scene, command)
    with running(scene.worker(step, batch_max_records=4)):
        eventually(lambda: len(outcomes(scene, command)) == 10, "accounted for")
    assert outcomes(scene, command) == ["emitted"] * 10
    assert sorted(scene.outputs()) == [value.upper() for value in values]


def test_commands_whose_transaction_was_aborted_are_done_all_the_same(
    scene_of: Callable[..., Scene], office: Office
) -> None:
    """The group moves on while the owner looks at the fourth of them; its partitions stay."""
    seen: list[str] = []
    members: list[Consumer] = []

    class Interrupted(Operators):
        def verify(self, actor: str, signature: str, statement: bytes) -> bool:
            seen.append(actor)
            if len(seen) == 4:
                for member in members:
                    member.consume(1, 0.01)
            return super().verify(actor, signature, statement)

    scene = scene_of(partitions=4, operators=Interrupted(office.operators.keys))
    for partition in range(4):
        scene.feed(("a", "bad 1"), ("b", "bad 2"), ("c", "bad 3"), partition=partition)
    with running(scene.worker(scene.step())):
        scene.settled(12)
    commands = []
    for partition in range(4):
        first, *others = [target_of(record) for record in scene.newest() if record.partition == partition]
        discard = office.command(scene, Action.DISCARD, Slice(partition, (first,)))
        replay = office.command(scene, Action.REPLAY, Slice(partition, tuple(others)), rate_per_s=1.0)
        commands += [(partition, discard), (partition, replay)]
    with running(scene.worker(mended(scene))):
        eventually(lambda: all(scene.metadata(p).started == 1 for p in range(4)), "the worker owns all")
        members.append(scene.broker.consumer(scene.subscription.group, scene.subscription.topic))
        eventually(lambda: members[0].consume(1, 0.01) == [] and bool(members[0].assignment()), "another joined")
        members.append(scene.broker.consumer(scene.subscription.group, scene.subscription.topic))
        members[1].consume(1, 0.01)  # the group waits for the first to join again, and the worker goes on meanwhile
        for partition, command in commands:
            send(scene, command, partition=partition)
        eventually(lambda: len(seen) >= 4, "the group has moved on")
        for member in members:
            member.close()
        scene.drained()
        eventually(lambda: all(outcomes(scene, command) for _, command in commands), "accounted for")
    done = sorted(outcome for _, command in commands for outcome in outcomes(scene, command))
    assert done == ["discarded"] * 4 + ["emitted"] * 8
    assert scene.chain_break() is None


def target_of(record: Record) -> Target:
    entry = entry_of(record)
    return Target(entry.topic_id, entry.offset, entry.version)


def test_a_target_that_another_command_has_decided_is_accounted_for(scene: Scene, office: Office) -> None:
    parked(scene, "bad 1", "bad 2")
    slow = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad 1", "bad 2")), rate_per_s=0.001)
    with running(scene.worker(mended(scene))):
        send(scene, slow)
        eventually(lambda: outcomes(scene, slow) == ["emitted"], "the first has run")
        send(scene, office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad 2"))))
        eventually(lambda: outcomes(scene, slow) == ["emitted", "skipped"], "both are accounted for")
    assert lines_of(scene, slow.job)[-1].code == "changed"
    assert scene.outputs() == ["BAD 1"]


def test_the_slices_of_a_job_share_its_pace_and_a_cancelled_entry_is_free_for_another_job(
    scene: Scene, office: Office
) -> None:
    parked(scene, "bad 1", "bad 2")
    parts = [Slice(0, targets(scene, value)) for value in ("bad 1", "bad 2")]
    first = office.command(scene, Action.REPLAY, parts[0], rate_per_s=0.001)
    first = replace(first, slice_hashes=tuple(part.hash for part in parts), signatures=())
    slow = [office.signed(replace(first, index=index, slice=part), office.ada) for index, part in enumerate(parts)]
    with running(scene.worker(mended(scene))):
        send(scene, *slow)
        eventually(lambda: outcomes(scene, first) == ["emitted"], "the first has run")
        scene.feed(("a", "one"))
        scene.settled(3)
        assert outcomes(scene, first) == ["emitted"]
        cancel = replace(first, kind=Kind.CANCEL, index=-1, slice=None)
        send(scene, office.signed(cancel, office.ada))
        eventually(lambda: outcomes(scene, first) == ["emitted", "cancelled"], "accounted for")
        again = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad 2")))
        send(scene, again)
        eventually(lambda: bool(outcomes(scene, again)), "accounted for")
    assert outcomes(scene, again) == ["emitted"]


def test_a_signature_for_the_act_does_not_cancel_it(scene: Scene, office: Office) -> None:
    """Whoever can write into the topic has seen the act's."""
    parked(scene, "bad")
    command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), approvals=2)
    with running(scene.worker(scene.step())):
        send(scene, command, replace(command, kind=Kind.CANCEL, index=-1, slice=None))
        eventually(lambda: len(refusals(scene)) == 1, "refused")
        bare = replace(command, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
        send(scene, office.signed(bare, office.grace))
        scene.drained()
    assert outcomes(scene, command) == ["discarded"]


@pytest.mark.parametrize(
    ("action", "header"), [(Action.REPLAY, {}), (Action.EDIT, {"run": True})], ids=["replay", "edit"]
)
def test_nothing_runs_under_another_handler_than_it_was_planned_with(
    scene: Scene, office: Office, action: Action, header: dict[str, object]
) -> None:
    parked(scene, "bad")
    bodies = (b"good",) if action is Action.EDIT else ()
    part = Slice(0, targets(scene, "bad"), bodies)
    with running(scene.worker(mended(scene))):
        send(scene, office.command(scene, action, part, handler="older", **header))
        eventually(lambda: bool(refusals(scene)), "refused")
    assert "handler has changed" in refusals(scene)[0].body["why"]
    assert scene.unresolved() == [("dead", "bad", "contract")]


def test_an_edit_without_a_body_for_each_entry_is_refused_whole(scene: Scene, office: Office) -> None:
    parked(scene, "bad 1", "bad 2")
    part = Slice(0, targets(scene, "bad 1", "bad 2"), (b"one",))
    with running(scene.worker(scene.step())):
        send(scene, office.command(scene, Action.EDIT, part))
        eventually(lambda: bool(refusals(scene)), "refused")
    assert [value for _, value, _ in scene.unresolved()] == ["bad 1", "bad 2"]


def test_a_record_that_is_imported_by_two_commands_at_once_is_one_entry(scene: Scene, office: Office) -> None:
    foreign = Foreign("orders-dlt:2", 3, b"a", b"bad import", (), 1_000, ())
    commands = [office.command(scene, Action.IMPORT, Slice(0, foreign=(foreign,))) for _ in range(2)]
    send(scene, *commands)  # the owner finds both when it starts
    with running(scene.worker(scene.step())):
        eventually(lambda: all(outcomes(scene, command) for command in commands), "accounted for")
    assert [outcomes(scene, command) for command in commands] == [["imported"], ["skipped"]]
    assert len(scene.entries()) == 1


def test_who_looks_at_a_classified_field_leaves_a_line_and_the_entry_as_it_is(scene: Scene, office: Office) -> None:
    parked(scene, "bad")
    command = office.command(scene, Action.REVEAL, Slice(0, targets(scene, "bad")))
    send(scene, command)
    with running(scene.worker(scene.step())):
        eventually(lambda: bool(outcomes(scene, command)), "noted")
    [line] = lines_of(scene, command.job)
    assert (line.outcome, line.entry, line.state) == ("revealed", "0-0", "dead")
    assert len(scene.entries()) == 1


@pytest.mark.parametrize("decision", ["discard", "edit", "settle"])
def test_what_a_person_has_decided_is_recognised_when_it_comes_again(
    scene: Scene, office: Office, decision: str
) -> None:
    """At once, when its source sends it twice; and after a restart, when the group goes back."""
    headers = [("ce_id", b"e-1"), ("ce_source", b"/shop"), ("ce_specversion", b"1.0"), ("ce_type", b"order")]
    record = Record("", 0, 0, b"a", b"bad", list(headers), 0)
    step = scene.step()
    if decision == "settle":
        step.before = _unknown
    scene.append(scene.subscription.topic, record)
    with running(scene.worker(step)):
        scene.settled(1)
        part = Slice(0, targets(scene, "bad"))
        if decision == "discard":
            command = office.command(scene, Action.DISCARD, part)
        elif decision == "edit":
            command = office.command(scene, Action.EDIT, replace(part, bodies=(b"good",)), run=True)
        else:
            command = office.command(scene, Action.SETTLE, part, settle_as="applied")
        send(scene, command)
        scene.drained()
        scene.append(scene.subscription.topic, record)
        scene.settled(2)
    assert scene.counts().by_outcome[Outcome.DUPLICATE] == 1
    scene.move_offsets({0: 0})
    with running(scene.worker(step)):
        scene.settled(2)
    assert scene.counts().by_outcome[Outcome.DUPLICATE] == 2
    assert scene.unresolved() == []
    assert scene.outputs() == (["GOOD"] if decision == "edit" else [])


def _unknown(_: Record) -> None:
    raise UnknownEffectError("the answer is lost")
