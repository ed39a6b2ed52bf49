"""The topics that a worker needs. It creates none."""

from __future__ import annotations

from heddle.broker.log import Admin, TopicState
from heddle.delivery.subscription import Subscription
from heddle.errors import UsageError

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588


def needed_topics(subscription: Subscription, admin: Admin) -> tuple[TopicState, int, int]:
    """The input topic, and the largest output and the largest dead-letter entry that may be written, in bytes.
    `UsageError` for what is missing or cannot serve."""
    name, dead_letters = subscription.topic, subscription.dead_letter_topic
    beside = [dead_letters, subscription.command_topic, subscription.audit_topic]
    needed = [name, *beside, *subscription.writes]
    topics = admin.topics(needed)
    missing = [topic for topic in needed if topic not in topics]
    if missing:
        raise UsageError(f"{subscription.name}: no topic {', '.join(missing)}", hint="run `heddle apply`")
    differing = [topic for topic in beside if topics[topic].partitions != topics[name].partitions]
    if differing:
        problem = f"{name} and {', '.join(differing)} have different numbers of partitions"
    elif _max_bytes(topics[dead_letters]) < _max_bytes(topics[name]):
        problem = f"{dead_letters} takes smaller records than {name}, so that some could not be parked"
    else:
        writes = [_max_bytes(topics[topic]) for topic in subscription.writes]
        return topics[name], min(writes, default=DEFAULT_MAX_MESSAGE_BYTES), _max_bytes(topics[dead_letters])
    raise UsageError(problem, hint="run `heddle plan` for what to do")


def _max_bytes(topic: TopicState) -> int:
    return int(topic.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))
