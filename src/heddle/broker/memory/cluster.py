"""The state that all clients of one in-memory broker share, under one lock."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from heddle.broker.log import ANY_PARTITION, Outgoing, Position, Record, TopicSpec, TopicState
from heddle.broker.memory.groups import Group, MemoryGroupMetadata
from heddle.broker.memory.partitions import Decision, PartitionLog, Topic, Transaction
from heddle.broker.murmur2 import partition_of
from heddle.errors import BrokerDownError, BrokerError, FencedError, TransactionExpiredError

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
MAX_METADATA_BYTES = 4095
_RECORD_OVERHEAD_BYTES = 70


@dataclass(slots=True)
class Owner:
    """The present owner of a transactional id."""

    epoch: int = -1
    transaction: Transaction | None = None
    has_expired: bool = False


class Cluster:
    """Topics, groups and transactional ids. Every method is called with `changed` held; it is notified on change."""

    def __init__(
        self,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        max_poll_interval_s: float,
        transaction_timeout_s: float,
        polls_wait: bool,
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.clock = clock
        self.polls_wait = polls_wait
        self._now_ms = now_ms
        self.topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._owners: dict[str, Owner] = {}
        self._max_poll_interval_s = max_poll_interval_s
        self._transaction_timeout_s = transaction_timeout_s

    # Topics

    def create(self, spec: TopicSpec) -> None:
        if spec.name in self.topics:
            raise BrokerError(f"topic {spec.name} exists already")
        self.topics[spec.name] = Topic(spec, uuid.uuid4().hex)
        self.changed.notify_all()

    def grow(self, name: str, partitions: int) -> None:
        logs = self.topic(name).partitions
        if partitions <= len(logs):
            raise BrokerError(f"topic {name} has {len(logs)} partitions already")
        logs += [PartitionLog(name, number) for number in range(len(logs), partitions)]
        for group in self._groups.values():
            group.rebalance()
        self.changed.notify_all()

    def topic(self, name: str) -> Topic:
        try:
            return self.topics[name]
        except KeyError:
            raise BrokerError(f"no topic {name}", hint="run `heddle apply`") from None

    def state(self, name: str) -> TopicState:
        topic = self.topic(name)
        return TopicState(name, topic.topic_id, len(topic.partitions), topic.replication, dict(topic.config))

    def partition(self, topic: str, partition: int) -> PartitionLog:
        """The log as it is now: transactions past their time-out have ended."""
        self.expire_transactions()
        partitions = self.topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise BrokerError(f"topic {topic} has no partition {partition}")
        return partitions[partition]

    # Groups

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(name, self._max_poll_interval_s)
        return self._groups[name]

    def committed(self, group: str, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, Position]:
        """Stable positions: waits for pending transactions to end."""
        found, wanted = self.group(group), list(partitions)
        self.wait(lambda: not any(found.is_pending(topic, p) for p in wanted), timeout_s)
        return {partition: found.position(topic, partition) for partition in wanted}

    # Transactions

    def init(self, transactional_id: str) -> int:
        """Fence the former owner, abort what it left open. Returns the new epoch."""
        owner = self._owners.setdefault(transactional_id, Owner())
        if owner.transaction is not None:
            self._end(owner, Decision.ABORTED)
        owner.epoch += 1
        owner.has_expired = False
        return owner.epoch

    def append(self, transactional_id: str, epoch: int, records: Iterable[Outgoing]) -> list[int]:
        """Returns their offsets."""
        transaction = self._transaction(transactional_id, epoch)
        timestamp_ms, offsets = self._now_ms(), []
        for record in records:
            topic = self.topic(record.topic)
            _check(record, topic)
            partition = record.partition
            if partition == ANY_PARTITION:
                partition = partition_of(record.key, len(topic.partitions))
            log = self.partition(record.topic, partition)
            headers = list(record.headers)
            stored = Record(record.topic, partition, 0, record.key, record.value, headers, timestamp_ms)
            offsets.append(log.append(stored, transaction))
        return offsets

    def hold(
        self,
        transactional_id: str,
        epoch: int,
        topic: str,
        positions: Mapping[int, Position],
        metadata: MemoryGroupMetadata,
    ) -> None:
        """Add group positions to the transaction."""
        transaction = self._transaction(transactional_id, epoch)
        group = self.group(metadata.group)
        group.check(metadata)
        for partition, position in positions.items():
            if len(position.metadata.encode()) > MAX_METADATA_BYTES:
                raise BrokerError(f"position metadata of {topic}/{partition} is larger than {MAX_METADATA_BYTES} bytes")
        for partition, position in positions.items():
            if (group.name, topic, partition) not in transaction.offsets:
                group.hold(topic, partition, transaction)
            transaction.offsets[group.name, topic, partition] = position

    def end(self, transactional_id: str, epoch: int, decision: Decision) -> None:
        """Commit or abort. A transaction in which nothing was written has nothing to decide."""
        owner = self._check_epoch(transactional_id, epoch)
        if owner.transaction is not None:
            self._end(owner, decision)

    def expire_transactions(self) -> None:
        """What the transaction coordinator does in the background."""
        oldest_s = self.clock() - self._transaction_timeout_s
        for owner in self._owners.values():
            if owner.transaction is not None and owner.transaction.began_s < oldest_s:
                self._end(owner, Decision.ABORTED)
                owner.epoch += 1
                owner.has_expired = True

    def _transaction(self, transactional_id: str, epoch: int) -> Transaction:
        owner = self._check_epoch(transactional_id, epoch)
        if owner.transaction is None:
            owner.transaction = Transaction(self.clock())
        return owner.transaction

    def _check_epoch(self, transactional_id: str, epoch: int) -> Owner:
        self.expire_transactions()
        owner = self._owners[transactional_id]
        if owner.epoch != epoch and owner.has_expired:
            raise TransactionExpiredError(
                f"the transaction of {transactional_id} outlived its time-out", hint="start the worker anew"
            )
        if owner.epoch != epoch:
            raise FencedError(
                f"transactional id {transactional_id} has a newer owner",
                hint="another process runs under this instance name; this one must stop",
            )
        return owner

    def _end(self, owner: Owner, decision: Decision) -> None:
        transaction, owner.transaction = owner.transaction, None
        assert transaction is not None
        transaction.decision = decision
        for log in transaction.partitions:
            log.mark(transaction)
        for (group, topic, partition), position in transaction.offsets.items():
            settled = position if decision is Decision.COMMITTED else None
            self.group(group).settle(topic, partition, transaction, settled)
        self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """For transactions to end."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrokerDownError(
                    f"a pending transaction did not end within {timeout_s:g} s",
                    hint="its owner, or a successor with the same instance name, has to decide it",
                )
            self.changed.wait(min(left, 0.05))
            self.expire_transactions()


def _check(record: Outgoing, topic: Topic) -> None:
    size = len(record.key or b"") + len(record.value or b"") + _RECORD_OVERHEAD_BYTES
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    if size > int(topic.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES)):
        raise BrokerError(f"a record of {size} bytes is too large for topic {record.topic}")
    if topic.is_compacted and record.key is None:
        raise BrokerError(f"topic {record.topic} is compacted and takes no record without a key")
