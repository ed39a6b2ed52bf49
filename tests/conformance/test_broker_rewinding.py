"""Moving the positions of a stopped group: as its only member, with the proof that it is, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from broker_world import TIMEOUT_S, World, consume_until, take, values_of

from heddle.broker.log import Consumer, GroupMetadata, Outgoing, Position, Producer
from heddle.errors import StaleGenerationError

PARTITIONS = 4


def move(producer: Producer, topic: str, positions: Mapping[int, Position], group: GroupMetadata, audit: str) -> None:
    producer.begin()
    try:
        producer.produce([Outgoing(audit, b"k", b"rewound", partition=0)])
        producer.send_offsets(topic, positions, group)
        producer.commit(TIMEOUT_S)
    except StaleGenerationError:
        producer.abort(TIMEOUT_S)
        raise


def all_positions(offset: int, note: str) -> dict[int, Position]:
    return dict.fromkeys(range(PARTITIONS), Position(offset, note))


def only_member(world: World, topic: str, group: str) -> Consumer:
    consumer = world.consumer(group, topic)
    consume_until(consumer, lambda: len(consumer.assignment()) == PARTITIONS)
    return consumer


def test_a_stopped_groups_positions_go_back_and_forth(world: World) -> None:
    topic, audit, group = world.topic(PARTITIONS), world.topic(), world.name("g")
    for partition in range(PARTITIONS):
        world.write(topic, b"0", b"1", b"2", partition=partition)
    worker, producer = only_member(world, topic, group), world.producer()
    move(producer, topic, all_positions(3, "worked"), worker.group_metadata(), audit)
    worker.close()
    assert world.admin.group_members([group]) == {group: 0}
    rewinder = only_member(world, topic, group)
    assert world.admin.group_members([group]) == {group: 1}
    assert rewinder.committed(range(PARTITIONS), TIMEOUT_S) == all_positions(3, "worked")
    for offset, note in ((0, "back"), (2, "forth"), (1, "back")):
        move(producer, topic, all_positions(offset, note), rewinder.group_metadata(), audit)
        assert rewinder.committed(range(PARTITIONS), TIMEOUT_S) == all_positions(offset, note)
    rewinder.close()
    assert values_of(world.read(audit)) == [b"rewound"] * 4
    successor = only_member(world, topic, group)
    starts = successor.committed(range(PARTITIONS), TIMEOUT_S)
    successor.start({partition: position.offset for partition, position in starts.items()})
    assert sorted(values_of(take(successor, 2 * PARTITIONS))) == [b"1"] * PARTITIONS + [b"2"] * PARTITIONS  # type: ignore[type-var]


def test_who_joins_meanwhile_stops_the_rewind(world: World) -> None:
    """The positions and what is told of them go together: neither is there."""
    topic, audit, group = world.topic(PARTITIONS), world.topic(), world.name("g")
    rewinder, producer = only_member(world, topic, group), world.producer()
    move(producer, topic, all_positions(3, "before"), rewinder.group_metadata(), audit)
    alone = rewinder.group_metadata()
    worker = world.consumer(group, topic)
    while not worker.assignment():
        rewinder.consume(1, 0.01, first_wait_s=0.01)
        worker.consume(1, 0.01, first_wait_s=0.01)
    with pytest.raises(StaleGenerationError):
        move(producer, topic, all_positions(0, "back"), alone, audit)
    assert worker.committed(range(PARTITIONS), TIMEOUT_S) == all_positions(3, "before")
    assert values_of(world.read(audit)) == [b"rewound"]


def test_who_has_begun_to_join_stops_the_rewind_or_waits_for_it(world: World) -> None:
    """While the rebalance is not complete the coordinator may still take the old generation's positions. Then the one
    who joins reads them afterwards, since its handshake comes after the rebalance."""
    topic, audit, group = world.topic(PARTITIONS), world.topic(), world.name("g")
    rewinder, producer = only_member(world, topic, group), world.producer()
    alone = rewinder.group_metadata()
    worker = world.consumer(group, topic)
    worker.consume(1, 0.01, first_wait_s=0.5)
    try:
        move(producer, topic, all_positions(1, "back"), alone, audit)
        expected = all_positions(1, "back")
    except StaleGenerationError:
        expected = all_positions(-1, "")
    while not worker.assignment():
        rewinder.consume(1, 0.01, first_wait_s=0.01)
        worker.consume(1, 0.01, first_wait_s=0.01)
    assert worker.committed(range(PARTITIONS), TIMEOUT_S) == expected
