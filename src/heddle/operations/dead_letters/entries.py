"""Dead-letter entries as people and plans see them: the newest version of each, read from its headers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from heddle.broker.log import Admin, Reader, Record
from heddle.broker.newest import Found, newest_of_partition
from heddle.delivery import envelope
from heddle.delivery.envelope import State, entry_of
from heddle.delivery.subscription import Subscription
from heddle.errors import UsageError
from heddle.event import TYPE, event_time

OnProgress = Callable[[int], None]
"""Told the number of records that were read since it was called last."""


@dataclass(frozen=True, slots=True)
class EntryView:
    """The newest version of one entry.

    `entry_id` is `<partition>-<offset>` of the original record, followed by `@<topic id>` when that is not the input
    topic's present one: imported, or from before the topic was made again. `version` is the dead-letter offset, and
    `appended_ms` when the broker took it. Times `…_at` are RFC 3339 in UTC, "" for what never failed. `contract` is
    the event's type. `record` is the whole dead-letter record, only when bodies were asked for."""

    subscription: str
    entry_id: str
    topic_id: str
    partition: int
    offset: int
    version: int
    state: State
    key: bytes | None
    attempts: int
    first_failed_at: str
    last_failed_at: str
    appended_ms: int
    retry_after_ms: int
    failure_class: str
    code: str
    path: str
    fingerprint: str
    exception: str
    message: str
    stack: str
    blocked_by: str
    root: str
    trace: str
    handler: str
    contract: str
    timestamp_ms: int
    edit: int
    size_bytes: int
    first_failed_ms: int
    record: Record | None = None

    @property
    def name(self) -> str:
        """As typed and printed: `<subscription>/<entry id>`."""
        return f"{self.subscription}/{self.entry_id}"

    @property
    def key_text(self) -> str | None:
        return None if self.key is None else text_of(self.key)

    @property
    def first_failed(self) -> datetime | None:
        return datetime.fromisoformat(self.first_failed_at) if self.first_failed_at else None

    @property
    def last_failed(self) -> datetime | None:
        return datetime.fromisoformat(self.last_failed_at) if self.last_failed_at else None

    @property
    def appended(self) -> datetime:
        return datetime.fromtimestamp(self.appended_ms / 1000, UTC)

    @property
    def since_ms(self) -> int:
        """Unresolved since: its first failure, or for one that never ran its newest version."""
        return self.first_failed_ms or self.appended_ms

    @property
    def due(self) -> datetime:
        """When a `retrying` entry runs next, by the broker's clock."""
        return self.appended + timedelta(milliseconds=self.retry_after_ms)

    def document(self) -> dict[str, Any]:
        """What `--json` prints, all but stack and body."""
        return {
            "id": self.name,
            "subscription": self.subscription,
            "topic_id": self.topic_id,
            "partition": self.partition,
            "offset": self.offset,
            "version": self.version,
            "state": str(self.state),
            "key": self.key_text,
            "class": self.failure_class,
            "code": self.code,
            "path": self.path,
            "fingerprint": self.fingerprint,
            "exception": self.exception,
            "message": self.message,
            "attempts": self.attempts,
            "first_failed_at": self.first_failed_at or None,
            "last_failed_at": self.last_failed_at or None,
            "appended_at": event_time(self.appended),
            "retry_at": event_time(self.due) if self.state is State.RETRYING else None,
            "blocked_by": self.blocked_by or None,
            "contract": self.contract,
            "handler": self.handler,
            "root": self.root,
            "trace": self.trace,
            "edit": self.edit,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the entries of a subscription are. `topic_id` is its input topic's present one, "" when there is none."""

    subscription: Subscription
    partitions: int
    topic_id: str


def shelves_of(admin: Admin, subscriptions: Iterable[Subscription]) -> list[Shelf]:
    """Those of the subscriptions whose dead-letter topic exists, in order."""
    subscriptions = list(subscriptions)
    found = admin.topics({name for s in subscriptions for name in (s.topic, s.dead_letter_topic) if name})
    return [
        Shelf(s, found[s.dead_letter_topic].partitions, found[s.topic].topic_id if s.topic in found else "")
        for s in subscriptions
        if s.dead_letter_topic in found
    ]


def shelf_of(admin: Admin, subscription: Subscription) -> Shelf:
    """Raises `UsageError` when there is no dead-letter topic."""
    for shelf in shelves_of(admin, [subscription]):
        return shelf
    raise UsageError(f"no topic {subscription.dead_letter_topic}", hint="run `heddle apply`, which makes it")


def named_shelves(admin: Admin, declared: Sequence[Subscription], names: Collection[str]) -> list[Shelf]:
    """Those of the named subscriptions, of all declared ones where none is named. A subscription that is declared no
    more is found by its dead-letter topic. Raises `UsageError` for a name that stands for nothing."""
    known = {subscription.name: subscription for subscription in declared}
    wanted = [known.get(name) or Subscription(name, "") for name in names] if names else list(declared)
    shelves = shelves_of(admin, wanted)
    missing = {s.name for s in wanted if s.name not in known} - {shelf.subscription.name for shelf in shelves}
    if missing:
        raise UsageError(
            f"no subscription named {', '.join(sorted(missing))}", hint=f"declared here: {', '.join(known) or 'none'}"
        )
    return shelves


def read_entries(
    reader: Reader, shelf: Shelf, *, keep_bodies: bool = False, on_progress: OnProgress | None = None
) -> list[EntryView]:
    """The newest version of every entry, markers included, newest first in each partition.

    Raises `FormatError` for an entry that this version of Heddle cannot read."""
    return list(each_entry(reader, shelf, range(shelf.partitions), keep_bodies=keep_bodies, on_progress=on_progress))


def each_entry(
    reader: Reader,
    shelf: Shelf,
    partitions: Iterable[int],
    *,
    keep_bodies: bool = False,
    on_progress: OnProgress | None = None,
) -> Iterator[EntryView]:
    """As `read_entries`, of these partitions, one after the other and as they are found. Close it when you leave."""
    for partition in partitions:
        for found in newest_of_partition(reader, shelf.subscription.dead_letter_topic, partition):
            _tell(on_progress, found)
            for record in found.records:
                yield view_of(record, shelf, keep_body=keep_bodies)


def view_of(record: Record, shelf: Shelf, *, keep_body: bool = False) -> EntryView:
    """Raises `FormatError` for another format version."""
    entry = entry_of(record)
    text = dict(record.headers).get
    origin = f"{entry.partition}-{entry.offset}"
    return EntryView(
        shelf.subscription.name,
        origin if entry.topic_id == shelf.topic_id else f"{origin}@{entry.topic_id}",
        entry.topic_id,
        entry.partition,
        entry.offset,
        entry.version,
        entry.state,
        entry.key,
        entry.attempts,
        text_of(text(envelope.FIRST_FAILED)),
        text_of(text(envelope.LAST_FAILED)),
        entry.appended_ms,
        entry.retry_after_ms,
        _shared(text(envelope.CLASS)),
        _shared(text(envelope.CODE)),
        _shared(text(envelope.PATH)),
        _shared(text(envelope.FINGERPRINT)),
        _shared(text(envelope.EXCEPTION)),
        _shared(text(envelope.MESSAGE)),
        _shared(text(envelope.STACK)),
        text_of(text(envelope.BLOCKED_BY)),
        text_of(text(envelope.ROOT)),
        text_of(text(envelope.TRACE)),
        _shared(text(envelope.HANDLER)),
        _shared(text(TYPE)),
        int(text(envelope.TIMESTAMP) or b"-1"),
        entry.edit,
        entry.size_bytes,
        entry.first_failed_ms,
        record if keep_body else None,
    )


def text_of(data: bytes | None) -> str:
    """Different bytes stay different, also where they are no UTF-8."""
    return (data or b"").decode(errors="backslashreplace")


@lru_cache(4096)
def _shared(data: bytes | None) -> str:
    """One text for a hundred thousand entries that failed alike."""
    return text_of(data)


def _tell(on_progress: OnProgress | None, found: Found) -> None:
    if on_progress is not None:
        on_progress(found.read)
