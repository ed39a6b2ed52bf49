"""How far each subscription is, and how its records settled: both committed together, so the counts are exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from heddle.broker.log import NEVER_COMMITTED, Admin, Broker, Position, Reader
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.errors import FormatError, OffsetLostError

EXACT_UP_TO = 100
TIMEOUT_S = 10.0
UNREADABLE_HINT = "a newer Heddle or another program wrote it: run that version, or `heddle rewind` the subscription"


@dataclass(frozen=True, slots=True)
class SubscriptionLag:
    """`lag` is in records; beyond `EXACT_UP_TO` offsets a partition it counts offsets, which transaction markers
    and aborted records inflate. `missing`: the topic does not exist. `unreadable`: which marker beside an offset
    cannot be read and why; then the counts are not all of them. `entry_counts`: of runs of dead-letter entries."""

    subscription: str
    topic: str
    partitions: int
    lag: int
    members: int
    counts: Counts
    missing: bool = False
    unreadable: str = ""
    entry_counts: Counts = field(default_factory=Counts)


def subscription_lag(broker: Broker, subscriptions: Iterable[Subscription]) -> list[SubscriptionLag]:
    """Asks the broker, all subscriptions side by side: reading a short stretch is mostly waiting."""
    subscriptions = list(subscriptions)
    with ThreadPoolExecutor(max_workers=len(subscriptions) or 1) as pool:
        return list(pool.map(lambda subscription: _one(broker, subscription), subscriptions))


def lag_of(admin: Admin, reader: Reader, subscription: Subscription, partitions: int) -> SubscriptionLag:
    """Of a subscription whose topic exists, with that many partitions."""
    numbers = range(partitions)
    ends = admin.end_offsets({subscription.topic: numbers})[subscription.topic]
    positions = admin.group_positions(subscription.group, subscription.topic, numbers)
    markers, unreadable = _markers(positions)
    known = max((marker.partitions for marker in markers.values()), default=0)
    lag = 0
    for partition in numbers:
        start = positions.get(partition, Position(NEVER_COMMITTED)).offset
        if start == NEVER_COMMITTED:
            is_new = bool(known) and partition >= known
            start = _first_start(reader, subscription, partition, ends[partition], is_new)
        lag += records_between(reader, subscription.topic, partition, start, ends[partition])
    return SubscriptionLag(
        subscription.name,
        subscription.topic,
        partitions,
        lag,
        admin.group_members([subscription.group])[subscription.group],
        sum((marker.counts for marker in markers.values()), Counts()),
        unreadable=unreadable,
        entry_counts=sum((marker.entry_counts for marker in markers.values()), Counts()),
    )


def records_between(reader: Reader, topic: str, partition: int, start: int, end: int) -> int:
    """A short stretch is read, because its offsets may be markers and no records. Lost offsets count as they are."""
    distance = max(end - start, 0)
    if not 0 < distance <= EXACT_UP_TO:
        return distance
    try:
        return sum(record.offset < end for record in reader.read_range(topic, partition, TIMEOUT_S, start))
    except OffsetLostError:
        return distance


def _one(broker: Broker, subscription: Subscription) -> SubscriptionLag:
    admin, reader = broker.admin(), broker.reader()
    try:
        topic = admin.topics([subscription.topic]).get(subscription.topic)
        if topic is None:
            return SubscriptionLag(subscription.name, subscription.topic, 0, 0, 0, Counts(), missing=True)
        return lag_of(admin, reader, subscription, topic.partitions)
    finally:
        reader.close()
        admin.close()


def _markers(positions: Mapping[int, Position]) -> tuple[dict[int, PartitionMetadata], str]:
    """Those that can be read, and what is wrong with the others."""
    found, problems = {}, []
    for partition, position in sorted(positions.items()):
        if position.offset == NEVER_COMMITTED:
            continue
        try:
            found[partition] = PartitionMetadata.unpack(position.metadata)
        except FormatError as error:
            problems.append(f"partition {partition}: {error}")
    return found, "; ".join(problems)


def _first_start(reader: Reader, subscription: Subscription, partition: int, end: int, is_new: bool) -> int:
    """Where a worker will begin a partition that was never committed (`Assignment` has the same rule)."""
    if subscription.start == "latest" and not is_new:
        return end
    return reader.offset_at(subscription.topic, partition, 0, TIMEOUT_S)
