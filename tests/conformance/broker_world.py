"""A broker under test: short-hands to prepare it, and the accidents that tests need."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Protocol, TypeVar

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from heddle.broker.kafka import KafkaBroker
from heddle.broker.kafka.consumer import KafkaGroupMetadata
from heddle.broker.log import Admin, Broker, Consumer, OnRelease, Outgoing, Producer, Reader, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.settings import Settings

TIMEOUT_S = 30.0


class _Closable(Protocol):
    def close(self) -> None: ...


Client = TypeVar("Client", bound=_Closable)


class World(ABC):
    """Clients made here are closed after the test."""

    broker: Broker

    def __init__(self) -> None:
        self._clients: list[_Closable] = []
        self._admin: Admin | None = None

    def name(self, prefix: str = "t") -> str:
        return f"{prefix}-{uuid.uuid4().hex[:12]}"

    @property
    def admin(self) -> Admin:
        if self._admin is None:
            self._admin = self.broker.admin()
        return self._admin

    def topic(self, partitions: int = 1, **config: str) -> str:
        """A new topic; `max_message_bytes="1"` sets max.message.bytes."""
        name = self.name()
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([TopicSpec(name, partitions, config=settings)])
        return name

    @cached_property
    def _shared_reader(self) -> Reader:
        return self.broker.reader()

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Initialised."""
        producer = self._keep(self.broker.producer(transactional_id or self.name("tx")))
        producer.init(TIMEOUT_S)
        return producer

    def reader(self) -> Reader:
        return self._keep(self.broker.reader())

    def consumer(self, group: str, topic: str, on_release: OnRelease | None = None) -> Consumer:
        return self._keep(self.broker.consumer(group, topic, on_release))

    def owner(self, topic: str, group: str | None = None, offsets: Mapping[int, int] | None = None) -> Consumer:
        """A consumer that has its assignment; started at `offsets` where given."""
        consumer = self.consumer(group or self.name("g"), topic)
        consume_until(consumer, lambda: bool(consumer.assignment()))
        if offsets is not None:
            consumer.start(offsets)
        return consumer

    def write(
        self, topic: str, *values: bytes | None, partition: int = 0, key: bytes | None = b"k", wait: bool = True
    ) -> None:
        """One committed transaction, visible when this returns, unless an open one is not to be waited for."""
        producer = self.producer()
        producer.begin()
        producer.produce([Outgoing(topic, key, value, partition=partition) for value in values])
        producer.commit(TIMEOUT_S)
        if wait:
            self.read(topic, partition)

    def abort(self, topic: str, *values: bytes, partition: int = 0) -> None:
        """One aborted transaction, whose records take up offsets: they were in the log before it was aborted."""
        producer, end = self.producer(), self.written(topic, partition) + len(values)
        producer.begin()
        producer.produce([Outgoing(topic, b"k", value, partition=partition) for value in values])
        deadline = time.monotonic() + TIMEOUT_S
        while self.written(topic, partition) < end:
            assert time.monotonic() < deadline, "the records were not written"
            time.sleep(0.01)
        producer.abort(TIMEOUT_S)

    def read(self, topic: str, partition: int = 0) -> list[Record]:
        """All that a read-committed reader sees of what is there now."""
        return self._shared_reader.read_range(topic, partition, TIMEOUT_S, settled=True)

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.read(topic, partition)]

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def close(self) -> None:
        self.close_clients()
        self._shared_reader.close()

    def _keep(self, client: Client) -> Client:
        self._clients.append(client)
        return client

    @abstractmethod
    def written(self, topic: str, partition: int = 0) -> int:
        """The end of a partition, open transactions included."""

    @abstractmethod
    def expire(self, consumer: Consumer) -> None:
        """Expel a member from its group without its knowledge, as when its session has timed out."""

    @abstractmethod
    def compact(self, topic: str, is_done: Callable[[], bool]) -> None: ...

    @abstractmethod
    def delete_before(self, topic: str, partition: int, offset: int) -> None: ...

    @abstractmethod
    def with_short_transactions(self) -> World:
        """The same log, for producers whose transactions time out soon."""

    @abstractmethod
    def outlive_transaction(self) -> None:
        """Let a transaction of `with_short_transactions` time out."""

    @abstractmethod
    def let_time_pass(self) -> None:
        """So that what is written from now on carries a later time than what was written."""


class MemoryWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.now_ms = time.time_ns() // 1_000_000  # workers compare it with their own clock
        self.broker: MemoryBroker = MemoryBroker(clock=lambda: self.now_s, now_ms=lambda: self.now_ms)

    def written(self, topic: str, partition: int = 0) -> int:
        return self.broker._cluster.partition(topic, partition).end

    def expire(self, consumer: Consumer) -> None:
        self.broker.expire(consumer)

    def compact(self, topic: str, is_done: Callable[[], bool]) -> None:
        self.broker.compact(topic)
        assert is_done()

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.broker.delete_before(topic, partition, offset)

    def with_short_transactions(self) -> World:
        return self

    def outlive_transaction(self) -> None:
        self.now_s += 60

    def let_time_pass(self) -> None:
        self.now_ms += 60_000


class KafkaWorld(World):
    def __init__(self, bootstrap_servers: str, transaction_timeout_s: float = 15.0) -> None:
        super().__init__()
        self.bootstrap_servers = bootstrap_servers
        settings = Settings(
            bootstrap_servers=bootstrap_servers, local=True, transaction_timeout_s=transaction_timeout_s
        )
        self.broker = KafkaBroker(settings)
        self._client = AdminClient({"bootstrap.servers": bootstrap_servers})

    def written(self, topic: str, partition: int = 0) -> int:
        (future,) = self._client.list_offsets({TopicPartition(topic, partition): OffsetSpec.latest()}).values()
        return int(future.result(TIMEOUT_S).offset)

    def expire(self, consumer: Consumer) -> None:
        metadata = consumer.group_metadata()
        assert isinstance(metadata, KafkaGroupMetadata)
        group, member = metadata.serialised[11:].split(b"\0")[:2]
        leave_group(self.bootstrap_servers, group, member)

    def compact(self, topic: str, is_done: Callable[[], bool]) -> None:
        """The cleaner leaves the active segment alone: roll it by time, and let the cleaner run often."""
        for broker in self._client.list_topics(topic).brokers:
            self._set_config(ResourceType.BROKER, str(broker), {"log.cleaner.backoff.ms": "200"})
        settings = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "min.compaction.lag.ms": "0"}
        self._set_config(ResourceType.TOPIC, topic, settings)
        deadline = time.monotonic() + TIMEOUT_S
        while not is_done():
            assert time.monotonic() < deadline, "the log cleaner did not run"
            time.sleep(0.2)
            self.write(topic, b"roll", key=b"roll")

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        for future in self._client.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(TIMEOUT_S)

    def with_short_transactions(self) -> World:
        return KafkaWorld(self.bootstrap_servers, transaction_timeout_s=1.0)

    def outlive_transaction(self) -> None:
        """The broker looks for them every ten seconds: the test waits for what it sees."""

    def let_time_pass(self) -> None:
        """The broker's clock goes on by itself; it is this machine's."""
        start_ms = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 <= start_ms:
            time.sleep(0.001)

    def _set_config(self, kind: ResourceType, name: str, config: Mapping[str, str]) -> None:
        entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in config.items()]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        for future in self._client.incremental_alter_configs([resource]).values():
            future.result(TIMEOUT_S)


def leave_group(bootstrap_servers: str, group: bytes, member: bytes) -> None:
    """Kafka's LeaveGroup request, version 1, in the name of a member that knows nothing of it."""

    def text(value: bytes) -> bytes:
        return struct.pack(">h", len(value)) + value

    api_key, version, correlation = 13, 1, 7
    request = struct.pack(">hhi", api_key, version, correlation) + text(b"test") + text(group) + text(member)
    host, port = bootstrap_servers.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 14:
            answer += connection.recv(64)
    code = struct.unpack(">h", answer[12:14])[0]  # after size, correlation and throttle time
    assert code == 0, f"LeaveGroup failed with {code}"


def consume_until(
    consumer: Consumer | Reader, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S
) -> list[Record]:
    """Consume until the condition holds; returns what came."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        records += consumer.consume(100, 0.02)
    return records


def take(consumer: Consumer | Reader, count: int) -> list[Record]:
    """Exactly `count` records."""
    records: list[Record] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += consumer.consume(count - len(records), 0.02)
    return records


def values_of(records: Iterable[Record]) -> list[bytes | None]:
    return [record.value for record in records]
