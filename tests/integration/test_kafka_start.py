"""Where a group member begins to read on Kafka, however soon after its assignment it is told to."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from heddle.broker.kafka import KafkaBroker
from heddle.broker.kafka.consumer import KafkaConsumer
from heddle.broker.log import Outgoing, TopicSpec
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

RECORDS, FIRST, TRIES = 60, 10, 4
BODY = bytes(80_000)  # more than one answer of the broker holds


class Eager(KafkaConsumer):
    """Starts in the callback that assigns: no answer of a broker can have come in between."""

    def _on_assign(self, client: Any, partitions: list[Any]) -> None:
        super()._on_assign(client, partitions)
        self.start({partition.partition: FIRST for partition in partitions})


def test_a_partition_is_read_from_where_it_is_started_at_once(stack: Stack) -> None:
    """Records before its end were lost when it was first assigned at the end by name: not in every try."""
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, local=True)
    broker, topic = KafkaBroker(settings), f"t{uuid.uuid4().hex[:10]}"
    with closing(broker.admin()) as admin, closing(broker.producer(f"{topic}-feeder")) as producer:
        admin.create_topics([TopicSpec(topic, 1)])
        producer.init(30)
        producer.begin()
        producer.produce([Outgoing(topic, b"k", BODY, partition=0) for _ in range(RECORDS)])
        producer.commit(30)
    for number in range(TRIES):
        with closing(Eager(settings, f"{topic}-{number}", topic)) as consumer:
            offsets: list[int] = []
            deadline = time.monotonic() + 30
            while len(offsets) < RECORDS - FIRST:
                assert time.monotonic() < deadline, f"try {number}: {offsets} came"
                offsets += [record.offset for record in consumer.consume(RECORDS, 0.02)]
            assert offsets == list(range(FIRST, RECORDS))
