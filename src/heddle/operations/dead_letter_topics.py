"""What a plan has to know of dead letters: what depends on a topic's partitions, and what nobody answers for."""

from __future__ import annotations

from collections.abc import Iterable

from heddle.broker.log import Admin, Reader
from heddle.delivery.subscription import Subscription
from heddle.operations.orphans import Orphan, find_orphans
from heddle.operations.unresolved import THOROUGH, count_unresolved


class DeadLetterTopics:
    """Of all subscriptions of a project. Asks the broker only when it is asked."""

    def __init__(self, admin: Admin, reader: Reader, subscriptions: Iterable[Subscription]) -> None:
        self._admin = admin
        self._reader = reader
        self._subscriptions = tuple(subscriptions)

    def input_of(self, topic: str) -> str:
        """The topic that has to have as many partitions as this one of a subscription's own; "" for all others."""
        for subscription in self._subscriptions:
            if topic in _own_topics(subscription):
                return subscription.topic
        return ""

    def held(self, topic: str) -> list[str]:
        """Unresolved entries whose partition numbers are those of `topic`: `ledger.dlq holds 12 dead`."""
        concerned = [s for s in self._subscriptions if topic in (s.topic, *_own_topics(s))]
        found = self._admin.topics(subscription.dead_letter_topic for subscription in concerned)
        partitions = {name: state.partitions for name, state in sorted(found.items())}
        counted = count_unresolved(self._admin, self._reader, partitions, THOROUGH)
        return [
            f"{name} holds {unresolved if unresolved.total else unresolved.unreadable}"
            for name, unresolved in counted.items()
            if unresolved
        ]

    def orphans(self, own_topics: Iterable[str]) -> list[Orphan]:
        return find_orphans(self._admin, self._reader, self._subscriptions, own_topics, THOROUGH)


def _own_topics(subscription: Subscription) -> tuple[str, ...]:
    return subscription.dead_letter_topic, subscription.command_topic, subscription.audit_topic
