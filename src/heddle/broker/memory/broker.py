"""The broker object: makes clients of one shared in-memory cluster, and plays the accidents that tests need."""

from __future__ import annotations

import time
from collections.abc import Callable

from heddle.broker.log import Admin, Broker, Consumer, OnRelease, Producer, Reader
from heddle.broker.memory.admin import MemoryAdmin
from heddle.broker.memory.cluster import Cluster
from heddle.broker.memory.consumer import MemoryConsumer
from heddle.broker.memory.producer import MemoryProducer
from heddle.broker.memory.reader import MemoryReader


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class MemoryBroker(Broker):
    """A log in memory with Kafka's transactional rules: what delivery does on it, it does on Kafka.

    Clients may live in different threads. There are no heartbeats: a member that has not polled for
    `max_poll_interval_s` of `clock` is expelled, as `expire` does at once. A transaction open for longer than
    `transaction_timeout_s` is aborted and its owner fenced. `clock` gives seconds and never goes back; `now_ms` is the
    broker's wall clock, in milliseconds since 1970: every record carries the time at which it was appended.
    `polls_wait` False: a poll that finds nothing returns at once, for whoever drives all clients on one thread."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = _wall_clock_ms,
        max_poll_interval_s: float = 300.0,
        transaction_timeout_s: float = 15.0,
        polls_wait: bool = True,
    ) -> None:
        self._cluster = Cluster(clock, now_ms, max_poll_interval_s, transaction_timeout_s, polls_wait)

    def consumer(self, group: str, topic: str, on_release: OnRelease | None = None) -> Consumer:
        return MemoryConsumer(self._cluster, group, topic, on_release)

    def reader(self) -> Reader:
        return MemoryReader(self._cluster)

    def producer(self, transactional_id: str) -> Producer:
        return MemoryProducer(self._cluster, transactional_id)

    def admin(self) -> Admin:
        return MemoryAdmin(self._cluster)

    def expire(self, consumer: Consumer) -> None:
        """Expel a member as if its session had timed out: at its next poll its partitions are lost."""
        assert isinstance(consumer, MemoryConsumer)
        with self._cluster.changed:
            consumer.expel()

    def compact(self, topic: str) -> None:
        """Run the log cleaner over a topic."""
        with self._cluster.changed:
            for log in self._cluster.topic(topic).partitions:
                log.compact()

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete records below `offset`, as retention does."""
        with self._cluster.changed:
            self._cluster.partition(topic, partition).delete_before(offset)
