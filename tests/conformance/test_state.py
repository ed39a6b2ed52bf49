"""What `heddle lag`, `status` and `plan` know of subscriptions, on both brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from broker_world import World
from delivery_harness import Scene, eventually, running
from standing import commit, park, write

from heddle.audit import AuditTrail
from heddle.broker.log import Outgoing, Position, TopicSpec
from heddle.delivery.envelope import State
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.integration import Outcome
from heddle.on_failure import Caps, OnFailure
from heddle.operations.lag import SubscriptionLag, subscription_lag
from heddle.operations.orphans import Orphan, find_orphans
from heddle.operations.state import SubscriptionState, subscription_states
from heddle.operations.unresolved import Effort, count_unresolved

MakeScene = Callable[..., Scene]


@pytest.fixture
def scene_of(world: World) -> Iterator[MakeScene]:
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(world.broker, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(scene_of: MakeScene) -> Scene:
    return scene_of()


def lag_of(scene: Scene) -> SubscriptionLag:
    (row,) = subscription_lag(scene.broker, [scene.subscription])
    return row


def state_of(scene: Scene) -> SubscriptionState:
    (state,) = subscription_states(scene.broker, [scene.subscription])
    return state


def audit(world: World, scene: Scene, partition: int, kind: str = "batch", **body: object) -> None:
    trail = AuditTrail(scene.name, scene.subscription.topic, scene.subscription.audit_topic, "worker:0", b"key")
    write(world, trail.event(partition, "", kind, body)[0])


def test_a_group_that_never_committed_is_behind_what_the_log_still_has(world: World, scene_of: MakeScene) -> None:
    scene = scene_of(partitions=1)
    for i in range(3):
        scene.feed(*[(f"{i}{n}", "v") for n in range(100)])
    eventually(lambda: scene.ends()[0] >= 300, "visible")
    world.delete_before(scene.subscription.topic, 0, 250)
    expected = scene.ends()[0] - 250
    assert expected - 3 <= lag_of(scene).lag <= expected


def test_a_group_that_begins_at_the_end_is_not_behind_before_it_began(scene_of: MakeScene) -> None:
    scene = scene_of(start="latest", partitions=1)
    scene.feed(("a", "one"), ("b", "two"))
    eventually(lambda: scene.ends()[0] >= 2, "visible")
    assert lag_of(scene).lag == 0


def test_a_partition_that_is_new_to_the_group_counts_whole_whatever_the_declared_start(
    world: World, scene_of: MakeScene
) -> None:
    scene = scene_of(start="latest")
    scene.feed(("a", "whole"), partition=1)
    commit(world, scene, {0: Position(0, PartitionMetadata(partitions=1).pack())})
    assert lag_of(scene).lag == 1


def test_a_marker_that_cannot_be_read_is_told_and_the_others_still_count(world: World, scene: Scene) -> None:
    counts = Counts(Counts().by_outcome | {Outcome.EMITTED: 7})
    runs = Counts(Counts().by_outcome | {Outcome.PARKED: 2})
    marker = PartitionMetadata(counts=counts, entry_counts=runs)
    scene.feed(("a", "one"), partition=1)
    commit(world, scene, {0: Position(0, "9:{}"), 1: Position(0, marker.pack())})
    row = lag_of(scene)
    assert "partition 0: offset metadata has format version '9'" in row.unreadable
    assert (row.lag, row.counts.total, row.entry_counts.total) == (1, 7, 2)
    assert state_of(scene).problems[0][0] == f"{scene.name}: {row.unreadable}"


def test_unresolved_entries_are_counted_by_state_and_resolved_ones_are_not(world: World, scene: Scene) -> None:
    resolved, *_ = park(world, scene, 1, 2, 3)
    park(world, scene, 4, state=State.WAITING, partition=1)
    park(world, scene, 3, state=State.RETRYING)
    park(world, scene, 5, state=State.DISCARDED)
    write(world, [Outgoing(resolved.topic, resolved.key, None, partition=0)])
    unresolved = state_of(scene).unresolved
    assert str(unresolved) == "1 dead, 1 waiting, 1 retrying"
    assert unresolved.complete
    assert unresolved.oldest is not None


def test_counting_stops_in_time_and_says_so(world: World, scene: Scene) -> None:
    park(world, scene, *range(1_200))
    with closing(scene.broker.reader()) as reader:
        topic = scene.subscription.dead_letter_topic
        partitions = {topic: scene.partitions}
        few = count_unresolved(scene.admin, reader, partitions, Effort(400, 60))[topic]
        hasty = count_unresolved(scene.admin, reader, partitions, Effort(5_000, 0))[topic]
        whole = count_unresolved(scene.admin, reader, partitions)[topic]
    assert not few.complete
    assert not hasty.complete
    assert 400 <= few.total < 1_200
    assert str(few).endswith("+")
    assert (whole.total, whole.complete) == (1_200, True)


def test_an_entry_that_cannot_be_read_is_told(world: World, scene: Scene) -> None:
    park(world, scene, 1)
    write(world, [Outgoing(scene.subscription.dead_letter_topic, b"k", b"v", [("heddle-format", b"9")], 0)])
    state = state_of(scene)
    assert state.unresolved.total == 1
    assert "format version b'9'" in state.problems[0][0]


@pytest.mark.parametrize(
    ("record", "says", "hint"),
    [
        ({"paused": "cap: 250000 entries"}, ": 250,000 entries are unresolved, which is the cap", "--group-by fing"),
        (
            {"kind": "paused", "why": "dependency-down: the registry does not answer"},
            ", and nothing is parked: the registry does not answer",
            "goes on once that answers",
        ),
        ({"kind": "paused", "why": "rate-limit: 429"}, ": a target asks to slow down (429)", "by itself"),
    ],
)
def test_a_pause_is_explained(world: World, scene: Scene, record: dict[str, str], says: str, hint: str) -> None:
    audit(world, scene, 0, **record)
    audit(world, scene, 1, **record)
    audit(world, scene, 1)
    consumer = world.consumer(scene.subscription.group, scene.subscription.topic)
    eventually(lambda: consumer.consume(1, 0) == [] and bool(consumer.assignment()), "a worker")
    ((told, what_next),) = state_of(scene).problems
    assert told == f"partition 0 of {scene.name} reads nothing new{says}"
    assert hint in what_next


def test_a_pause_whose_worker_has_stopped_is_history(world: World, scene: Scene) -> None:
    for partition in range(2):
        audit(world, scene, partition, paused="cap: 9 entries")
    ((told, what_next),) = state_of(scene).problems
    assert told == f"partitions 0, 1 of {scene.name} were paused when the worker stopped (cap: 9 entries)"
    assert what_next == f"start it: heddle run {scene.name}"


def test_an_open_transaction_leaves_the_pause_unknown(world: World, scene: Scene) -> None:
    producer = world.producer()
    producer.begin()
    producer.produce([Outgoing(scene.subscription.audit_topic, None, b"{}", partition=0)])
    eventually(lambda: world.written(scene.subscription.audit_topic) > 0, "in flight")
    state = state_of(scene)
    assert state.pauses is None
    assert "not known" in state.problems[0][0]
    producer.abort(30)


def test_topics_that_are_missing_are_told(world: World, scene: Scene) -> None:
    scene.admin.delete_topics([scene.subscription.audit_topic])
    eventually(lambda: not scene.admin.topics([scene.subscription.audit_topic]), "gone")
    state = state_of(scene)
    assert state.missing == (scene.subscription.audit_topic,)
    assert scene.subscription.audit_topic in state.problems[0][0]
    gone = Subscription(scene.name, f"{scene.name}.nowhere")
    (absent,) = subscription_states(scene.broker, [gone])
    assert absent.lag.missing


def test_entries_of_a_subscription_that_is_not_declared_any_more_are_found(world: World, scene: Scene) -> None:
    park(world, scene, 1, 2)
    scene.admin.create_topics([TopicSpec(f"{scene.name}-foreign.dlq", 1)])
    write(world, [Outgoing(f"{scene.name}-foreign.dlq", b"k", b"v", [("kafka_dlt-exception", b"e")], 0)])
    assert orphans(scene, [scene.subscription]) == []
    (ours,) = orphans(scene, [], own=[scene.subscription.topic])
    assert (ours.subscription, ours.is_ours, ours.unresolved.total) == (scene.name, True, 2)
    assert str(ours) == f"{scene.name}.dlq holds 2 dead, and no component is called {scene.name} any more"
    assert f"heddle dlq export {scene.name} > FILE, heddle dlq import NAME FILE" in ours.hint
    (others,) = orphans(scene, [])
    assert "may well be another project's" in str(others)
    consumer = world.consumer(scene.subscription.group, scene.subscription.topic)
    eventually(lambda: consumer.consume(1, 0) == [] and bool(consumer.assignment()), "somebody works on them")
    assert orphans(scene, []) == []


def orphans(scene: Scene, subscriptions: list[Subscription], own: list[str] | None = None) -> list[Orphan]:
    with closing(scene.broker.reader()) as reader:
        found = find_orphans(scene.admin, reader, subscriptions, own or [])
    return [orphan for orphan in found if orphan.subscription.startswith(scene.name)]


def test_a_worker_at_its_cap_says_so(scene_of: MakeScene) -> None:
    scene = scene_of(on_failure=OnFailure(caps=Caps(entries=2)))
    scene.feed(("a", "bad1"), ("b", "bad2"), ("c", "bad3"))
    told = f"partition 0 of {scene.name} reads nothing new: 2 entries are unresolved, which is the cap"
    with running(scene.worker(scene.step())):
        scene.settled(2)
        eventually(
            lambda: (told, f"resolve some: heddle dlq list {scene.name} --group-by fingerprint") in problems(scene),
            "told",
        )
        assert state_of(scene).unresolved.total == 2
    ((stopped, _),) = problems(scene)
    assert "was paused when the worker stopped" in stopped


def problems(scene: Scene) -> list[tuple[str, str]]:
    return state_of(scene).problems
