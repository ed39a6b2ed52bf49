"""Showing classified fields leaves a trace: a signed command, durably written before anything is shown. The
partition's owner writes it into the audit trail."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

from heddle.broker.log import Broker
from heddle.delivery.command import MAX_SLICE_ENTRIES, Action, Command, Kind, PlanHeader, Slice, Target
from heddle.operations.dead_letters.entries import EntryView, Shelf
from heddle.operations.dead_letters.jobs import EXPIRY_S, checked_reason, os_user, send_slices, signed
from heddle.operators import OperatorKey


def note_reveal(broker: Broker, shelf: Shelf, views: Sequence[EntryView], reason: str, key: OperatorKey) -> str:
    """Returns when the note is durable: the id of its job. Raises `UsageError` for a reason that says nothing."""
    now_ms = int(time.time() * 1000)
    header = PlanHeader(shelf.subscription.name, Action.REVEAL, created_at_ms=now_ms)
    parts = list(_slices(views))
    hashes = tuple(part.hash for part in parts)
    expires_at_ms = now_ms + int(EXPIRY_S * 1000)
    command = Command(Kind.ACT, uuid.uuid4().hex[:12], header, hashes, checked_reason(reason), expires_at_ms, os_user())
    send_slices(broker, shelf, signed(command, key), enumerate(parts))
    return command.job


def _slices(views: Sequence[EntryView]) -> Iterator[Slice]:
    by_partition: dict[int, list[Target]] = {}
    for view in views:
        by_partition.setdefault(view.partition, []).append(Target(view.topic_id, view.offset, view.version))
    for partition, targets in by_partition.items():
        for first in range(0, len(targets), MAX_SLICE_ENTRIES):
            yield Slice(partition, tuple(targets[first : first + MAX_SLICE_ENTRIES]))
