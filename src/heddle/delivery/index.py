"""The unresolved entries of one partition, without their bodies: who waits behind whom, and what is due.

In memory; the dead-letter topic is the truth. Restored in the assignment handshake and nowhere else, dropped with the
ownership, changed only after the transaction that wrote the change has committed."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from heddle.broker.log import Record
from heddle.delivery.envelope import Entry, State, entry_of, original_of
from heddle.delivery.steps import parsed_headers
from heddle.event import Identity
from heddle.on_failure import Caps, Order

PER_KEY_SHARE = 200
"""Entries of one key in one batch, so that a key with thousands of them does not hold up the others."""

MARKER_LIFETIME_MS = 7 * 86_400_000
"""The rewind horizon: for so long a discarded or revised record is recognised when it is read again."""

_ENTRY_OVERHEAD_BYTES = 400  # what an entry costs here, beside the body's bytes, which stay in the topic


class EntryId(NamedTuple):
    """Within a partition: the origin's topic id and offset."""

    topic_id: str
    offset: int


@dataclass(slots=True)
class Pace:
    """A job's rate limit in one partition: when its next entry may run, on the monotonic clock. What an idle moment
    left unused may be caught up, half a second's worth at most."""

    rate_per_s: float
    next_s: float = 0.0

    def allows(self, now_s: float) -> bool:
        return self.next_s <= now_s

    def spend(self, now_s: float) -> None:
        if self.rate_per_s:
            self.next_s = max(self.next_s, now_s - 0.5) + 1 / self.rate_per_s


class Run(NamedTuple):
    """An operator's job that an entry belongs to: its id, and its pace."""

    job: str
    pace: Pace


@dataclass(slots=True)
class PartitionIndex:
    """`order` decides what lanes mean: with `park` they hold back, with `supersede` they only say what is older."""

    topic_id: str
    order: Order
    caps: Caps = field(default_factory=Caps)
    size_bytes: int = 0
    _last_offset: int = -1  # of any entry, resolved or not: what comes after it has none yet
    _longest_lane: int = 0  # at least; exact once there are no lanes
    _entries: dict[EntryId, Entry] = field(default_factory=dict)
    _lanes: dict[bytes, list[int]] = field(default_factory=dict)  # rising; mostly of one, for which a deque is large
    _markers: dict[EntryId, tuple[Entry, Identity]] = field(default_factory=dict)
    _marked: Counter[Identity] = field(default_factory=Counter)
    _due: list[tuple[float, int, EntryId, int]] = field(default_factory=list)
    _retry_at_s: dict[EntryId, float] = field(default_factory=dict)
    _runs: dict[EntryId, Run] = field(default_factory=dict)
    _sequence: Iterator[int] = field(default_factory=count)
    _was_half: bool = False

    # What the dead-letter topic says

    def restore(self, records: Iterable[Record], monotonic_s: float, wall_ms: int) -> None:
        """Read what a dead-letter partition holds. Of several versions of an entry the last one given is its state; a
        null value is its end.

        Raises `FormatError` for an entry of another format version."""
        newest: dict[bytes, Entry | Record] = {}
        for record in records:
            key = record.key
            if key is None:
                continue
            if record.value is None:
                newest.pop(key, None)
                continue
            entry = entry_of(record)
            newest[key] = record if entry.state.is_marker else entry
        lanes: dict[bytes, list[int]] = {}
        for found in newest.values():
            if isinstance(found, Record):
                self._mark(found)
                continue
            self._keep(found)
            if self._has_lane(found):
                lanes.setdefault(found.key or b"", []).append(found.offset)
        for key, offsets in lanes.items():
            self._lanes[key] = sorted(offsets)
            self._longest_lane = max(self._longest_lane, len(offsets))
        for entry in self._entries.values():
            # A clock that is behind the broker's must not lengthen the wait.
            left_ms = min(max(entry.appended_ms + entry.retry_after_ms - wall_ms, 0), entry.retry_after_ms)
            self._schedule_new(entry, monotonic_s + left_ms / 1000)

    # Reading

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_empty(self) -> bool:
        """The happy path asks this once a batch and partition: neither entries nor markers."""
        return not self._entries and not self._markers

    def get(self, entry_id: EntryId) -> Entry | None:
        return self._entries.get(entry_id)

    def has_met(self, entry_id: EntryId) -> bool:
        """It is unresolved, or a person has decided about it not long ago."""
        return entry_id in self._entries or entry_id in self._markers

    def run_of(self, entry_id: EntryId) -> Run | None:
        return self._runs.get(entry_id)

    def holds(self, record: Record) -> bool:
        """The record, read again after a rewind, has an unresolved entry, or a person has decided about it."""
        if EntryId(self.topic_id, record.offset) in self._entries:
            return True
        return bool(self._markers) and parsed_headers(record).identity in self._marked

    def blocking(self, record: Record) -> int | None:
        """Origin offset of the entry that the record has to wait for, or None. A null key waits for nothing."""
        if self.order != "park" or record.key is None:
            return None
        lane = self._lanes.get(record.key)
        return lane[0] if lane else None

    def blocked(self, records: Sequence[Record]) -> list[bool]:
        """Which of these live records, in log order, are not attempted: `holds` and `blocking`, for a run of them."""
        if self._markers:
            return [self.holds(record) or self.blocking(record) is not None for record in records]
        lanes, entries, topic_id = self._lanes if self.order == "park" else {}, self._entries, self.topic_id
        if records[0].offset > self._last_offset:
            return [record.key in lanes for record in records]
        return [record.key in lanes or (topic_id, record.offset) in entries for record in records]

    def older(self, key: bytes | None, offset: int) -> list[Entry]:
        """Unresolved entries of the key from before that offset, for `supersede`."""
        lane = self._lanes.get(key) if key is not None else None
        return [self._entries[EntryId(self.topic_id, o)] for o in lane or () if o < offset]

    def is_ordered(self, entry: Entry) -> bool:
        """Whether nothing of its key has taken effect after it."""
        return self.order == "park" and self._has_lane(entry)

    def is_held_up(self, entry_id: EntryId) -> bool:
        """Whether its turn cannot come by itself: the head of its lane waits for a person or for a later time."""
        entry = self._entries[entry_id]
        if self._is_head(entry):
            return False
        head_id = EntryId(self.topic_id, self._lanes[entry.key or b""][0])
        return head_id not in self._runs and self._entries[head_id].state is not State.WAITING

    def room(self, key: bytes | None = None) -> int:
        """How many more entries may be parked, of this key where one is given; 0 = at the cap."""
        if self.size_bytes >= self.caps.bytes:
            return 0
        room = self.caps.entries - len(self._entries)
        if key is not None:
            room = min(room, self.caps.entries_per_key - len(self._lanes.get(key, ())))
        return max(room, 0)

    def has_room_for(self, count: int) -> bool:
        """Whether so many more entries may be parked, even if all were of the key that has most. May say no too often:
        once a lane was long, for as long as there are lanes."""
        return min(self.room(), self.caps.entries_per_key - self._longest_lane) >= count

    def passed_half_of_caps(self) -> bool:
        """True once, when half of what may be unresolved is; again after it was less."""
        is_half = len(self._entries) * 2 > self.caps.entries or self.size_bytes * 2 > self.caps.bytes
        passed, self._was_half = is_half and not self._was_half, is_half
        return passed

    def due(self, now_s: float, limit: int) -> list[Entry]:
        """Entries to run now, at most `limit`: lanes whole from their heads on, as far as they may run. A peek: what
        did not come to an end is due again."""
        taken: list[Entry] = []
        again: dict[EntryId, tuple[float, int, EntryId, int]] = {}
        while self._due and self._due[0][0] <= now_s and len(taken) < limit:
            item = heapq.heappop(self._due)
            _, _, entry_id, version = item
            entry = self._entries.get(entry_id)
            if entry is None or entry.version != version or entry_id in again or not self._is_head(entry):
                continue
            run = self._runs.get(entry_id)
            if run is not None and not run.pace.allows(now_s):
                again[entry_id] = (run.pace.next_s, next(self._sequence), entry_id, version)
                continue
            lane = self._lane_from(entry, now_s, min(limit - len(taken), PER_KEY_SHARE))
            if lane:
                again[entry_id] = item
                taken += self._paced(lane, run, now_s)
        for item in again.values():
            heapq.heappush(self._due, item)
        if self.order == "supersede":  # what is newer has the last word on its key
            taken.sort(key=lambda entry: entry.offset)
        return taken

    def has_due(self, now_s: float) -> bool:
        """Whether `due` may have something; what turns out not to run is forgotten by it."""
        return bool(self._due) and self._due[0][0] <= now_s

    def covers(self, key: bytes | None, taken: set[EntryId]) -> bool:
        """Whether a whole lane is among what runs in this batch, so that live records of the key may follow it."""
        lane = self._lanes.get(key or b"")
        return lane is None or all(EntryId(self.topic_id, offset) in taken for offset in lane)

    def expired_markers(self, wall_ms: int, limit: int) -> list[Entry]:
        markers = (m for m, _ in self._markers.values() if m.appended_ms + MARKER_LIFETIME_MS < wall_ms)
        return [marker for marker, _ in zip(markers, range(limit), strict=False)]

    # Changes, each after its commit

    def put(self, entry: Entry, monotonic_s: float) -> None:
        """A new entry, or a new version of one. A run that was ordered for it is over."""
        entry_id = EntryId(entry.topic_id, entry.offset)
        known = self._entries.get(entry_id)
        if known is not None:
            self.size_bytes -= _size(known)
            self._runs.pop(entry_id, None)
        self._keep(entry)
        if known is None and self._has_lane(entry):
            self._enqueue(entry)
        self._schedule_new(entry, monotonic_s + entry.retry_after_ms / 1000)

    def remove(self, entry_id: EntryId, monotonic_s: float) -> None:
        """Resolved. What waited behind it becomes the head of its lane, in the same job if there was one."""
        entry = self._entries.pop(entry_id, None)
        run = self._runs.pop(entry_id, None)
        self._retry_at_s.pop(entry_id, None)
        if entry is None:
            return
        self.size_bytes -= _size(entry)
        lane = self._lanes.get(entry.key or b"") if self._has_lane(entry) else None
        if lane is None:
            return
        if lane[0] == entry.offset:
            del lane[0]
        else:
            lane.remove(entry.offset)
        if not lane:
            del self._lanes[entry.key or b""]
            if not self._lanes:
                self._longest_lane = 0
            return
        head_id = EntryId(self.topic_id, lane[0])
        head = self._entries[head_id]
        if run is not None and head.state is State.WAITING:
            self._runs.setdefault(head_id, run)
        waits = head_id not in self._runs
        self._schedule(head, max(monotonic_s, self._retry_at_s.get(head_id, 0.0) if waits else 0.0))

    def mark(self, marker: Entry, identity: Identity) -> None:
        """A decided record leaves a body-less marker."""
        self.unmark(marker)
        self._markers[EntryId(marker.topic_id, marker.offset)] = marker, identity
        self._marked[identity] += 1

    def unmark(self, marker: Entry) -> None:
        _, identity = self._markers.pop(EntryId(marker.topic_id, marker.offset), (marker, None))
        if identity is None:
            return
        self._marked[identity] -= 1
        if not self._marked[identity]:
            del self._marked[identity]

    def order_run(self, entry_id: EntryId, run: Run, monotonic_s: float) -> None:
        """An operator wants it run now. It is, once it is the head of its lane."""
        self._runs[entry_id] = run
        self._schedule(self._entries[entry_id], monotonic_s)

    def cancel_run(self, entry_id: EntryId) -> None:
        self._runs.pop(entry_id, None)

    # Inside

    def _has_lane(self, entry: Entry) -> bool:
        return entry.key is not None and entry.topic_id == self.topic_id and self.order in ("park", "supersede")

    def _keep(self, entry: Entry) -> None:
        self._entries[EntryId(entry.topic_id, entry.offset)] = entry
        self.size_bytes += _size(entry)
        if entry.topic_id == self.topic_id and entry.offset > self._last_offset:
            self._last_offset = entry.offset

    def _mark(self, record: Record) -> None:
        self.mark(entry_of(record), parsed_headers(original_of(record)).identity)

    def _enqueue(self, entry: Entry) -> None:
        lane = self._lanes.setdefault(entry.key or b"", [])
        insort(lane, entry.offset)
        self._longest_lane = max(self._longest_lane, len(lane))

    def _is_head(self, entry: Entry) -> bool:
        if self.order != "park" or not self._has_lane(entry):
            return True
        return self._lanes[entry.key or b""][0] == entry.offset

    def _may_run(self, entry: Entry, now_s: float) -> bool:
        """Once it is the head. A retry's time is in the schedule; here only what never runs by itself is held."""
        entry_id = EntryId(entry.topic_id, entry.offset)
        if entry_id in self._runs or self._waits_here(entry):
            return True
        return entry.state is State.RETRYING and self._retry_at_s.get(entry_id, 0.0) <= now_s

    def _waits_here(self, entry: Entry) -> bool:
        """What waited in a topic that was made again has lost its lane, and with it the head that it waited for."""
        return entry.state is State.WAITING and entry.topic_id == self.topic_id

    def _paced(self, lane: list[Entry], run: Run | None, now_s: float) -> list[Entry]:
        """As much of a lane as the pace of its job allows."""
        if run is None:
            return lane
        allowed = []
        for entry in lane:
            if not run.pace.allows(now_s):
                break
            run.pace.spend(now_s)
            allowed.append(entry)
        return allowed

    def _lane_from(self, head: Entry, now_s: float, limit: int) -> list[Entry]:
        if self.order != "park" or not self._has_lane(head):
            return [head] if self._may_run(head, now_s) else []
        found: list[Entry] = []
        for offset in self._lanes[head.key or b""]:
            entry = self._entries[EntryId(self.topic_id, offset)]
            if len(found) >= limit or not self._may_run(entry, now_s):
                break
            found.append(entry)
        return found

    def _schedule_new(self, entry: Entry, at_s: float) -> None:
        if entry.state is State.RETRYING:
            self._retry_at_s[EntryId(entry.topic_id, entry.offset)] = at_s
        self._schedule(entry, at_s)

    def _schedule(self, entry: Entry, at_s: float) -> None:
        """Heads only: what waits in a lane is scheduled when it becomes its head."""
        entry_id = EntryId(entry.topic_id, entry.offset)
        runs_by_itself = entry.state is State.RETRYING or self._waits_here(entry)
        if (runs_by_itself or entry_id in self._runs) and self._is_head(entry):
            heapq.heappush(self._due, (at_s, next(self._sequence), entry_id, entry.version))


def _size(entry: Entry) -> int:
    return entry.size_bytes + _ENTRY_OVERHEAD_BYTES
