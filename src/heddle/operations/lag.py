"""How far each subscription is, and how its records settled: both committed together, so the counts are exact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heddle.broker.log import NEVER_COMMITTED, Admin
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.subscription import Subscription


@dataclass(frozen=True, slots=True)
class SubscriptionLag:
    """`lag` is in offsets, transaction markers included, so an idle subscription may keep a small one.

    `missing`: its topic does not exist."""

    subscription: str
    topic: str
    partitions: int
    lag: int
    members: int
    counts: Counts
    missing: bool = False


def subscription_lag(admin: Admin, subscriptions: Iterable[Subscription]) -> list[SubscriptionLag]:
    """Asks the broker; a handful of round trips a subscription."""
    subscriptions = list(subscriptions)
    topics = admin.topics({subscription.topic for subscription in subscriptions})
    return [
        _lag(admin, subscription, topics[subscription.topic].partitions)
        if subscription.topic in topics
        else SubscriptionLag(subscription.name, subscription.topic, 0, 0, 0, Counts(), missing=True)
        for subscription in subscriptions
    ]


def _lag(admin: Admin, subscription: Subscription, partitions: int) -> SubscriptionLag:
    numbers = range(partitions)
    ends = admin.end_offsets(subscription.topic, numbers)
    positions = admin.group_positions(subscription.group, subscription.topic, numbers)
    counts, lag = Counts(), 0
    for partition in numbers:
        position = positions.get(partition)
        if position is None or position.offset == NEVER_COMMITTED:
            lag += ends[partition]
        else:
            lag += max(ends[partition] - position.offset, 0)
            counts += PartitionMetadata.unpack(position.metadata).counts
    return SubscriptionLag(
        subscription.name, subscription.topic, partitions, lag, admin.group_members(subscription.group), counts
    )
