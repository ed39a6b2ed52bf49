"""A worker without its audit trail, which Heddle does not offer: what the trail costs is the difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from heddle.audit import AuditTrail, Line
from heddle.broker.log import Outgoing, Record


class Unaudited(AuditTrail):
    """Hashes nothing and writes nothing."""

    def line(self, record: Record, outcome: str, **_: Any) -> Line:
        return Line(record.offset, outcome)

    def batch_hash(self, values: Iterable[bytes | None]) -> str:  # noqa: ARG002
        return ""

    def batch(self, partition: int, head: str, **_: Any) -> tuple[list[Outgoing], str]:  # noqa: ARG002
        return [], head

    def event(self, partition: int, head: str, *_: Any, **__: Any) -> tuple[list[Outgoing], str]:  # noqa: ARG002
        return [], head
