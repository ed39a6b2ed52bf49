"""Transactions: all or nothing, one owner per transactional id, offsets inside them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from broker_world import TIMEOUT_S, KafkaWorld, World, take, values_of

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import NEVER_COMMITTED, Outgoing, OutgoingBatch, Position, Producer
from heddle.errors import BrokerDownError, BrokerError, FencedError, StaleGenerationError, TransactionExpiredError
from heddle.settings import Settings

Until = Callable[..., None]


def commit(producer: Producer, *records: Outgoing | OutgoingBatch) -> None:
    producer.begin()
    producer.produce(records)
    producer.commit(TIMEOUT_S)


def test_a_committed_record_is_read_back_as_written(world: World) -> None:
    topic = world.topic()
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("empty", b"")]
    producer = world.producer()
    commit(producer, Outgoing(topic, b"k", b"v", headers), Outgoing(topic, None, None), Outgoing(topic, b"", b""))
    first, second, third = world.read(topic)
    assert (first.topic, first.partition, first.offset) == (topic, 0, 0)
    assert (first.key, first.value, first.headers) == (b"k", b"v", headers)
    assert first.timestamp_ms > 1_700_000_000_000
    assert (second.key, second.value, second.headers) == (None, None, [])
    assert (third.key, third.value) == (b"", b"")


def test_an_aborted_transaction_is_never_seen_and_leaves_a_gap(world: World, until: Until) -> None:
    """I6. Offsets go to aborted records and to markers: nobody may count on contiguous ones."""
    topic = world.topic()
    producer = world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, b"k", b"taken back")])
    until(lambda: world.written(topic) == 1)
    producer.abort(TIMEOUT_S)
    commit(producer, Outgoing(topic, b"k", b"kept"))
    (kept,) = world.read(topic)
    assert (kept.value, kept.offset) == (b"kept", 2)
    assert world.admin.end_offsets({topic: [0]}) == {topic: {0: 4}}


def test_an_open_transaction_holds_back_what_follows_it(world: World, until: Until) -> None:
    topic, reader, opened = world.topic(), world.reader(), world.producer()
    world.write(topic, b"before")
    opened.begin()
    opened.produce([Outgoing(topic, b"k", b"open", partition=0)])
    until(lambda: world.written(topic) == 3)
    world.write(topic, b"after", wait=False)
    assert reader.last_stable_offset(topic, 0, TIMEOUT_S) == 2
    assert world.admin.end_offsets({topic: [0]}) == {topic: {0: 2}}
    assert world.owner(topic).watermarks(0, TIMEOUT_S) == (0, 2)
    assert values_of(reader.read_range(topic, 0, TIMEOUT_S)) == [b"before"]
    with pytest.raises(BrokerDownError):
        reader.read_range(topic, 0, 0.2, settled=True)
    owner = world.owner(topic, offsets={0: 0})
    assert values_of(take(owner, 1)) == [b"before"]
    assert owner.consume(10, 0.02) == []
    opened.commit(TIMEOUT_S)
    assert values_of(take(owner, 2)) == [b"open", b"after"]


def test_a_successor_fences_the_owner_of_its_transactional_id(world: World) -> None:
    topic, transactional_id = world.topic(), world.name("tx")
    zombie = world.producer(transactional_id)
    zombie.begin()
    zombie.produce([Outgoing(topic, b"k", b"zombie")])
    successor = world.producer(transactional_id)
    with pytest.raises(FencedError):
        zombie.commit(TIMEOUT_S)
    commit(successor, Outgoing(topic, b"k", b"successor"))
    assert world.values(topic) == [b"successor"]


def test_a_fenced_owner_cannot_begin_anew(world: World) -> None:
    topic, transactional_id = world.topic(), world.name("tx")
    zombie = world.producer(transactional_id)
    world.producer(transactional_id)
    with pytest.raises(FencedError):  # at the latest when it commits
        commit(zombie, Outgoing(topic, b"k", b"zombie"))
    assert world.values(topic) == []


def test_init_decides_what_the_former_owner_left_open(world: World) -> None:
    topic, transactional_id = world.topic(), world.name("tx")
    crashed = world.producer(transactional_id)
    crashed.begin()
    crashed.produce([Outgoing(topic, b"k", b"open")])
    crashed.send_offsets(topic, {0: Position(1)}, world.owner(topic).group_metadata())
    world.producer(transactional_id)
    world.write(topic, b"next")
    assert world.values(topic) == [b"next"]


def test_positions_and_metadata_commit_with_the_records(world: World) -> None:
    topic, group = world.topic(2), world.name("g")
    owner, producer = world.owner(topic, group), world.producer()
    assert owner.committed([0, 1], TIMEOUT_S) == {0: Position(NEVER_COMMITTED), 1: Position(NEVER_COMMITTED)}
    metadata = "é" * 2047 + "x"
    assert len(metadata.encode()) == 4095
    producer.begin()
    producer.produce([Outgoing(topic, b"k", b"v")])
    producer.send_offsets(topic, {0: Position(7, metadata)}, owner.group_metadata())
    producer.commit(TIMEOUT_S)
    expected = {0: Position(7, metadata), 1: Position(NEVER_COMMITTED)}
    assert owner.committed([0, 1], TIMEOUT_S) == expected
    assert world.admin.group_positions(group, topic, [0, 1]) == expected


def test_too_much_metadata_fails_the_transaction_only(world: World) -> None:
    topic = world.topic()
    owner, producer = world.owner(topic), world.producer()
    producer.begin()
    with pytest.raises(BrokerError) as caught:
        producer.send_offsets(topic, {0: Position(7, "x" * 5000)}, owner.group_metadata())
    assert not isinstance(caught.value, FencedError | StaleGenerationError | BrokerDownError)
    producer.abort(TIMEOUT_S)
    assert owner.committed([0], TIMEOUT_S)[0].offset == NEVER_COMMITTED
    producer.begin()
    producer.send_offsets(topic, {0: Position(7)}, owner.group_metadata())
    producer.commit(TIMEOUT_S)
    assert owner.committed([0], TIMEOUT_S)[0].offset == 7


def test_an_abort_takes_positions_back(world: World) -> None:
    topic = world.topic()
    owner, producer = world.owner(topic), world.producer()
    for offset, end in ((3, producer.commit), (9, producer.abort)):
        producer.begin()
        producer.send_offsets(topic, {0: Position(offset, str(offset))}, owner.group_metadata())
        end(TIMEOUT_S)
    assert owner.committed([0], TIMEOUT_S) == {0: Position(3, "3")}


def test_committed_waits_for_a_pending_transaction(world: World) -> None:
    """Else a new owner would start from a position that its predecessor has moved already."""
    topic = world.topic()
    owner, producer = world.owner(topic), world.producer()
    producer.begin()
    producer.send_offsets(topic, {0: Position(5)}, owner.group_metadata())
    with pytest.raises(BrokerDownError):
        owner.committed([0], 0.5)
    committing = threading.Timer(0.3, producer.commit, [TIMEOUT_S])
    committing.start()
    assert owner.committed([0], TIMEOUT_S) == {0: Position(5)}
    committing.join()


def test_a_successor_decides_pending_positions(world: World) -> None:
    topic, transactional_id = world.topic(), world.name("tx")
    owner, crashed = world.owner(topic), world.producer(transactional_id)
    crashed.begin()
    crashed.send_offsets(topic, {0: Position(5)}, owner.group_metadata())
    world.producer(transactional_id)
    assert owner.committed([0], TIMEOUT_S) == {0: Position(NEVER_COMMITTED)}


def test_membership_that_never_was_commits_nothing(world: World) -> None:
    """Kafka takes a generation below zero unchecked; we do not."""
    topic = world.topic()
    stranger = world.consumer(world.name("g"), topic)
    not_joined = stranger.group_metadata()
    producer = world.producer()
    producer.begin()
    with pytest.raises(StaleGenerationError):
        producer.send_offsets(topic, {0: Position(5)}, not_joined)
    producer.abort(TIMEOUT_S)
    assert stranger.committed([0], TIMEOUT_S)[0].offset == NEVER_COMMITTED


def test_a_record_too_large_for_its_topic_is_refused(world: World) -> None:
    small, other = world.topic(max_message_bytes="20000"), world.topic()
    transactional_id = world.name("tx")
    producer = world.producer(transactional_id)
    with pytest.raises(BrokerError, match=r"3\d{4} bytes") as caught:  # when produced, or when committed
        commit(producer, Outgoing(other, b"k", b"fits"), Outgoing(small, b"k", b"x" * 30_000))
    assert small in str(caught.value)
    producer.abort(TIMEOUT_S)
    commit(world.producer(transactional_id), Outgoing(small, b"k", b"fits"))
    assert world.values(small) == [b"fits"]
    assert world.values(other) == []


def test_a_batch_by_columns_is_as_its_records_one_by_one(world: World) -> None:
    """What has no headers is left out; an empty list is none the less a record. All keep their order."""
    topic = world.topic()
    batch = OutgoingBatch(
        topic, [b"a", b"b", b"c", None], [b"1", b"left out", None, b"4"], [[("x", b"1")], None, [], []]
    )
    commit(world.producer(), Outgoing(topic, b"k", b"0"), batch, Outgoing(topic, b"k", b"5"), batch.part(0, 2))
    read = [(record.key, record.value, record.headers) for record in world.read(topic)]
    first = (b"a", b"1", [("x", b"1")])
    assert read == [(b"k", b"0", []), first, (b"c", None, []), (None, b"4", []), (b"k", b"5", []), first]


def test_a_record_of_a_batch_that_is_too_large_is_named_as_any(world: World) -> None:
    small = world.topic(max_message_bytes="20000")
    producer = world.producer()
    with pytest.raises(BrokerError, match=rf"3\d{{4}} bytes .*{small}"):
        commit(producer, OutgoingBatch(small, [b"k", b"k"], [b"fits", b"x" * 30_000], [[], []]))
    producer.abort(TIMEOUT_S)


@pytest.mark.stack
def test_what_the_local_queue_has_no_room_for_waits_for_room(kafka_world: KafkaWorld, stack: object) -> None:
    topic, settings = kafka_world.topic(), {"queue.buffering.max.messages": "10"}
    tight = KafkaBroker(Settings(bootstrap_servers=kafka_world.bootstrap_servers, local=True, kafka=settings))
    producer, values = tight.producer(kafka_world.name("tx")), [b"%d" % number for number in range(60)]
    producer.init(TIMEOUT_S)
    commit(
        producer,
        *(Outgoing(topic, b"k", value) for value in values[:30]),
        OutgoingBatch(topic, [b"k"] * 30, values[30:], [[("x", b"1")]] * 30),
    )
    producer.close()
    assert kafka_world.values(topic) == values


def test_a_topic_may_take_larger_records_than_usual(world: World) -> None:
    large = world.topic(max_message_bytes="4000000")
    world.write(large, b"x" * 3_000_000)
    assert [len(value or b"") for value in world.values(large)] == [3_000_000]


def test_an_unknown_topic_is_refused(world: World) -> None:
    producer = world.producer()
    with pytest.raises(BrokerError):
        commit(producer, Outgoing(world.name("absent"), b"k", b"v"))
    producer.abort(TIMEOUT_S)


def test_a_transaction_past_its_time_out_is_over(world: World, until: Until) -> None:
    topic, group = world.topic(), world.name("g")
    short = world.with_short_transactions()
    producer = short.producer()
    producer.begin()
    producer.produce([Outgoing(topic, b"k", b"late")])
    producer.send_offsets(topic, {0: Position(1)}, world.owner(topic, group).group_metadata())
    short.outlive_transaction()
    until(
        lambda: world.admin.end_offsets({topic: [0]})[topic][0] == 2
    )  # the record, and the marker that ended its transaction
    with pytest.raises(TransactionExpiredError, match="time-out"):
        producer.commit(TIMEOUT_S)
    assert world.values(topic) == []
    short.close()


def test_reading_on_after_an_abort_begins_where_we_say(world: World) -> None:
    """After an abort a consumer's position is past the batch; `start` moves it back."""
    topic = world.topic()
    world.write(topic, b"1", b"2", b"3")
    owner, producer = world.owner(topic, offsets={0: 0}), world.producer()
    assert values_of(take(owner, 3)) == [b"1", b"2", b"3"]
    producer.begin()
    producer.send_offsets(topic, {0: Position(3)}, owner.group_metadata())
    producer.abort(TIMEOUT_S)
    assert owner.consume(10, 0.02) == []
    owner.start({0: 1})
    assert values_of(take(owner, 2)) == [b"2", b"3"]
