"""A broker that is killed again and again in the middle of transactions, on a busy machine: each transaction has an end
for readers, too. That is Kafka's own matter, but how the local stack starts a killed broker decides it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product

import pytest
from faults_app import READY_TIMEOUT_S

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Outgoing, TopicSpec
from heddle.errors import HeddleError
from heddle.local import Stack
from heddle.settings import Settings

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
ROUNDS, WRITERS, PARTITIONS = 12, 16, 6
TOPICS = [f"kills.{number}" for number in range(5)]
EVERYWHERE = list(product(TOPICS, range(PARTITIONS)))
# More partitions, so that a starting broker is busy with them for a while.
BYSTANDERS = [f"kills.bystander{number}" for number in range(80)]
SETTLES_WITHIN_S = 20.0

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(1800)]


@pytest.mark.skipif(not FULL, reason="takes long; `make faults` runs it")
def test_no_transaction_is_without_an_end_after_a_broker_was_killed(own_stack: Stack) -> None:
    settings = Settings(bootstrap_servers=own_stack.bootstrap_servers, registry_url=own_stack.registry_url, local=True)
    broker = KafkaBroker(settings)
    admin, reader = broker.admin(), broker.reader()
    admin.create_topics([TopicSpec(name, PARTITIONS) for name in TOPICS + BYSTANDERS])
    try:
        with busy(os.cpu_count() or 1), ThreadPoolExecutor(WRITERS) as threads:
            for _ in range(ROUNDS):
                work = Work(broker)
                writing = [threads.submit(work.write, number) for number in range(WRITERS)]
                assert work.is_in_full_swing.wait(READY_TIMEOUT_S)
                own_stack.kafka.kill()
                work.stop.set()
                own_stack.kafka.start()
                for writer in writing:
                    writer.result()
                for number in range(WRITERS):
                    successor = broker.producer(f"writer.{number}")
                    successor.init(READY_TIMEOUT_S)
                    successor.close()
                for topic, partition in EVERYWHERE:
                    reader.tails(topic, [partition], SETTLES_WITHIN_S)
    finally:
        reader.close()
        admin.close()


class Work:
    """Transactions, one after the other, of many producers."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._committed = 0
        self.stop = threading.Event()
        self.is_in_full_swing = threading.Event()

    def write(self, number: int) -> None:
        """Until it is stopped, or the broker is gone."""
        producer = self._broker.producer(f"writer.{number}")
        with suppress(HeddleError):
            producer.init(READY_TIMEOUT_S)
            while not self.stop.is_set():
                producer.begin()
                producer.produce([Outgoing(topic, b"key", b"v" * 300, (), p) for topic, p in EVERYWHERE])
                producer.commit(READY_TIMEOUT_S)
                self._committed += 1
                if self._committed > 5 * WRITERS:
                    self.is_in_full_swing.set()
        producer.close()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """As many processes as that do nothing, without a pause."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
