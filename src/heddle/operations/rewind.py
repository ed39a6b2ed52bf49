"""`heddle rewind`: a subscription reads records again, from where its group stood before.

A plan first, then its hash is applied to a stopped group. Only backwards: what lies ahead was never settled, and going
past it would lose it. What was applied already is recognised by identity, as far back as the sinks remember.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, cast

import orjson

from heddle.broker.log import NEVER_COMMITTED, Admin, Broker, Position, Reader, Record, TopicState
from heddle.delivery.index import MARKER_LIFETIME_MS
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.errors import FailureClass, FormatError, HeddleError, UsageError
from heddle.operations.dead_letters.entries import each_entry, shelf_of
from heddle.operations.destination import Destination
from heddle.operations.inbox_bounds import InboxBound
from heddle.operations.lag import records_between

TIMEOUT_S = 30.0
CLOCK_SKEW_S = 60.0
"""A record's time is its producer's, an inbox row's its database's."""


class RewindRefusedError(HeddleError):
    """Going there would lose records, or double effects."""

    failure_class = FailureClass.OURS
    code = "rewind-refused"


@dataclass(frozen=True, slots=True)
class Move:
    """One partition: the committed offset `now` (None: never committed) becomes `then`.

    `records` to be read again; above a hundred it counts offsets, some of which are transaction markers. `from_ms` is
    the first one's timestamp. `unresolved` of them have an entry, and `decided` a marker of a discard or an edit:
    both settle as duplicates, unattempted. `gone`: offsets that retention took before they were ever read.
    `is_unreadable`: what stands beside the offset cannot be read and is written anew, even where the offset stays."""

    partition: int
    now: int | None
    then: int
    records: int = 0
    from_ms: int | None = None
    unresolved: int = 0
    decided: int = 0
    gone: int = 0
    is_unreadable: bool = False

    @property
    def since(self) -> str:
        """`from_ms` for people, "" for no record."""
        return "" if self.from_ms is None else _time(self.from_ms)


@dataclass(frozen=True, slots=True)
class RewindPlan:
    """`members`: workers that have to be stopped first. `notes` say what else follows from it."""

    subscription: str
    topic: str
    topic_id: str
    partitions: int
    moves: tuple[Move, ...]
    bounds: tuple[InboxBound, ...] = ()
    members: int = 0
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Over what `apply` would do: the topic as it is now, and each offset before and after."""
        document = [self.subscription, self.topic_id, *((m.partition, m.now, m.then) for m in self.moves)]
        return blake2b(orjson.dumps(document), digest_size=16).hexdigest()

    @property
    def offsets(self) -> str:
        """The same destination for `--to`, whatever the time is."""
        return ",".join(f"{move.partition}={move.then}" for move in self.moves)

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "subscription": self.subscription,
            "topic": self.topic,
            "hash": self.hash if self.moves else None,
            "to": self.offsets,
            "workers": self.members,
            "partitions": [
                {
                    "partition": m.partition,
                    "now": m.now,
                    "then": m.then,
                    "records": m.records,
                    "from": m.since or None,
                    "unresolved": m.unresolved,
                    "decided": m.decided,
                    "gone": m.gone,
                    "unreadable": m.is_unreadable,
                }
                for m in self.moves
            ],
            "inboxes": [
                {"sink": b.sink, "complete_since": b.before and b.before.isoformat(), "told": b.is_told}
                for b in self.bounds
            ],
            "notes": list(self.notes),
        }


def plan_rewind(
    broker: Broker,
    subscription: Subscription,
    to: Destination,
    bounds: Iterable[InboxBound] = (),
    now: datetime | None = None,
) -> RewindPlan:
    """Read where the group is and compare. Changes nothing.

    Raises `UsageError` when topics or partitions are not there, and `RewindRefusedError` for what must not be done."""
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader:
        topic = _topic(admin, subscription)
        _check_partitions(topic, to)
        moves = _moves(admin, reader, subscription, topic, to)
        bounds = tuple(bounds)
        _check_bounds(moves, bounds)
        moves = tuple(_with_entries(admin, reader, subscription, topic, moves))
        members = admin.group_members([subscription.group])[subscription.group]
    horizon_ms = int((now or datetime.now(UTC)).timestamp() * 1000) - MARKER_LIFETIME_MS
    notes = tuple(_notes(subscription, moves, bounds, horizon_ms)) if moves else ()
    return RewindPlan(subscription.name, topic.name, topic.topic_id, topic.partitions, moves, bounds, members, notes)


def marker_of(metadata: str) -> PartitionMetadata | None:
    """None for one that cannot be read."""
    try:
        return PartitionMetadata.unpack(metadata)
    except FormatError:
        return None


def _topic(admin: Admin, subscription: Subscription) -> TopicState:
    names = (subscription.topic, subscription.dead_letter_topic, subscription.audit_topic)
    topics = admin.topics(names)
    missing = [name for name in names if name not in topics]
    if missing:
        raise UsageError(f"{subscription.name}: no topic {', '.join(missing)}", hint="run `heddle apply`")
    return topics[subscription.topic]


def _check_partitions(topic: TopicState, to: Destination) -> None:
    unknown = sorted(p for p in to.offsets or () if p >= topic.partitions)
    if unknown:
        raise UsageError(
            f"{topic.name} has no partition {unknown[0]}", hint=f"its partitions are 0 to {topic.partitions - 1}"
        )


def _moves(
    admin: Admin, reader: Reader, subscription: Subscription, topic: TopicState, to: Destination
) -> tuple[Move, ...]:
    """Of the partitions that do not stay where they are."""
    numbers = list(range(topic.partitions) if to.offsets is None else sorted(to.offsets))
    ends = admin.end_offsets({topic.name: numbers})[topic.name]
    positions = admin.group_positions(subscription.group, topic.name, numbers)
    moves = []
    for partition in numbers:
        position = positions.get(partition, Position(NEVER_COMMITTED))
        now = None if position.offset == NEVER_COMMITTED else position.offset
        log = _Log(topic.name, partition, reader.offset_at(topic.name, partition, 0, TIMEOUT_S), ends[partition])
        stands = (log.first if subscription.start == "earliest" else log.end) if now is None else now
        then = _target(reader, log, to, stands)
        is_unreadable = now is not None and marker_of(position.metadata) is None
        if then != stands or is_unreadable:
            moves.append(replace(_move(reader, log, now, stands, then), is_unreadable=is_unreadable))
    return tuple(moves)


@dataclass(frozen=True, slots=True)
class _Log:
    """One partition: the first offset kept, and the last stable one."""

    topic: str
    partition: int
    first: int
    end: int


def _target(reader: Reader, log: _Log, to: Destination, stands: int) -> int:
    """An offset that the log has lost counts as its first, one beyond the log's end (the topic was made again) as its
    end; everything else ahead of where the group stands would be skipped."""
    furthest = min(max(stands, log.first), log.end)
    if to.offsets is not None:
        return _checked(log, to.offsets[log.partition], furthest)
    if to.time_ms is None:
        return min(log.first, furthest)
    return min(reader.offset_at(log.topic, log.partition, to.time_ms, TIMEOUT_S), furthest)


def _checked(log: _Log, offset: int, furthest: int) -> int:
    where = f"partition {log.partition} of {log.topic}"
    if offset < log.first:
        raise RewindRefusedError(
            f"{where}: the log begins at {log.first}, {offset} is gone", hint=f"say {log.partition}={log.first}"
        )
    if offset > furthest:
        raise RewindRefusedError(
            f"{where}: {offset} lies ahead of {furthest}, and the records between would never be settled",
            hint="a rewind goes back; what must not be processed is parked, and then `heddle dlq discard`ed",
        )
    return offset


def _move(reader: Reader, log: _Log, now: int | None, stands: int, then: int) -> Move:
    until = min(stands, log.end)
    records = records_between(reader, log.topic, log.partition, then, until)
    first = _first_record(reader, log, then, until) if records else None
    gone = max(log.first - stands, 0)
    return Move(log.partition, now, then, records, None if first is None else first.timestamp_ms, gone=gone)


def _first_record(reader: Reader, log: _Log, start: int, end: int) -> Record | None:
    scan = cast(Generator[Record, None, None], reader.scan(log.topic, log.partition, TIMEOUT_S, start))
    with closing(scan) as records:
        return next((record for record in records if record.offset < end), None)


def _check_bounds(moves: Sequence[Move], bounds: Sequence[InboxBound]) -> None:
    """Below its bound an inbox does not know an event from a new one: its effect would be made twice."""
    for bound in bounds:
        if bound.before is None:
            continue
        safe_ms = int((bound.before.timestamp() + CLOCK_SKEW_S) * 1000)
        below = [move for move in moves if move.from_ms is not None and move.from_ms < safe_ms]
        if below:
            oldest = min(below, key=lambda move: move.from_ms or 0)
            raise RewindRefusedError(
                f"partition {oldest.partition} would be read again from {_time(oldest.from_ms or 0)} on, but "
                f"{bound.sink} has forgotten what it applied before {_time(safe_ms)}: effects could be made twice",
                hint=f"go back no further: --to {_time(safe_ms)}",
            )


def _with_entries(
    admin: Admin, reader: Reader, subscription: Subscription, topic: TopicState, moves: Iterable[Move]
) -> Iterator[Move]:
    shelf = shelf_of(admin, subscription)
    for move in moves:
        views = each_entry(reader, shelf, [move.partition])
        again = [v for v in views if v.topic_id == topic.topic_id and move.then <= v.offset < (move.now or 0)]
        decided = sum(view.state.is_marker for view in again)
        yield replace(move, unresolved=len(again) - decided, decided=decided)


def _notes(
    subscription: Subscription, moves: Sequence[Move], bounds: Iterable[InboxBound], horizon_ms: int
) -> Iterator[str]:
    for move in moves:
        if move.gone:
            yield f"partition {move.partition}: {move.gone} offsets were deleted by retention before they were read"
        if move.is_unreadable:
            yield f"partition {move.partition}: the marker beside its offset cannot be read; its counts begin anew"
    if any(move.from_ms is not None and move.from_ms < horizon_ms for move in moves):
        yield f"what was discarded or edited before {_time(horizon_ms)} is not known any more: it runs as it was"
    for topic in subscription.writes:
        yield f"its events are written to {topic} once more, with the same ids: our sinks drop them, others may not"
    for bound in bounds:
        if not bound.is_told:
            yield f"{bound.sink} does not tell how far back it knows what it did: check that before you go on"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
