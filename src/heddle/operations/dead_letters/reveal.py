"""Showing classified fields leaves a trace: a signed command, durably written before anything is shown. The
partition's owner writes it into the audit trail."""

from __future__ import annotations

import time
import uuid

from heddle.broker.log import Broker
from heddle.delivery.command import Action, Command, Kind, PlanHeader, Slice, Target
from heddle.operations.dead_letters.entries import EntryView, Shelf
from heddle.operations.dead_letters.jobs import EXPIRY_S, checked_reason, os_user, send_slices, signed
from heddle.operators import OperatorKey


def note_reveal(broker: Broker, shelf: Shelf, view: EntryView, reason: str, key: OperatorKey) -> str:
    """Returns when the note is durable: the id of its job. Raises `UsageError` for a reason that says nothing."""
    now_ms = int(time.time() * 1000)
    header = PlanHeader(shelf.subscription.name, Action.REVEAL, created_at_ms=now_ms)
    part = Slice(view.partition, (Target(view.topic_id, view.offset, view.version),))
    expires_at_ms = now_ms + int(EXPIRY_S * 1000)
    command = Command(
        Kind.ACT, uuid.uuid4().hex[:12], header, (part.hash,), checked_reason(reason), expires_at_ms, os_user()
    )
    send_slices(broker, shelf, signed(command, key), [(0, part)])
    return command.job
