"""The audit trail as a topic: what its last records are, and that every chain in it can be read back."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from broker_world import TIMEOUT_S, KafkaWorld, World
from confluent_kafka import Producer as Client

from heddle.audit import AuditTrail, Line, external_reset, first_break, heads, read
from heddle.broker.log import Outgoing, TopicSpec
from heddle.delivery.subscription import Subscription
from heddle.errors import FormatError
from heddle.operations.declared import own_topics
from heddle.settings import Settings


def new_trail(world: World) -> tuple[AuditTrail, str]:
    """Its topic is as `heddle apply` makes it."""
    subscription = Subscription(world.name("audit"), "billing.invoice.v1")
    source = TopicSpec(subscription.topic, 3, 1, {"max.message.bytes": "1000"})
    specs = own_topics(subscription, source, Settings(local=True))
    world.admin.create_topics(spec for spec in specs if spec.name == subscription.audit_topic)
    trail = AuditTrail(subscription.name, subscription.topic, subscription.audit_topic, "worker:0", b"k" * 32)
    return trail, subscription.audit_topic


def batch(trail: AuditTrail, head: str, lines: int = 1, partition: int = 0) -> tuple[list[Outgoing], str]:
    told = [Line(number, "parked", identity="i" * 60, hash="f" * 32) for number in range(lines)]
    return trail.batch(
        partition, head, first=0, next_offset=lines, counts={"parked": lines}, entry_counts={}, payloads="", lines=told
    )


def write(world: World, records: Iterable[Outgoing], *, commits: bool = True) -> None:
    producer = world.producer()
    producer.begin()
    producer.produce(records)
    if commits:
        producer.commit(TIMEOUT_S)
    else:
        producer.abort(TIMEOUT_S)


def test_a_chain_has_its_last_committed_record_as_head(world: World) -> None:
    trail, topic = new_trail(world)
    assert heads(world.reader(), topic, range(3), TIMEOUT_S) == {0: None, 1: None, 2: None}
    head = ""
    for _ in range(3):
        made, head = batch(trail, head)
        write(world, made)
    write(world, batch(trail, head)[0], commits=False)
    elsewhere, other_head = batch(trail, "", partition=2)
    write(world, elsewhere)
    found = heads(world.reader(), topic, range(3), TIMEOUT_S)
    assert {partition: record and record.hash for partition, record in found.items()} == {
        0: head,
        1: None,
        2: other_head,
    }


def test_a_chain_is_read_back_whole_and_from_an_offset(world: World) -> None:
    trail, topic = new_trail(world)
    made, head = batch(trail, "")
    write(world, made)
    write(world, batch(trail, head)[0], commits=False)
    paused, head = trail.event(0, head, "paused", {"why": "target down"})
    write(world, paused)
    records = list(read(world.reader(), topic, 0, TIMEOUT_S))
    assert [record.kind for record in records] == ["batch", "paused"]
    assert records[-1].hash == head
    assert first_break(records) is None
    part = list(read(world.reader(), topic, 0, TIMEOUT_S, records[1].offset))
    assert part == records[1:]
    assert first_break(part, head=records[0].hash) is None
    assert first_break(part) == records[1]


def test_a_regulated_batch_of_many_events_fits_the_topic_in_one_transaction(world: World) -> None:
    trail, topic = new_trail(world)
    made, head = batch(trail, "", lines=20_000)
    assert len(made) > 3
    write(world, made)
    records = list(read(world.reader(), topic, 0, TIMEOUT_S))
    assert sum(len(record.lines) for record in records) == 20_000
    assert first_break(records) is None
    tail = heads(world.reader(), topic, [0], TIMEOUT_S)[0]
    assert tail is not None
    assert tail.hash == head


def test_what_somebody_else_has_appended_differs_from_the_witness_and_is_chained(world: World) -> None:
    """The offset still says what its owner wrote last: that is how a stranger's record is noticed."""
    trail, topic = new_trail(world)
    made, witness = batch(trail, "")
    write(world, made)
    write(world, batch(trail, witness, lines=2)[0])  # with the right place in the chain, even
    tail = heads(world.reader(), topic, [0], TIMEOUT_S)[0]
    assert tail is not None
    assert tail.hash != witness
    told, head = external_reset(trail, 0, witness, tail, {"offset": 1})
    write(world, told)
    records = list(read(world.reader(), topic, 0, TIMEOUT_S))
    assert first_break(records) is None
    assert (records[-1].kind, records[-1].hash) == ("external-reset", head)
    assert (records[-1].body["witness"], records[-1].body["tail"]) == (witness, tail.hash)


def test_a_tail_that_is_no_audit_record_is_refused(world: World) -> None:
    _, topic = new_trail(world)
    world.write(topic, b"something else")
    with pytest.raises(FormatError, match=topic):
        heads(world.reader(), topic, [0], TIMEOUT_S)
    with pytest.raises(FormatError, match=topic):
        list(read(world.reader(), topic, 0, TIMEOUT_S))


@pytest.mark.stack
def test_times_in_it_are_the_brokers_whatever_a_client_says(kafka_world: KafkaWorld) -> None:
    """As in memory, where a client cannot say a time at all."""
    _, topic = new_trail(kafka_world)
    client = Client({"bootstrap.servers": kafka_world.bootstrap_servers, "log_level": 0})
    before_ms = time.time() * 1000
    client.produce(topic, b"v", b"k", partition=0, timestamp=1_000_000_000_000)
    assert client.flush(TIMEOUT_S) == 0
    (record,) = kafka_world.read(topic)
    assert before_ms - 1_000 < record.timestamp_ms < time.time() * 1000 + 1_000
