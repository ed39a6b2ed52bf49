"""The topics that a project declares: of contracts, of sources (raw records, positions), and three per subscription."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from heddle.broker.log import TopicSpec
from heddle.contracts import Contract
from heddle.delivery.gateway_audit import gateway_audit_topic
from heddle.delivery.pull import MAX_POSITION_BYTES
from heddle.delivery.pull_audit import audit_topic
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.errors import UsageError
from heddle.integration import PulledSource
from heddle.project import Project
from heddle.settings import Settings
from heddle.sources.webhook import WebhookSource

HOUR_MS: Final = 3_600_000
# What dead-letter headers (original headers, error, stack) may add to a record.
ENVELOPE_BYTES: Final = 256 * 1024
# What headers may add to an event or to a raw delivery.
HEADERS_BYTES: Final = 64 * 1024
# A client puts up to 1,000,000 bytes into one batch, which is what the broker weighs; several audit records of a
# transaction, and a command with many bodies, come close to that.
BATCH_BYTES: Final = 2 * 2**20
COMMANDS_KEPT_HOURS: Final = 14 * 24

_RAW_DEFAULTS: Final = {"partitions": 6, "retention_hours": 168}


def declared_topics(project: Project, contracts: Sequence[Contract], settings: Settings) -> list[TopicSpec]:
    """Every topic that `heddle apply` answers for, by name.

    Locally one replica; elsewhere three, of which two must hold a record before it counts as written."""
    specs = {spec.name: spec for spec in _inputs(project, contracts, settings)}
    for component in project.components.values():
        subscription = subscription_of(component)
        source = specs.get(subscription.topic)
        if source is None:
            raise UsageError(
                f"{component.name} reads {subscription.topic}, which no contract of this project declares",
                hint="keep the contract's files under schemas/ of this project",
            )
        specs |= {spec.name: spec for spec in own_topics(subscription, source, settings)}
    return sorted(specs.values(), key=lambda spec: spec.name)


def _inputs(project: Project, contracts: Sequence[Contract], settings: Settings) -> Iterator[TopicSpec]:
    replication = 1 if settings.local else 3
    for contract in contracts:
        topic = contract.metadata.topic
        config = {
            "cleanup.policy": topic.cleanup,
            "retention.ms": _retention_ms(topic.retention_hours),
            "max.message.bytes": str(topic.max_message_bytes + HEADERS_BYTES),
        }
        yield TopicSpec(contract.topic, topic.partitions, replication, config | _durability(settings))
    partitions, retention_hours = _raw_settings(project)
    for source in project.sources:
        config = {
            "cleanup.policy": "delete",
            "retention.ms": _retention_ms(retention_hours),
            "max.message.bytes": str(settings.gateway_max_body_bytes + HEADERS_BYTES),
        }
        yield TopicSpec(source.raw_topic, partitions, replication, config | _durability(settings))
        audited = _audit_config() | {"message.timestamp.type": "LogAppendTime"} | _durability(settings)
        if isinstance(source, PulledSource):
            yield TopicSpec(source.position_topic, 1, replication, _POSITION_CONFIG | _durability(settings))
            yield TopicSpec(audit_topic(source), 1, replication, audited)
        if isinstance(source, WebhookSource):
            yield TopicSpec(gateway_audit_topic(source), 1, replication, audited)


def own_topics(subscription: Subscription, source: TopicSpec, settings: Settings) -> Iterator[TopicSpec]:
    """What a partition's owner keeps beside its input, partition by partition. Times in them are the broker's."""
    configs = {
        subscription.dead_letter_topic: _dead_letter_config(source),
        subscription.command_topic: _command_config(source),
        subscription.audit_topic: _audit_config(),
    }
    for name, config in configs.items():
        config = config | {"message.timestamp.type": "LogAppendTime"} | _durability(settings)
        yield TopicSpec(name, source.partitions, source.replication, config)


_POSITION_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(4 * 2**20),
    "max.message.bytes": str(MAX_POSITION_BYTES + ENVELOPE_BYTES),
}


def _dead_letter_config(source: TopicSpec) -> dict[str, str]:
    """Compacted soon and in small steps: an entry's newest version is its state, and workers read the whole
    partition when they take it over. The compaction lag keeps every version readable for an hour."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(16 * 2**20),
        "segment.ms": str(HOUR_MS),
        "min.compaction.lag.ms": str(HOUR_MS),
        "min.cleanable.dirty.ratio": "0.1",
        "max.message.bytes": str(_twice(source)),
    }


def _command_config(source: TopicSpec) -> dict[str, str]:
    """A command that nobody has taken for so long has expired anyway."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": _retention_ms(COMMANDS_KEPT_HOURS),
        "max.message.bytes": str(max(_twice(source), BATCH_BYTES)),
    }


def _audit_config() -> dict[str, str]:
    """Kept for ever, whatever the cluster's own limits are: a chain that loses its beginning proves less."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(BATCH_BYTES),
    }


def _twice(source: TopicSpec) -> int:
    """An edited entry keeps its original beside the revision; a command holds a new body as base64."""
    return 2 * int(source.config["max.message.bytes"]) + ENVELOPE_BYTES


def _durability(settings: Settings) -> dict[str, str]:
    return {} if settings.local else {"min.insync.replicas": "2"}


def _retention_ms(hours: int) -> str:
    return "-1" if hours < 0 else str(hours * HOUR_MS)


def _raw_settings(project: Project) -> tuple[int, int]:
    """`[tool.heddle.raw]` of pyproject.toml: partitions, retention_hours."""
    given = project.config.get("raw", {})
    unknown = sorted(given.keys() - _RAW_DEFAULTS.keys())
    if unknown:
        raise UsageError(
            f"[tool.heddle.raw] has no setting {', '.join(unknown)}", hint=f"known: {', '.join(_RAW_DEFAULTS)}"
        )
    values = _RAW_DEFAULTS | given
    for name, value in values.items():
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or (value < 1 and (name, value) != ("retention_hours", -1))
        ):
            raise UsageError(f"[tool.heddle.raw] {name} is not a number of at least 1")
    return values["partitions"], values["retention_hours"]
