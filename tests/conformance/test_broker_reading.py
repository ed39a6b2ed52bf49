"""Reading by hand, ranges and their ends, lost offsets, compaction."""

from __future__ import annotations

import pytest
from broker_world import TIMEOUT_S, World, take, values_of

from heddle.broker.log import BEGINNING, END, Outgoing, Record
from heddle.errors import OffsetLostError


def test_a_range_ends_at_a_transaction_marker(world: World) -> None:
    """The end offset lies behind a marker that no reader is ever given: waiting for a record there would hang."""
    topic = world.topic()
    world.write(topic, b"1", b"2")
    reader = world.reader()
    assert reader.last_stable_offset(topic, 0, TIMEOUT_S) == 3
    assert values_of(reader.read_range(topic, 0, TIMEOUT_S)) == [b"1", b"2"]


def test_a_range_ends_at_aborted_records(world: World) -> None:
    topic = world.topic()
    world.write(topic, b"1")
    world.abort(topic, *[b"aborted"] * 20)
    assert world.values(topic) == [b"1"]


def test_a_range_of_aborted_records_only_is_empty(world: World) -> None:
    topic = world.topic()
    assert world.values(topic) == []
    world.abort(topic, b"aborted")
    assert world.values(topic) == []


def test_a_range_may_begin_anywhere(world: World) -> None:
    topic = world.topic()
    world.write(topic, b"0", b"1", b"2")
    reader = world.reader()
    assert values_of(reader.read_range(topic, 0, TIMEOUT_S, 1)) == [b"1", b"2"]
    assert reader.read_range(topic, 0, TIMEOUT_S, 4) == []
    world.delete_before(topic, 0, 2)
    assert values_of(reader.read_range(topic, 0, TIMEOUT_S)) == [b"2"]
    with pytest.raises(OffsetLostError):
        reader.read_range(topic, 0, TIMEOUT_S, 1)


def test_a_reader_replaces_its_assignment(world: World) -> None:
    first, second = world.topic(2), world.topic()
    world.write(first, b"1", b"2", partition=0)
    world.write(first, b"3", partition=1)
    world.write(second, b"old")
    reader = world.reader()
    reader.assign(first, {0: 1, 1: BEGINNING})
    assert sorted(record.value or b"" for record in take(reader, 2)) == [b"2", b"3"]
    assert reader.consume(10, 0.02) == []
    reader.assign(second, {0: END})
    world.write(second, b"new")
    assert values_of(take(reader, 1)) == [b"new"]
    assert reader.read_range(first, 1, TIMEOUT_S)[0].value == b"3"
    world.write(second, b"newer")
    assert reader.consume(10, 0.02, first_wait_s=0.3) == [], "a range leaves nothing assigned"


def test_a_body_is_read_by_its_offset(world: World) -> None:
    topic = world.topic()
    world.write(topic, *[str(i).encode() for i in range(100)])
    reader = world.reader()
    reader.assign(topic, {0: 42})
    (record,) = take(reader, 1)
    assert (record.offset, record.value) == (42, b"42")


def test_an_offset_out_of_range_is_lost(world: World) -> None:
    topic = world.topic()
    world.write(topic, b"0", b"1", b"2")
    world.delete_before(topic, 0, 2)
    owner = world.owner(topic)
    assert owner.watermarks(0, TIMEOUT_S) == (2, 4)
    owner.start({0: 0})
    with pytest.raises(OffsetLostError):
        take(owner, 1)
    reader = world.reader()
    reader.assign(topic, {0: 1000})
    with pytest.raises(OffsetLostError):
        take(reader, 1)


def test_an_error_drops_no_records_of_the_same_batch(world: World) -> None:
    topic = world.topic(2)
    for partition in (0, 1):
        world.write(topic, b"0", b"1", partition=partition)
    world.delete_before(topic, 1, 2)
    owner = world.owner(topic)
    owner.start({0: 0})
    assert values_of(take(owner, 1)) == [b"0"]
    owner.start({0: 0, 1: 0})
    got: list[Record] = []

    def read_for_ever() -> None:
        while True:
            got.extend(owner.consume(10, 0.02))

    with pytest.raises(OffsetLostError):
        read_for_ever()
    owner.pause([1])
    got += take(owner, 2 - len(got))
    assert values_of(got) == [b"0", b"1"]


def test_compaction_keeps_the_newest_of_each_key(world: World) -> None:
    topic = world.topic(cleanup_policy="compact")
    producer = world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, b"a", str(i).encode()) for i in range(10)])
    producer.produce([Outgoing(topic, b"b", b"first"), Outgoing(topic, b"b", None), Outgoing(topic, b"c", b"only")])
    producer.commit(TIMEOUT_S)
    newest = [(b"a", b"9", 9), (b"b", None, 11), (b"c", b"only", 12)]

    def kept() -> list[tuple[bytes | None, bytes | None, int]]:
        return [(r.key, r.value, r.offset) for r in world.read(topic) if r.key != b"roll"]

    world.compact(topic, lambda: kept() == newest)
    reader = world.reader()
    reader.assign(topic, {0: 3})  # a position whose record is gone goes on with the next one
    assert take(reader, 1)[0].offset == 9
