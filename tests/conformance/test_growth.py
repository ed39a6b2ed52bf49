"""The input topic gets more partitions while dead letters are unresolved: nothing runs on, nothing is mis-keyed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from broker_world import KafkaWorld, World
from delivery_harness import Running, Scene, eventually
from standing import write

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Broker, Outgoing
from heddle.errors import BrokerError, UsageError
from heddle.operations.dead_letter_topics import DeadLetterTopics
from heddle.settings import Settings


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    made = Scene(_attentive(world))
    yield made
    made.close()


def _attentive(world: World) -> Broker:
    """A Kafka client looks for new partitions every five minutes only."""
    if not isinstance(world, KafkaWorld):
        return world.broker
    often = {"topic.metadata.refresh.interval.ms": "300"}
    return KafkaBroker(Settings(bootstrap_servers=world.bootstrap_servers, local=True, kafka=often))


def test_workers_stop_with_an_explanation_and_entries_stay_where_they_are(world: World, scene: Scene) -> None:
    scene.feed(("a", "bad"), ("a", "behind"), ("b", "fine"))
    worker = Running(scene.worker(scene.step()))
    scene.settled(3)
    held = scene.unresolved()
    assert [state for state, _, _ in held] == ["dead", "waiting"]

    scene.admin.grow_topic(scene.subscription.topic, 4)
    error = worker.ended()
    assert isinstance(error, BrokerError)
    assert "has grown beyond 2 partitions" in str(error)
    assert "heddle plan" in error.hint

    eventually(lambda: not scene.members(), "the group is empty")
    write(world, [Outgoing(scene.subscription.topic, b"a", b"overtaking", partition=3)])
    refused = Running(scene.worker(scene.step())).ended()
    assert isinstance(refused, UsageError)
    assert "different numbers of partitions" in str(refused)
    assert "heddle plan" in refused.hint
    assert scene.outputs() == ["FINE"]
    assert scene.unresolved() == held
    with closing(scene.broker.reader()) as reader:
        topics = DeadLetterTopics(scene.admin, reader, [scene.subscription])
        assert topics.held(scene.subscription.topic) == [f"{scene.name}.dlq holds 1 dead, 1 waiting"]


def test_once_nothing_is_unresolved_its_topics_follow_and_the_worker_reads_on(world: World, scene: Scene) -> None:
    scene.feed(("a", "one"))
    worker = Running(scene.worker(scene.step()))
    scene.settled(1)
    scene.admin.grow_topic(scene.subscription.topic, 3)
    assert isinstance(worker.ended(), BrokerError)
    own = (scene.subscription.dead_letter_topic, scene.subscription.command_topic, scene.subscription.audit_topic)
    for name in (*own, *scene.subscription.writes):
        scene.admin.grow_topic(name, 3)
    scene.partitions = 3
    topic = scene.subscription.topic
    write(world, [Outgoing(topic, key, value, partition=2) for key, value in ((b"b", b"bad"), (b"c", b"3"))])
    again = Running(scene.worker(scene.step()))
    scene.settled(3)
    assert sorted(scene.outputs()) == ["3", "ONE"]
    assert [state for state, _, _ in scene.unresolved()] == ["dead"]
    again.stop.set()
    assert again.ended() is None
