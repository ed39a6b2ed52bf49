"""One partitioner everywhere: a key lands in the same partition whoever writes it."""

from __future__ import annotations

import asyncio

import pytest
from broker_world import TIMEOUT_S, KafkaWorld, World

from heddle.broker.async_edge import AsyncProducer
from heddle.broker.log import Outgoing
from heddle.broker.murmur2 import murmur2, partition_of

PARTITIONS = 12
KEYS = [b"", b"a", b"ab", b"abc", b"abcd", b"tenant/entity", "tenant/żółć".encode(), bytes(range(256))]
KEYS += [f"default/{number}".encode() for number in range(40)]


# Kafka's own test of Utils.murmur2 (clients, UtilsTest), signed there.
@pytest.mark.parametrize(
    ("data", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed & 0xFFFFFFFF


def test_keys_land_where_the_hash_says(world: World) -> None:
    topic = world.topic(PARTITIONS)
    producer = world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, key, None) for key in KEYS])
    producer.commit(TIMEOUT_S)
    landed = {record.key: partition for partition in range(PARTITIONS) for record in world.read(topic, partition)}
    assert landed == {key: partition_of(key, PARTITIONS) for key in KEYS}


@pytest.mark.stack
def test_the_event_loop_producer_agrees(kafka_world: KafkaWorld, stack: object) -> None:
    topic = kafka_world.topic(PARTITIONS)

    async def send() -> dict[bytes, int]:
        producer = AsyncProducer({"bootstrap.servers": kafka_world.bootstrap_servers})
        await producer.start()
        try:
            landed = await asyncio.gather(*(producer.send(Outgoing(topic, key, b"v")) for key in KEYS))
        finally:
            await producer.stop()
        return {key: partition for key, (partition, _) in zip(KEYS, landed, strict=True)}

    assert asyncio.run(send()) == {key: partition_of(key, PARTITIONS) for key in KEYS}
