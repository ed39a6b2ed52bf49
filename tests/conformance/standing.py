"""A subscription whose group stands somewhere, without a worker having run."""

from __future__ import annotations

from broker_world import TIMEOUT_S, World, consume_until
from delivery_harness import Scene, eventually

from heddle.broker.log import Outgoing, Position, Record
from heddle.delivery.envelope import Envelope, State
from heddle.errors import Failure, FailureClass

BAD = Failure(0, FailureClass.CONTRACT, "decode", "", "no")


def write(world: World, records: list[Outgoing]) -> None:
    """One transaction, visible when this returns."""
    producer = world.producer()
    producer.begin()
    producer.produce(records)
    producer.commit(TIMEOUT_S)
    reader = world.reader()
    for topic in {record.topic for record in records}:
        reader.tails(topic, {record.partition for record in records if record.topic == topic}, TIMEOUT_S)


def park(world: World, scene: Scene, *offsets: int, state: State = State.DEAD, partition: int = 0) -> list[Outgoing]:
    """Entries of input offsets, written as a worker would."""
    topic = scene.admin.topics([scene.subscription.topic])[scene.subscription.topic]
    envelope = Envelope(scene.name, scene.subscription.dead_letter_topic, topic.topic_id, "0" * 64)
    records = [Record(topic.name, partition, offset, b"k%d" % offset, b"body", [], 1) for offset in offsets]
    entries = [envelope.failed(record, BAD, state) for record in records]
    write(world, entries)
    return entries


def commit(world: World, scene: Scene, positions: dict[int, Position]) -> None:
    """Committed by a member of the group that leaves again."""
    consumer = world.broker.consumer(scene.subscription.group, scene.subscription.topic)
    consume_until(consumer, lambda: len(consumer.assignment()) == scene.partitions)
    producer = world.producer()
    producer.begin()
    producer.send_offsets(scene.subscription.topic, positions, consumer.group_metadata())
    producer.commit(TIMEOUT_S)
    consumer.close()
    eventually(lambda: positions.items() <= scene.positions().items(), "committed")
    eventually(lambda: not scene.members(), "the group is empty")
