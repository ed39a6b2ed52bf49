"""Finding single records again: where they were placed, by their offsets, at the end of partitions, by time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pytest
from broker_world import TIMEOUT_S, KafkaWorld, MemoryWorld, World, take, values_of
from confluent_kafka import Producer as Client

from heddle.broker.kafka.by_hand import Messages
from heddle.broker.kafka.reader import KafkaReader
from heddle.broker.log import UNPLACED, Outgoing, Record
from heddle.errors import BrokerDownError, BrokerError

Until = Callable[..., None]
LONG_AGO_MS = 1_000_000_000_000


def numbered(topic: str, numbers: range, key: bytes = b"k") -> list[Outgoing]:
    return [Outgoing(topic, key, str(number).encode(), partition=0) for number in numbers]


def values_at(found: dict[int, Record]) -> dict[int, bytes | None]:
    assert all(offset == record.offset for offset, record in found.items())
    return {offset: record.value for offset, record in found.items()}


def last_values(found: dict[int, Record | None]) -> dict[int, bytes | None]:
    return {partition: record and record.value for partition, record in found.items()}


def test_placed_records_are_found_where_commit_says(world: World) -> None:
    topic, other, producer = world.topic(2), world.topic(), world.producer()
    for _ in range(2):  # the second transaction begins behind the marker of the first
        producer.begin()
        producer.produce(numbered(other, range(3)))
        first = producer.produce_placed([Outgoing(topic, b"k", b"a", partition=1), Outgoing(topic, b"k", b"b", (), 0)])
        producer.produce([Outgoing(topic, b"k", b"between", partition=1)])
        second = producer.produce_placed(iter([Outgoing(topic, b"k", b"c", [("h", b"1")], 1)]))
        nothing = producer.produce_placed([])
        assert (len(first), len(second), nothing) == (2, 1, [])
        producer.commit(TIMEOUT_S)
        assert values_at(world.reader().fetch(topic, 1, [first[0], second[0]], TIMEOUT_S)) == {
            first[0]: b"a",
            second[0]: b"c",
        }
        assert values_at(world.reader().fetch(topic, 0, [first[1]], TIMEOUT_S)) == {first[1]: b"b"}
    assert second[0] == 6


def test_an_aborted_record_has_no_place(world: World) -> None:
    topic, producer = world.topic(), world.producer()
    producer.begin()
    aborted = producer.produce_placed([Outgoing(topic, b"k", b"aborted")])
    producer.abort(TIMEOUT_S)
    producer.begin()
    placed = producer.produce_placed([Outgoing(topic, b"k", b"kept")])
    producer.commit(TIMEOUT_S)
    assert [record.offset for record in world.read(topic)] == placed
    assert aborted == [UNPLACED] or aborted[0] < placed[0]


def test_many_records_are_placed(world: World) -> None:
    topic, producer = world.topic(), world.producer()
    producer.begin()
    placed = producer.produce_placed(numbered(topic, range(5_000)))
    producer.commit(TIMEOUT_S)
    assert placed == list(range(5_000))


def test_records_are_fetched_by_offset(world: World) -> None:
    """Close together, far apart, single: and no aborted record, no marker."""
    topic = world.topic()
    world.write(topic, *[str(n).encode() for n in range(3_000)])
    world.abort(topic, *[b"aborted"] * 10)  # 3001 to 3010, after the marker at 3000
    world.write(topic, *[b"x" * 1_000 + str(n).encode() for n in range(3012, 6_000)])
    reader = world.reader()
    spread = [*range(0, 2_000, 4), 2_999]
    assert values_at(reader.fetch(topic, 0, spread, TIMEOUT_S)) == {n: str(n).encode() for n in spread}
    assert values_at(reader.fetch(topic, 0, [2_999, 3_000, 3_005, 3_011], TIMEOUT_S)) == {2_999: b"2999"}
    far = [3, 3_012, 4_500, 5_999]
    assert [(r.value or b"")[-4:] for r in reader.fetch(topic, 0, far, TIMEOUT_S).values()] == [
        b"3",
        b"3012",
        b"4500",
        b"5999",
    ]
    for offset in (5_999, 0, 4_000, 1):
        assert list(reader.fetch(topic, 0, [offset], TIMEOUT_S)) == [offset]
    assert reader.fetch(topic, 0, [6_000], TIMEOUT_S) == {}, "the last marker"
    assert reader.fetch(topic, 0, [], TIMEOUT_S) == {}


def test_large_records_are_fetched_one_by_one(world: World) -> None:
    topic = world.topic()
    for _ in range(10):
        world.write(topic, *[b"x" * 200_000] * 4)
    reader = world.reader()
    offsets = [0, 6, 31, 48]
    assert list(reader.fetch(topic, 0, offsets, TIMEOUT_S)) == offsets
    if isinstance(reader, KafkaReader):
        size = messages_taken(reader, lambda: reader.fetch(topic, 0, offsets, TIMEOUT_S))
        assert size <= 16, f"{size} of 40 records were taken from the log to find 4"


def messages_taken(reader: KafkaReader, call: Callable[[], object]) -> int:
    client, taken = reader._finder._client, 0
    take = client.take

    def counting(max_messages: int, wait_s: float) -> Messages:
        nonlocal taken
        messages = take(max_messages, wait_s)
        taken += len(messages)
        return messages

    client.take = counting  # type: ignore[method-assign]
    call()
    return taken


@pytest.mark.stack
def test_a_topic_never_read_before_is_read_at_once(kafka_world: KafkaWorld) -> None:
    """librdkafka would learn of its leaders from a timer that fires once a second."""
    topics, reader, waits = [kafka_world.topic() for _ in range(5)], kafka_world.reader(), []
    for topic in topics:
        kafka_world.write(topic, b"v")
    for topic in topics:
        start_s = time.monotonic()
        assert list(reader.fetch(topic, 0, [0], TIMEOUT_S)) == [0]
        waits.append(time.monotonic() - start_s)
    assert statistics.median(waits) < 0.5


def test_fetching_leaves_the_assignment_alone(world: World) -> None:
    topic, other = world.topic(), world.topic()
    world.write(topic, b"0", b"1", b"2")
    world.write(other, b"other")
    reader = world.reader()
    reader.assign(topic, {0: 0})
    assert values_of(take(reader, 1)) == [b"0"]
    assert values_at(reader.fetch(other, 0, [0], TIMEOUT_S)) == {0: b"other"}
    assert last_values(reader.tails(other, [0], TIMEOUT_S)) == {0: b"other"}
    assert values_of(take(reader, 2)) == [b"1", b"2"]


def test_a_fetch_waits_for_what_is_not_decided(world: World, until: Until) -> None:
    topic, reader, producer = world.topic(), world.reader(), world.producer()
    world.write(topic, b"before")
    producer.begin()
    producer.produce([Outgoing(topic, b"k", b"open")])
    until(lambda: world.written(topic) == 3)
    assert values_at(reader.fetch(topic, 0, [0], TIMEOUT_S)) == {0: b"before"}
    with pytest.raises(BrokerDownError):
        reader.fetch(topic, 0, [0, 2], 0.2)
    with pytest.raises(BrokerDownError):
        reader.tails(topic, [0], 0.2)
    committing = threading.Timer(0.2, producer.commit, [TIMEOUT_S])
    committing.start()
    assert values_at(reader.fetch(topic, 0, [2], TIMEOUT_S)) == {2: b"open"}
    committing.join()
    with pytest.raises(BrokerDownError):
        reader.fetch(topic, 0, [1_000], 0.2)
    with pytest.raises(BrokerError):
        reader.fetch(world.name("absent"), 0, [0], 1.0)


def test_what_retention_took_is_missing_from_a_fetch(world: World) -> None:
    topic = world.topic()
    world.write(topic, *[str(n).encode() for n in range(10)])
    world.delete_before(topic, 0, 5)
    reader = world.reader()
    assert values_at(reader.fetch(topic, 0, [1, 2, 6], TIMEOUT_S)) == {6: b"6"}
    assert reader.fetch(topic, 0, [1, 2], TIMEOUT_S) == {}
    world.delete_before(topic, 0, 11)
    assert reader.fetch(topic, 0, [1, 2, 6], TIMEOUT_S) == {}
    assert reader.tails(topic, [0], TIMEOUT_S) == {0: None}


@pytest.mark.stack
def test_retention_may_take_records_while_they_are_looked_for(kafka_world: KafkaWorld) -> None:
    topic, reader = kafka_world.topic(), kafka_world.reader()
    kafka_world.write(topic, *[str(n).encode() for n in range(10)])
    assert isinstance(reader, KafkaReader)
    ask, take_next = reader._client.bounds, [11, 5, 5, 5, 3, 0]  # the last first

    def bounds(topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
        answer = ask(topic, partition, timeout_s)
        if answer[0] < 11:
            kafka_world.delete_before(topic, partition, take_next.pop())
        return answer

    reader._client.bounds = bounds  # type: ignore[method-assign]
    assert values_at(reader.fetch(topic, 0, [1, 4, 6], TIMEOUT_S)) == {6: b"6"}
    assert reader.tails(topic, [0], TIMEOUT_S) == {0: None}


def test_what_compaction_took_is_missing_from_a_fetch(world: World) -> None:
    topic, producer = world.topic(cleanup_policy="compact"), world.producer()
    producer.begin()
    producer.produce(numbered(topic, range(50), b"a"))
    producer.produce([Outgoing(topic, b"b", b"only")])
    producer.produce(numbered(topic, range(50), b"c"))
    producer.commit(TIMEOUT_S)

    def kept() -> list[int]:
        return [record.offset for record in world.read(topic) if record.key != b"roll"]

    world.compact(topic, lambda: kept() == [49, 50, 100])
    reader = world.reader()
    assert list(reader.fetch(topic, 0, [0, 49, 60], TIMEOUT_S)) == [49]
    assert list(reader.fetch(topic, 0, range(101), TIMEOUT_S)) == [49, 50, 100]
    assert reader.fetch(topic, 0, [70], TIMEOUT_S) == {}


def test_the_last_record_of_each_partition(world: World) -> None:
    """Behind a marker, behind few and many aborted records, in a partition of aborted ones only, in an empty one."""
    topic, reader = world.topic(6), world.reader()
    for partition in range(4):
        world.write(topic, b"first", b"last", partition=partition)
    world.abort(topic, b"aborted", partition=1)
    world.abort(topic, *[b"aborted"] * 700, partition=2)
    world.write(topic, b"other", partition=3)
    world.abort(topic, *[b"aborted"] * 100, partition=4)
    assert last_values(reader.tails(topic, range(6), TIMEOUT_S)) == {
        0: b"last",
        1: b"last",
        2: b"last",
        3: b"other",
        4: None,
        5: None,
    }
    assert reader.tails(topic, [], TIMEOUT_S) == {}
    world.write(topic, b"new", partition=5, wait=False)
    assert last_values(reader.tails(topic, [5, 0], TIMEOUT_S)) == {5: b"new", 0: b"last"}


def test_the_last_record_may_lie_behind_what_compaction_took(world: World) -> None:
    topic, producer = world.topic(cleanup_policy="compact"), world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, b"b", b"kept")])
    producer.produce(numbered(topic, range(300), b"a"))
    producer.commit(TIMEOUT_S)
    world.compact(topic, lambda: len([r for r in world.read(topic) if r.key != b"roll"]) == 2)
    world.abort(topic, *[b"aborted"] * 20)
    expected = world.read(topic)[-1]
    assert world.reader().tails(topic, [0], TIMEOUT_S) == {0: expected}


def test_an_offset_is_found_by_time(world: World) -> None:
    topic, reader = world.topic(message_timestamp_type="LogAppendTime"), world.reader()
    assert reader.offset_at(topic, 0, 0, TIMEOUT_S) == 0
    world.write(topic, b"0", b"1")
    world.let_time_pass()
    world.write(topic, b"2")
    first, *_, last = world.read(topic)
    assert first.timestamp_ms < last.timestamp_ms
    for timestamp_ms in (-1, 0, first.timestamp_ms):
        assert reader.offset_at(topic, 0, timestamp_ms, TIMEOUT_S) == 0
    found = reader.offset_at(topic, 0, last.timestamp_ms, TIMEOUT_S)
    assert values_of(reader.read_range(topic, 0, TIMEOUT_S, found)) == [b"2"]
    end = reader.last_stable_offset(topic, 0, TIMEOUT_S)
    assert reader.offset_at(topic, 0, last.timestamp_ms + 3_600_000, TIMEOUT_S) == end


@pytest.mark.stack
def test_where_a_topic_says_so_the_brokers_clock_counts_not_the_clients(kafka_world: KafkaWorld) -> None:
    """So that one clock decides when a retry is due and when a command has run out."""
    topics = [kafka_world.topic(message_timestamp_type="LogAppendTime"), kafka_world.topic()]
    client = Client({"bootstrap.servers": kafka_world.bootstrap_servers})
    before_ms = time.time_ns() // 1_000_000
    for topic in topics:
        client.produce(topic, b"v", b"k", timestamp=LONG_AGO_MS)
    client.flush(TIMEOUT_S)
    (appended,), (created,) = (kafka_world.read(topic) for topic in topics)
    assert before_ms <= appended.timestamp_ms <= time.time_ns() // 1_000_000
    assert created.timestamp_ms == LONG_AGO_MS
    reader = kafka_world.reader()
    assert reader.fetch(topics[0], 0, [0], TIMEOUT_S) == {0: appended}
    assert reader.tails(topics[0], [0], TIMEOUT_S) == {0: appended}


def test_in_memory_the_time_is_the_one_that_was_given() -> None:
    world = MemoryWorld()
    topic = world.topic()
    world.write(topic, b"v")
    assert world.read(topic)[0].timestamp_ms == world.now_ms


def test_topics_are_listed_without_the_internal_ones(world: World) -> None:
    first, second = world.topic(), world.topic()
    world.owner(first, world.name("g"))  # so that Kafka has a topic for group positions
    names = world.admin.topic_names()
    assert {first, second} <= set(names)
    assert names == sorted(names)
    assert not [name for name in names if name.startswith("__")]
