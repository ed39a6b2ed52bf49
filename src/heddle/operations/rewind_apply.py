"""Applying a rewind: offsets, their markers and the audit trail change in one transaction, and nobody else is in the
group.

We join the group ourselves. A worker that comes in between moves the group on, and the broker then refuses the
transaction: either all of it happens to a stopped subscription, or nothing does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import orjson
import stamina

from heddle.audit import AuditTrail, external_reset, heads
from heddle.broker.log import NEVER_COMMITTED, Admin, Broker, Consumer, GroupMetadata, Outgoing, Position, Reader
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.errors import AuthError, CommitUnknownError, FailureClass, HeddleError, StaleGenerationError
from heddle.operations.plan import PlanChangedError
from heddle.operations.rewind import RewindPlan, marker_of
from heddle.operators import OperatorKey, Operators

TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 30.0
COMMIT_TRIES = 3
_POLL_S = 0.2


class StillRunningError(HeddleError):
    """Somebody works on the subscription: what they have in hand would be committed over the rewind."""

    failure_class = FailureClass.OURS
    code = "still-running"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Mandate:
    """Who rewinds, and why. `os_user` stands beside the key's name in the audit trail. `operators`: whose keys count;
    no worker runs that could check the signature."""

    reason: str
    key: OperatorKey
    operators: Operators
    os_user: str


def apply_rewind(
    broker: Broker,
    subscription: Subscription,
    plan: RewindPlan,
    mandate: Mandate,
    audit_key: bytes,
    join_timeout_s: float = JOIN_TIMEOUT_S,
) -> None:
    """Make a plan true that was made just now. Returns when it is committed.

    Raises `StillRunningError` when the group is not ours alone, and `PlanChangedError` when an offset has moved since:
    nothing was changed then. `AuthError` for a key that does not count."""
    signed = _signed(plan, mandate)
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader:
        if _members(admin, subscription):  # before we make a consumer: it joins by itself
            raise _still_running(subscription)
        with closing(broker.consumer(subscription.group, subscription.topic)) as consumer:
            _join(admin, consumer, subscription, range(plan.partitions), join_timeout_s)
            group = consumer.group_metadata()
            # What a worker that died had in flight is decided here, and so cannot come after us.
            found = consumer.committed([move.partition for move in plan.moves], TIMEOUT_S)
            _check_unmoved(plan, found)
            trail = AuditTrail(
                subscription.name, subscription.topic, subscription.audit_topic, mandate.key.name, audit_key
            )  # fmt: skip
            change = _change(reader, trail, subscription, plan, signed, found)
            _commit(broker, subscription, change, group)


@dataclass(frozen=True, slots=True)
class _Change:
    positions: Mapping[int, Position]
    records: tuple[Outgoing, ...]


def _join(admin: Admin, consumer: Consumer, subscription: Subscription, everything: range, timeout_s: float) -> None:
    """Become the only member. With another one, the partitions would be shared out between us."""
    deadline = time.monotonic() + timeout_s
    while consumer.assignment() != frozenset(everything):
        consumer.consume(1, 0.0, first_wait_s=_POLL_S)
        if _members(admin, subscription) > 1 or time.monotonic() > deadline:
            raise _still_running(subscription)


def _members(admin: Admin, subscription: Subscription) -> int:
    return admin.group_members([subscription.group])[subscription.group]


def _still_running(subscription: Subscription) -> StillRunningError:
    return StillRunningError(
        f"workers of {subscription.name} run: nothing was changed",
        hint=f"stop every `heddle run` of {subscription.name}, then try again; one that was killed is gone after 6 s",
    )


def _check_unmoved(plan: RewindPlan, found: Mapping[int, Position]) -> None:
    then = {move.partition: NEVER_COMMITTED if move.now is None else move.now for move in plan.moves}
    moved = [partition for partition, offset in then.items() if found[partition].offset != offset]
    if moved:
        raise PlanChangedError(
            f"the offset of partition {moved[0]} has moved since the plan was made: nothing was changed",
            hint="look at the plan again: leave --apply out",
        )


def _change(
    reader: Reader, trail: AuditTrail, subscription: Subscription, plan: RewindPlan, signed: Mapping[str, Any],
    found: Mapping[int, Position],
) -> _Change:  # fmt: skip
    """The audit trail goes on from what its topic holds; a witness that differs is told first, as a worker would."""
    partitions = [move.partition for move in plan.moves]
    tails = heads(reader, subscription.audit_topic, partitions, TIMEOUT_S)
    positions: dict[int, Position] = {}
    records: list[Outgoing] = []
    for move in plan.moves:
        partition, tail = move.partition, tails[move.partition]
        marker = _marker(found[partition], plan.partitions)
        head = tail.hash if tail else ""
        if marker.audit_head != head:
            made, head = external_reset(trail, partition, marker.audit_head, tail, {"offset": move.now})
            records += made
        detail = {"before": move.now, "after": move.then, **signed}
        made, head = trail.event(partition, head, "rewind", detail)
        records += made
        positions[partition] = Position(move.then, replace(marker, audit_head=head).pack())
    return _Change(positions, tuple(records))


def _marker(position: Position, partitions: int) -> PartitionMetadata:
    """As after a clean release: what a crash left suspect is read again anyway."""
    marker = marker_of(position.metadata)
    if marker is None or not position.metadata:
        return PartitionMetadata(partitions=partitions)
    return replace(marker, started=0, suspicion=None)


def _signed(plan: RewindPlan, mandate: Mandate) -> dict[str, Any]:
    """What the operator's key signs: everything that is done, so that each partition's record is proof by itself."""
    statement = {
        "do": "rewind",
        "subscription": plan.subscription,
        "topic_id": plan.topic_id,
        "moves": [[move.partition, move.now, move.then] for move in plan.moves],
        "reason": mandate.reason,
        "os_user": mandate.os_user,
    }
    data = statement_bytes(statement)
    signature = mandate.key.sign(data)
    if not mandate.operators.verify(mandate.key.name, signature, data):
        raise AuthError(
            f"the operator key {mandate.key.name} does not count in this project",
            hint="have its public half added to operators.toml, or set HEDDLE_OPERATOR to one that counts",
        )
    return {"reason": mandate.reason, "os_user": mandate.os_user, "statement": statement, "signature": signature}


def statement_bytes(statement: Mapping[str, Any]) -> bytes:
    """The signed form of the statement in an audit record of kind `rewind`."""
    return b"heddle-rewind-1" + orjson.dumps(statement, option=orjson.OPT_SORT_KEYS)


def _commit(broker: Broker, subscription: Subscription, change: _Change, group: GroupMetadata) -> None:
    with closing(broker.producer(subscription.transactional_id("rewind"))) as producer:
        producer.init(TIMEOUT_S)
        producer.begin()
        try:
            producer.produce(change.records)
            producer.send_offsets(subscription.topic, change.positions, group)
            for attempt in stamina.retry_context(on=CommitUnknownError, attempts=COMMIT_TRIES, timeout=None):
                with attempt:
                    producer.commit(TIMEOUT_S)
        except StaleGenerationError as error:
            producer.abort(TIMEOUT_S)
            raise _still_running(subscription) from error
        except CommitUnknownError as error:
            raise CommitUnknownError(
                f"whether {subscription.name} was rewound is not known: {error}",
                hint="plan it again: where it was done, nothing is left to do",
            ) from error
