"""Dead letters that nobody will ever run: their subscription was renamed or removed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from heddle.broker.log import Admin, Reader
from heddle.delivery.subscription import Subscription
from heddle.operations.unresolved import QUICK, Effort, Unresolved, count_unresolved

SUFFIX = ".dlq"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A dead-letter topic with unresolved entries that no component of this project answers for.

    `is_ours`: this project has the topic that they come from, so that the subscription was this project's; else it
    may be another project's on the same cluster."""

    subscription: str
    topic: str
    unresolved: Unresolved
    is_ours: bool

    def __str__(self) -> str:
        entries = f"{self.topic} holds {self.unresolved or 'entries'}, and no component is called {self.subscription}"
        if self.is_ours:
            return f"{entries} any more"
        return f"{entries}; they come from {self.unresolved.reads}, so they may well be another project's"

    @property
    def hint(self) -> str:
        """What to do next."""
        return (
            f"declare {self.subscription} again until they are resolved; or give them to another subscription: "
            f"heddle dlq export {self.subscription} > FILE, heddle dlq import NAME FILE, then delete topic {self.topic}"
        )

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "subscription": self.subscription,
            "topic": self.topic,
            "reads": self.unresolved.reads,
            "of_this_project": self.is_ours,
            "unresolved": self.unresolved.document(),
            "hint": self.hint,
        }


def find_orphans(
    admin: Admin,
    reader: Reader,
    subscriptions: Iterable[Subscription],
    own_topics: Iterable[str],
    effort: Effort = QUICK,
) -> list[Orphan]:
    """Looks into every `*.dlq` topic that none of `subscriptions` has and no running group reads.

    `own_topics`: all that the project declares. What is in a format of other programs is left alone."""
    declared = {subscription.dead_letter_topic for subscription in subscriptions}
    own = set(own_topics)
    foreign = [name for name in admin.topic_names() if name.endswith(SUFFIX) and name not in declared]
    members = admin.group_members(map(_subscription, foreign))
    unread = admin.topics(name for name in foreign if not members[_subscription(name)])
    counted = count_unresolved(admin, reader, {name: topic.partitions for name, topic in unread.items()}, effort)
    return [
        Orphan(_subscription(name), name, unresolved, unresolved.reads in own)
        for name, unresolved in sorted(counted.items())
        if unresolved and unresolved.reads
    ]


def _subscription(dead_letter_topic: str) -> str:
    return dead_letter_topic.removesuffix(SUFFIX)
