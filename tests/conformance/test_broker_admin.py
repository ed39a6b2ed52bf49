"""Topics: made, changed, found, made again."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from broker_world import World

from heddle.broker.log import NEVER_COMMITTED, Position, TopicSpec
from heddle.errors import BrokerError


def test_topics_are_described_as_declared(world: World) -> None:
    name = world.name()
    world.admin.create_topics([TopicSpec(name, 3, config={"retention.ms": "60000", "cleanup.policy": "compact"})])
    states = world.admin.topics([name, world.name("absent")])
    assert set(states) == {name}
    state = states[name]
    assert (state.name, state.partitions, state.replication) == (name, 3, 1)
    assert state.config == {"retention.ms": "60000", "cleanup.policy": "compact"}
    assert state.topic_id
    world.admin.alter_topic(name, {"retention.ms": "70000"})
    assert world.admin.topics([name])[name].config == {"retention.ms": "70000", "cleanup.policy": "compact"}
    assert world.admin.end_offsets({name: range(3)}) == {name: {0: 0, 1: 0, 2: 0}}
    assert world.admin.broker_count() == 1


def test_a_topic_grows_and_never_shrinks(world: World) -> None:
    topic = world.topic(2)
    topic_id = world.admin.topics([topic])[topic].topic_id
    world.admin.grow_topic(topic, 4)
    state = world.admin.topics([topic])[topic]
    assert (state.partitions, state.topic_id) == (4, topic_id)
    world.write(topic, b"new", partition=3)
    assert world.values(topic, 3) == [b"new"]
    for partitions in (4, 1):
        with pytest.raises(BrokerError):
            world.admin.grow_topic(topic, partitions)


def test_nothing_asked_nothing_answered(world: World) -> None:
    assert world.admin.topics([]) == {}
    world.admin.create_topics([])
    world.admin.delete_topics([])
    assert world.admin.end_offsets({}) == {}
    topic = world.topic()
    assert world.admin.end_offsets({topic: []}) == {topic: {}}
    assert world.admin.group_members([]) == {}


def test_a_topic_exists_once(world: World) -> None:
    topic = world.topic()
    with pytest.raises(BrokerError):
        world.admin.create_topics([TopicSpec(topic, 1)])


def test_a_topic_that_is_made_again_has_another_id(world: World, until: Callable[..., None]) -> None:
    topic = world.topic()
    world.write(topic, b"old")
    before = world.admin.topics([topic])[topic].topic_id
    world.admin.delete_topics([topic])
    until(lambda: topic not in world.admin.topics([topic]))
    world.admin.create_topics([TopicSpec(topic, 1)])
    assert world.admin.topics([topic])[topic].topic_id != before
    assert world.admin.end_offsets({topic: [0]}) == {topic: {0: 0}}


def test_topic_ids_can_stand_in_names_of_entries(world: World) -> None:
    """Of twelve ids in the client's own form, one in five thousand dozens has neither of its two other characters."""
    specs = [TopicSpec(world.name(), 1) for _ in range(12)]
    world.admin.create_topics(specs)
    for state in world.admin.topics([spec.name for spec in specs]).values():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", state.topic_id)


def test_an_unknown_topic_has_no_end(world: World) -> None:
    with pytest.raises(BrokerError):
        world.admin.end_offsets({world.topic(): [0], world.name("absent"): [0]})
    with pytest.raises(BrokerError):
        world.admin.alter_topic(world.name("absent"), {"retention.ms": "1"})
    with pytest.raises(BrokerError):
        world.admin.delete_topics([world.name("absent")])


def test_an_unknown_group_has_no_members_and_no_positions(world: World) -> None:
    topic, group = world.topic(), world.name("g")
    assert world.admin.group_members([group]) == {group: 0}
    assert world.admin.group_positions(group, topic, [0]) == {0: Position(NEVER_COMMITTED)}


def test_many_topics_and_groups_are_asked_about_at_once(world: World) -> None:
    empty, written = world.topic(2), world.topic(2)
    world.write(written, b"one", partition=1)
    group, absent = world.name("g"), world.name("g")
    world.owner(written, group)
    ends = world.admin.end_offsets({empty: range(2), written: range(2)})
    assert ends[empty] == {0: 0, 1: 0}
    assert (ends[written][0], ends[written][1] > 0) == (0, True)
    assert world.admin.group_members([group, absent, group]) == {group: 1, absent: 0}
