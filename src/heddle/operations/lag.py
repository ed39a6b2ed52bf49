"""How far each subscription is, and how its records settled: both committed together, so the counts are exact."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from heddle.broker.log import BEGINNING, NEVER_COMMITTED, Admin, Broker, Reader
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.errors import OffsetLostError

EXACT_UP_TO = 100
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class SubscriptionLag:
    """`lag` is in records; beyond `EXACT_UP_TO` offsets a partition it counts offsets, which transaction markers
    and aborted records inflate. `missing`: the topic does not exist."""

    subscription: str
    topic: str
    partitions: int
    lag: int
    members: int
    counts: Counts
    missing: bool = False


def subscription_lag(broker: Broker, subscriptions: Iterable[Subscription]) -> list[SubscriptionLag]:
    """Asks the broker, all subscriptions side by side: reading a short stretch is mostly waiting."""
    subscriptions = list(subscriptions)
    with ThreadPoolExecutor(max_workers=len(subscriptions) or 1) as pool:
        return list(pool.map(lambda subscription: _one(broker, subscription), subscriptions))


def _one(broker: Broker, subscription: Subscription) -> SubscriptionLag:
    admin, reader = broker.admin(), broker.reader()
    try:
        topic = admin.topics([subscription.topic]).get(subscription.topic)
        if topic is None:
            return SubscriptionLag(subscription.name, subscription.topic, 0, 0, 0, Counts(), missing=True)
        return _lag(admin, reader, subscription, topic.partitions)
    finally:
        reader.close()
        admin.close()


def _lag(admin: Admin, reader: Reader, subscription: Subscription, partitions: int) -> SubscriptionLag:
    numbers = range(partitions)
    ends = admin.end_offsets(subscription.topic, numbers)
    positions = admin.group_positions(subscription.group, subscription.topic, numbers)
    counts, lag = Counts(), 0
    for partition in numbers:
        position = positions.get(partition)
        start = BEGINNING
        if position is not None and position.offset != NEVER_COMMITTED:
            start = position.offset
            counts += PartitionMetadata.unpack(position.metadata).counts
        lag += _records_between(reader, subscription.topic, partition, start, ends[partition])
    return SubscriptionLag(
        subscription.name, subscription.topic, partitions, lag, admin.group_members(subscription.group), counts
    )


def _records_between(reader: Reader, topic: str, partition: int, start: int, end: int) -> int:
    """A short stretch is read, because its offsets may be markers and no records. Lost offsets count as they are."""
    distance = end - max(start, 0)
    if distance <= 0 or distance > EXACT_UP_TO:
        return max(distance, 0)
    try:
        return len(reader.read_range(topic, partition, TIMEOUT_S, start))
    except OffsetLostError:
        return distance
