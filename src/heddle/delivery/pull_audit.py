"""The audit trail of a source that is pulled: with which versions of its secrets, before what was pulled with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from heddle.audit import AuditTrail, external_reset, heads
from heddle.broker.log import Outgoing, Reader
from heddle.delivery.metadata import PartitionMetadata
from heddle.integration import PulledSource
from heddle.secrets import Use

TIMEOUT_S = 30.0
_PARTITION = 0


def audit_topic(source: PulledSource) -> str:
    """Beside that of the raw topic's subscription, which another process chains on."""
    return f"{source.name}.pull.audit"


class PullAudit:
    """Of one worker. Its chain's head stands in the metadata of the leader's position, as a worker's does in that of
    its offsets: records and head are in the transaction of what was pulled. `key`, `secrets`: as of `AuditTrail`."""

    def __init__(self, source: PulledSource, instance: str, key: bytes, secrets: Callable[[], tuple[Use, ...]]) -> None:
        self.topic = audit_topic(source)
        self.tells_of_pause = False
        """Whether the trail ended with one when it was looked at last (`resets`)."""
        self._trail = AuditTrail(
            f"{source.name}.pull", source.position_topic, self.topic, f"worker:{instance}", key, secrets=secrets
        )

    def news(self, metadata: PartitionMetadata) -> tuple[list[Outgoing], PartitionMetadata]:
        """A record before the first transaction of this leader, and before one that was made with other secrets."""
        records, head = self._trail.news_of_secrets(_PARTITION, metadata.audit_head)
        return records, replace(metadata, audit_head=head)

    def event(
        self, metadata: PartitionMetadata, kind: str, detail: Mapping[str, str]
    ) -> tuple[list[Outgoing], PartitionMetadata]:
        """A record of its own: `paused` and why, `resumed`."""
        records, head = self._trail.event(_PARTITION, metadata.audit_head, kind, detail)
        return records, replace(metadata, audit_head=head)

    def resets(
        self, metadata: PartitionMetadata, reader: Reader, log: FilteringBoundLogger
    ) -> tuple[list[Outgoing], PartitionMetadata]:
        """A record where the topic does not end with the head that the position was committed with."""
        tail = heads(reader, self.topic, [_PARTITION], TIMEOUT_S)[_PARTITION]
        self.tells_of_pause = tail is not None and tail.kind == "paused"
        if metadata.audit_head == (tail.hash if tail else ""):
            return [], metadata
        log.error("position or audit trail were changed from outside", topic=self.topic)
        self.tells_of_pause = False
        records, head = external_reset(self._trail, _PARTITION, metadata.audit_head, tail, {})
        return records, replace(metadata, audit_head=head)
