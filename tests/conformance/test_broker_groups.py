"""Consumer groups: what a member may read and commit before, during and after a rebalance."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from broker_world import TIMEOUT_S, World, consume_until, take, values_of

from heddle.broker.log import NEVER_COMMITTED, Consumer, GroupMetadata, Position, Producer
from heddle.errors import BrokerError, StaleGenerationError

WAIT_S = 8.0


def commit_position(producer: Producer, topic: str, position: Position, group: GroupMetadata) -> None:
    producer.begin()
    try:
        producer.send_offsets(topic, {0: position}, group)
        producer.commit(TIMEOUT_S)
    except StaleGenerationError:
        producer.abort(TIMEOUT_S)
        raise


def settle(consumers: Sequence[Consumer], partitions: int) -> None:
    """Poll in turn until every partition has an owner and nobody has more than its share. At no time two owners."""
    share = -(-partitions // len(consumers))
    for consumer in itertools.cycle(consumers):
        consumer.consume(1, 0.01)
        owned = [other.assignment() for other in consumers]
        assert sum(map(len, owned)) == len(frozenset().union(*owned)), "two owners of one partition"
        if sum(map(len, owned)) == partitions and max(map(len, owned)) <= share:
            return


def test_nothing_is_delivered_before_start(world: World) -> None:
    topic = world.topic(2)
    world.write(topic, b"1", b"2")
    owner = world.owner(topic)
    change = owner.take_rebalance()
    assert (change.assigned, change.revoked, change.lost) == ({0, 1}, frozenset(), frozenset())
    assert owner.take_rebalance().assigned == frozenset()
    assert [owner.consume(10, 0.02) for _ in range(4)] == [[]] * 4
    world.write(topic, b"3")
    assert owner.consume(10, 0.02) == []
    owner.start({0: 1})
    assert values_of(take(owner, 2)) == [b"2", b"3"]
    world.write(topic, b"other partition", partition=1)
    assert owner.consume(10, 0.02) == []
    owner.start({1: 0})
    assert values_of(take(owner, 1)) == [b"other partition"]


def test_what_came_while_a_batch_was_worked_on_waits_for_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = world.topic()
    world.write(topic, b"1", b"2", b"3")
    owner = world.owner(topic)
    owner.start({0: 0})
    first = next(found for found in (owner.consume(1, 0.0, first_wait_s=1.0) for _ in range(20)) if found)
    assert values_of(first) == [b"1"]
    clock = time.monotonic
    began = clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock() + WAIT_S)  # the work took so long
    assert values_of(owner.consume(10, WAIT_S)) == [b"2", b"3"]
    assert clock() - began < WAIT_S / 2


def test_a_foreign_partition_cannot_be_started(world: World) -> None:
    owner = world.owner(world.topic())
    with pytest.raises(BrokerError):
        owner.start({5: 0})


def test_pause_holds_until_start(world: World) -> None:
    topic = world.topic(2)
    owner = world.owner(topic, offsets={0: 0, 1: 0})
    world.write(topic, b"1", b"2")
    assert values_of(take(owner, 1)) == [b"1"]
    owner.pause([0])
    world.write(topic, b"other partition", partition=1)
    assert values_of(take(owner, 1)) == [b"other partition"]
    assert owner.consume(10, 0.02) == []
    owner.start({0: 1})
    assert values_of(take(owner, 1)) == [b"2"]
    owner.pause([0, 1])
    owner.start({0: 0})
    assert values_of(take(owner, 2)) == [b"1", b"2"]


def test_consume_is_bounded_by_records(world: World) -> None:
    topic = world.topic()
    world.write(topic, *[str(i).encode() for i in range(50)])
    owner = world.owner(topic, offsets={0: 0})
    got = []
    while len(got) < 50:
        records = owner.consume(7, 0.02)
        assert len(records) <= 7
        got += values_of(records)
    assert got == [str(i).encode() for i in range(50)]


def test_a_successor_goes_on_from_the_committed_position(world: World) -> None:
    topic, group, producer = world.topic(), world.name("g"), world.producer()
    world.write(topic, b"1", b"2", b"3")
    first = world.owner(topic, group, offsets={0: 0})
    take(first, 3)
    commit_position(producer, topic, Position(2, "half"), first.group_metadata())
    first.close()
    second = world.owner(topic, group)
    position = second.committed([0], TIMEOUT_S)[0]
    assert position == Position(2, "half")
    second.start({0: position.offset})
    assert values_of(take(second, 1)) == [b"3"]


def test_partitions_move_to_a_new_member_one_owner_at_a_time(world: World) -> None:
    topic, group, other = world.topic(4), world.name("g"), world.name("g")
    first = world.owner(topic, group, offsets=dict.fromkeys(range(4), 0))
    first.take_rebalance()
    assert world.admin.group_members([group, other]) == {group: 1, other: 0}
    second = world.consumer(group, topic)
    settle([first, second], 4)
    gave, got = first.take_rebalance(), second.take_rebalance()
    assert (len(gave.revoked), gave.lost) == (2, frozenset())
    assert got.assigned == gave.revoked == second.assignment()
    assert world.admin.group_members([group]) == {group: 2}
    for partition in range(4):
        world.write(topic, str(partition).encode(), partition=partition)
    kept = {str(partition).encode() for partition in first.assignment()}
    assert set(values_of(take(first, 2))) == kept, "what stays is read on without a new start"
    assert second.consume(10, 0.02) == []
    second.start(dict.fromkeys(got.assigned, 0))
    assert {record.partition for record in take(second, 2)} == got.assigned
    second.close()
    settle([first], 4)
    assert first.take_rebalance().assigned == got.assigned
    assert first.consume(10, 0.02) == [], "what comes back has to be started again"


def test_positions_can_be_committed_before_a_partition_goes(world: World) -> None:
    topic, group, producer = world.topic(2), world.name("g"), world.producer()
    released: list[frozenset[int]] = []

    def give_back(partitions: frozenset[int]) -> None:
        released.append(partitions)
        producer.begin()
        producer.send_offsets(topic, dict.fromkeys(partitions, Position(7, "released")), first.group_metadata())
        producer.commit(TIMEOUT_S)

    first = world.consumer(group, topic, give_back)
    consume_until(first, lambda: len(first.assignment()) == 2)
    first.take_rebalance()
    second = world.consumer(group, topic)
    settle([first, second], 2)
    assert released == [second.assignment()]
    assert list(second.committed(second.assignment(), TIMEOUT_S).values()) == [Position(7, "released")]
    first.close()
    world.expire(second)
    consume_until(second, lambda: bool(second.take_rebalance().lost))
    assert len(released) == 1, "neither leaving nor losing is giving back"


def test_two_members_join_at_once(world: World) -> None:
    topic, group = world.topic(6), world.name("g")
    first = world.owner(topic, group)
    second, third = world.consumer(group, topic), world.consumer(group, topic)
    settle([third, second, first], 6)
    assert len(first.take_rebalance().revoked) == 4
    assert len(second.take_rebalance().assigned) == len(third.take_rebalance().assigned) == 2


def test_a_pause_outlasts_a_rebalance(world: World) -> None:
    topic, group = world.topic(2), world.name("g")
    first = world.owner(topic, group, offsets={0: 0, 1: 0})
    first.pause([0, 1])
    second = world.consumer(group, topic)
    settle([first, second], 2)
    for partition in (0, 1):
        world.write(topic, b"v", partition=partition)
    assert [first.consume(10, 0.02) for _ in range(3)] == [[]] * 3
    first.start(dict.fromkeys(first.assignment(), 0))
    assert len(take(first, 1)) == 1


def test_metadata_kept_with_a_batch_is_refused_after_a_rebalance(world: World) -> None:
    """And fresh metadata is accepted, even for a partition that another member owns by now: the coordinator checks
    member and generation, not ownership. So the batch keeps the metadata under which it was consumed."""
    topic, group, producer = world.topic(2), world.name("g"), world.producer()
    world.write(topic, b"v", partition=0)
    world.write(topic, b"v", partition=1)
    first = world.owner(topic, group, offsets={0: 0, 1: 0})
    take(first, 2)
    kept = first.group_metadata()
    second = world.consumer(group, topic)
    settle([first, second], 2)
    with pytest.raises(StaleGenerationError):
        commit_position(producer, topic, Position(1, "kept"), kept)
    assert first.committed([0], TIMEOUT_S)[0].offset == NEVER_COMMITTED
    commit_position(producer, topic, Position(1, "fresh"), first.group_metadata())
    other = second if 0 in second.assignment() else first
    assert other.committed([0], TIMEOUT_S) == {0: Position(1, "fresh")}


def test_an_expelled_member_loses_its_partitions_and_its_right_to_commit(world: World) -> None:
    topic, group, producer = world.topic(), world.name("g"), world.producer()
    world.write(topic, b"v")
    owner = world.owner(topic, group, offsets={0: 0})
    take(owner, 1)
    kept = owner.group_metadata()
    owner.take_rebalance()
    world.expire(owner)
    with pytest.raises(StaleGenerationError):
        commit_position(producer, topic, Position(1, "late"), kept)
    lost: set[int] = set()
    assigned: set[int] = set()

    def has_rejoined() -> bool:
        change = owner.take_rebalance()
        lost.update(change.lost)
        assert not change.revoked
        assigned.update(change.assigned)
        return bool(lost and assigned)

    consume_until(owner, has_rejoined)
    assert lost == assigned == {0}
    assert owner.consume(10, 0.02) == [], "a partition lost and regained has to be started again"
    with pytest.raises(StaleGenerationError):
        commit_position(producer, topic, Position(1, "late"), kept)
    commit_position(producer, topic, Position(1, "new member"), owner.group_metadata())
    assert owner.committed([0], TIMEOUT_S) == {0: Position(1, "new member")}


def test_a_successor_of_an_expelled_member_is_not_overwritten(world: World) -> None:
    topic, group = world.topic(), world.name("g")
    zombie, producer = world.owner(topic, group), world.producer()
    kept = zombie.group_metadata()
    world.expire(zombie)
    successor = world.owner(topic, group)
    commit_position(world.producer(), topic, Position(5, "successor"), successor.group_metadata())
    with pytest.raises(StaleGenerationError):
        commit_position(producer, topic, Position(3, "zombie"), kept)
    assert successor.committed([0], TIMEOUT_S) == {0: Position(5, "successor")}
