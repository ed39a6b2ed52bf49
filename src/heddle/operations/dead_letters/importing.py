"""From records that come from elsewhere to a plan that makes them entries of a subscription.

An entry's identity is its origin and offset, so that importing it twice makes one entry. An origin names topic,
partition and, since a topic may be made again, the beginning of the topic's id: `orders-dlt:2:hT9xQm4B`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from heddle.broker.log import Admin, Reader
from heddle.broker.murmur2 import partition_of
from heddle.delivery import envelope
from heddle.delivery.command import MAX_SLICE_BYTES, MAX_SLICE_ENTRIES, Foreign, PlanHeader, Slice
from heddle.delivery.envelope import State
from heddle.delivery.topics import DEFAULT_MAX_MESSAGE_BYTES
from heddle.errors import UsageError
from heddle.event import ID, SOURCE
from heddle.operations.dead_letters.entries import EntryView, OnProgress, Shelf, each_entry, text_of
from heddle.operations.dead_letters.plan import NOT_THERE, Changed, LeftOut, Place, Planned, ReplayPlan, place_of

TIMEOUT_S: Final = 30.0
MAX_RECORDS: Final = 50_000
MAX_BYTES: Final = 64 * 2**20
"""What one plan may hold; it is in memory as a whole."""

_ID_CHARS: Final = 8
_OVERHEAD_BYTES: Final = 64 * 1024  # a command around its records, an envelope around its body
_IMPORTED: Final = "imported"


class Incoming(NamedTuple):
    """One record from elsewhere. `partition`: the one that it was in, which places it if it has no key. `home`: its
    place where it was an entry of a subscription already. `told`: how to name it to a person."""

    foreign: Foreign
    partition: int
    told: str
    home: Place | None = None


class Limits(NamedTuple):
    """The largest records that the command topic and the dead-letter topic take."""

    command_bytes: int
    entry_bytes: int


@dataclass(frozen=True, slots=True)
class Present:
    """What a subscription has already: its entries by place, and the names under which it ever imported any."""

    entries: Mapping[Place, EntryView]
    imported: Collection[str]


@dataclass(slots=True)
class Gathered:
    """What is taken and what is left out, as it comes. Full: the rest has to come in another plan."""

    shelf: Shelf
    present: Present
    limits: Limits
    taken: dict[Place, Incoming] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.taken) >= MAX_RECORDS or self.size_bytes >= MAX_BYTES

    def take(self, incoming: Incoming) -> bool:
        """Whether it is taken."""
        place = place_in(self.shelf, incoming)
        reason = self._obstacle(place, incoming)
        if reason:
            self.left_out.append(LeftOut(incoming.told, State.DEAD, reason))
            return False
        self.taken[place] = incoming
        self.size_bytes += sent_bytes(incoming.foreign)
        return True

    def plan(self, header: PlanHeader) -> ReplayPlan:
        ordered = sorted(self.taken.items(), key=lambda item: (item[0].partition, item[0].topic_id, item[0].offset))
        targets = tuple(_planned(place, incoming.foreign) for place, incoming in ordered)
        slices = tuple(_slices([(place.partition, incoming.foreign) for place, incoming in ordered]))
        return ReplayPlan(header, slices, targets, left_out=tuple(self.left_out))

    def _obstacle(self, place: Place, incoming: Incoming) -> str:
        entry = self.present.entries.get(place) or self.present.entries.get(incoming.home or place)
        if place in self.taken:
            return f"it comes twice: {self.taken[place].told}"
        if entry is not None:
            return f"it is here: {entry.entry_id}, {entry.state}"
        if entry_id_of(place) in self.present.imported:
            return "it was imported before, and is resolved"
        return _size_obstacle(incoming.foreign, self.limits)


def origin_of(topic: str, partition: int, topic_id: str) -> str:
    return f"{topic}:{partition}:{topic_id[:_ID_CHARS]}"


def place_in(shelf: Shelf, incoming: Incoming) -> Place:
    """By key as every producer places it; without one, by the partition that it was in."""
    foreign = incoming.foreign
    if foreign.key is None:
        return Place(foreign.origin, incoming.partition % shelf.partitions, foreign.offset)
    return Place(foreign.origin, partition_of(foreign.key, shelf.partitions), foreign.offset)


def entry_id_of(place: Place) -> str:
    return f"{place.partition}-{place.offset}@{place.topic_id}"


def present_in(reader: Reader, shelf: Shelf, on_progress: OnProgress | None = None) -> Present:
    """Reads the whole audit trail: what was imported once and is resolved must not come back."""
    views = each_entry(reader, shelf, range(shelf.partitions), on_progress=on_progress)
    entries = {place_of(view): view for view in views}
    return Present(entries, frozenset(_imported_before(reader, shelf)))


def limits_of(admin: Admin, shelf: Shelf) -> Limits:
    """Raises `UsageError` for a subscription whose topics are not there."""
    names = (shelf.subscription.command_topic, shelf.subscription.dead_letter_topic)
    topics = admin.topics(names)
    for name in names:
        if name not in topics:
            raise UsageError(f"no topic {name}", hint="run `heddle apply`, which makes it")
    return Limits(*(int(topics[name].config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES)) for name in names))


def sent_bytes(foreign: Foreign) -> int:
    """What a record takes up in a command, about: bytes as base64, texts as JSON."""
    data = len(foreign.key or b"") + len(foreign.value or b"") + sum(len(v or b"") for _, v in foreign.headers)
    names = sum(len(name) + 8 for name, _ in foreign.headers)
    return data * 4 // 3 + names + len(orjson.dumps(foreign.failure)) + len(foreign.origin) + 200


def without_identity(records: Iterable[Foreign]) -> int:
    """How many no target can know again: they carry no event id of their own."""
    return sum(not {SOURCE, ID} <= {name for name, value in foreign.headers if value} for foreign in records)


def same_key(plan: ReplayPlan) -> int:
    """Records that are not the first of their key: imported entries do not wait for each other."""
    return sum(target.key is not None for target in plan.targets) - len(
        {(target.place.partition, target.key) for target in plan.targets if target.key is not None}
    )


def _imported_before(reader: Reader, shelf: Shelf) -> Iterator[str]:
    """Names of all entries that the audit trail calls imported. A record that cannot be read tells of none."""
    for partition in range(shelf.partitions):
        for record in reader.scan(shelf.subscription.audit_topic, partition, TIMEOUT_S, settled=True):
            value = record.value or b""
            if b'"imported"' in value:
                yield from _imported_in(value)


def _imported_in(value: bytes) -> list[str]:
    try:
        lines = orjson.loads(value)["lines"]
        return [str(line["entry"]) for line in lines if line["outcome"] == _IMPORTED]
    except (ValueError, LookupError, TypeError):
        return []


def _size_obstacle(foreign: Foreign, limits: Limits) -> str:
    size = sent_bytes(foreign)
    for what, limit in (("a command", limits.command_bytes), ("an entry", limits.entry_bytes)):
        if size > limit - _OVERHEAD_BYTES:
            return f"it is too large for {what}: {size:,} bytes of {limit:,}"
    return ""


def _planned(place: Place, foreign: Foreign) -> Planned:
    told = dict(foreign.failure).get
    return Planned(
        place,
        NOT_THERE,
        entry_id_of(place),
        State.DEAD,
        None if foreign.key is None else text_of(foreign.key),
        told(envelope.CLASS, ""),
        told(envelope.CODE, ""),
        told(envelope.FINGERPRINT, ""),
        foreign.timestamp_ms,
    )


def _slices(records: Sequence[tuple[int, Foreign]]) -> Iterator[Slice]:
    part: list[Foreign] = []
    size, current = 0, -1
    for partition, foreign in records:
        more = sent_bytes(foreign)
        if part and (partition != current or len(part) == MAX_SLICE_ENTRIES or size + more > MAX_SLICE_BYTES):
            yield Slice(current, foreign=tuple(part))
            part, size = [], 0
        part.append(foreign)
        size, current = size + more, partition
    if part:
        yield Slice(current, foreign=tuple(part))


def imported_meanwhile(plan: ReplayPlan, present: Present) -> list[Changed]:
    """Targets that are not new any more: another plan, or this one, has made entries of them."""
    return [
        Changed(target.entry_id, "not there", "imported, and resolved")
        for target in plan.targets
        if target.entry_id in present.imported and target.place not in present.entries
    ]
