"""The in-memory broker serves several workers in threads: nothing lost, nothing twice, one owner at a time."""

from __future__ import annotations

import threading

import pytest
from broker_world import TIMEOUT_S

from heddle.broker.log import NEVER_COMMITTED, Consumer, Outgoing, Position, Producer, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.errors import StaleGenerationError

RECORDS, PARTITIONS, WORKERS = 600, 4, 3


def copy(broker: MemoryBroker, number: int, stop: threading.Event) -> None:
    """A bare worker: handshake, consume, copy and commit; the second batch of each leaves and joins the group anew."""
    producer = broker.producer(f"copy.{number}")
    producer.init(TIMEOUT_S)
    for lifetime in range(3):
        consumer = broker.consumer("copy", "in")
        batches = 0
        while not stop.is_set() and (batches < 3 or lifetime == 2):
            records = consumer.consume(20, 0.001)
            group = consumer.group_metadata()
            assigned = consumer.take_rebalance().assigned
            if assigned:
                positions = consumer.committed(assigned, TIMEOUT_S)
                consumer.start({p: 0 if at.offset == NEVER_COMMITTED else at.offset for p, at in positions.items()})
                records = [record for record in records if record.partition not in assigned]
            if records:
                batches += 1
                settle(consumer, producer, records, group)
        consumer.close()


def settle(consumer: Consumer, producer: Producer, records: list[Record], group: object) -> None:
    first = {record.partition: record.offset for record in reversed(records)}
    last = {record.partition: Position(record.offset + 1) for record in records}
    producer.begin()
    try:
        producer.produce([Outgoing("out", record.key, record.value) for record in records])
        producer.send_offsets("in", last, group)  # type: ignore[arg-type]
        producer.commit(TIMEOUT_S)
    except StaleGenerationError:
        producer.abort(TIMEOUT_S)
        consumer.start({p: offset for p, offset in first.items() if p in consumer.assignment()})


@pytest.mark.timeout(60)
def test_workers_in_threads_copy_each_record_once() -> None:
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec("in", PARTITIONS), TopicSpec("out", PARTITIONS)])
    source = broker.producer("source")
    source.init(TIMEOUT_S)
    for start in range(0, RECORDS, 10):
        source.begin()
        source.produce([Outgoing("in", str(n).encode(), str(n).encode()) for n in range(start, start + 10)])
        source.commit(TIMEOUT_S)
    stop = threading.Event()
    workers = [threading.Thread(target=copy, args=(broker, number, stop)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    reader = broker.reader()
    reader.assign("out", dict.fromkeys(range(PARTITIONS), 0))
    copied: list[int] = []
    while len(copied) < RECORDS:
        copied += [int(record.value or b"") for record in reader.consume(100, 0.01)]
    copied += [int(record.value or b"") for record in reader.consume(100, 0.1)]
    stop.set()
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert sorted(copied) == list(range(RECORDS))
