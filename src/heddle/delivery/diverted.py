"""Keys of a pulled source whose records go by the raw topic for now, because an earlier one is not settled there.

What the source diverts is converted, parked, repaired and replayed by the subscription over the raw topic, as it is for
webhooks. Until nothing of a key is unsettled there, its later records take the same way, so that none overtakes."""

from __future__ import annotations

from collections.abc import Iterator

from heddle.broker.log import Broker
from heddle.broker.newest import settled_newest
from heddle.delivery.clock import Clock
from heddle.delivery.envelope import entry_of
from heddle.delivery.subscription import Subscription

TIMEOUT_S = 30.0
LOOK_AGAIN_S = 2.0


class Diverted:
    """Of one source; the leader alone writes to the raw topic, so a key that is free stays free until he diverts it."""

    def __init__(self, subscription: Subscription, broker: Broker, clock: Clock) -> None:
        self._subscription = subscription
        self._reader = broker.reader()
        self._admin = broker.admin()
        self._clock = clock
        self._keys: set[bytes] = set()
        self._looked_s = 0.0

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes) -> None:
        self._keys.add(key)

    def restore(self) -> None:
        """All keys that are diverted now: read from what is there, at once after taking over."""
        self._keys = set(self._unsettled())
        self._looked_s = self._clock.monotonic()

    def release(self) -> None:
        """Frees keys of which nothing is unsettled any more; looks now and then, while there are any."""
        if self._keys and self._clock.monotonic() - self._looked_s >= LOOK_AGAIN_S:
            self.restore()

    def close(self) -> None:
        self._reader.close()
        self._admin.close()

    def _unsettled(self) -> Iterator[bytes]:
        """Raw records that are not settled first, entries after: what settles in between has its entry in the same
        transaction as its offset, and so is seen here or there."""
        topic = self._subscription.topic
        partitions = self._admin.topics([topic])[topic].partitions
        for partition in range(partitions):
            settled = self._admin.group_positions(self._subscription.group, topic, [partition])[partition].offset
            for record in self._reader.scan(topic, partition, TIMEOUT_S, max(settled, 0), settled=True):
                yield record.key or b""
        for partition in range(partitions):
            for stored in settled_newest(self._reader, self._subscription.dead_letter_topic, partition):
                entry = entry_of(stored)
                if not entry.state.is_marker:
                    yield entry.key or b""
