"""What `heddle dlq list` reads: a first page from the newest entries, or everything for groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain, islice

from heddle.broker.log import Broker, Reader, Record
from heddle.broker.newest import newest_of_partition
from heddle.delivery.envelope import State
from heddle.errors import FormatError
from heddle.operations.dead_letters.entries import EntryView, OnProgress, Shelf, view_of
from heddle.operations.dead_letters.select import Selection
from heddle.operations.dead_letters.where import ValueOf

COUNTED_RECORDS = 8_000
"""How many records of a subscription are read for the sake of its counts, beyond what its page needs."""
PAGE_READERS, READERS = 4, 2
"""Threads: a page is mostly waiting for the broker, everything is mostly work."""


@dataclass(slots=True)
class Overview:
    """One subscription. Not `complete`: there are at least so many, and they may be older. `unreadable`: entries that
    this version of Heddle cannot read, and why for one of them."""

    subscription: str
    by_state: Counter[State] = field(default_factory=Counter)
    oldest_ms: int = 0
    complete: bool = True
    unreadable: int = 0
    why_unreadable: str = ""

    @property
    def count(self) -> int:
        return self.by_state.total()

    def add(self, view: EntryView) -> None:
        self.by_state[view.state] += 1
        self.oldest_ms = min(self.oldest_ms or view.since_ms, view.since_ms)

    def __iadd__(self, other: Overview) -> Overview:
        self.by_state += other.by_state
        self.oldest_ms = min(self.oldest_ms or other.oldest_ms, other.oldest_ms or self.oldest_ms)
        self.complete = self.complete and other.complete
        self.unreadable += other.unreadable
        self.why_unreadable = self.why_unreadable or other.why_unreadable
        return self


@dataclass(frozen=True, slots=True)
class Page:
    """`entries` are the newest of all that match, newest first; `overviews` one a subscription."""

    overviews: list[Overview]
    entries: list[EntryView]

    @property
    def count(self) -> int:
        return sum(overview.count for overview in self.overviews)

    @property
    def complete(self) -> bool:
        return all(overview.complete for overview in self.overviews)


@dataclass(frozen=True, slots=True)
class Reading:
    """How entries are read and picked. `value_of` decodes payloads for the expression. `on_progress` is told of records
    that were read. Both are called from several threads."""

    broker: Broker
    selection: Selection
    value_of: ValueOf | None = None
    on_progress: OnProgress | None = None

    def page(self, shelves: Sequence[Shelf], limit: int | None = None) -> Page:
        """The newest `limit` entries that match, read backwards and no further than that needs. None: all of them, each
        partition's newest first."""
        overviews = {shelf.subscription.name: Overview(shelf.subscription.name) for shelf in shelves}
        parts = self._parts(shelves, limit)
        for overview, _ in parts:
            overviews[overview.subscription] += overview
        found = [views for _, views in parts]
        if limit is None:
            return Page(list(overviews.values()), list(chain.from_iterable(found)))
        newest = merge(*found, key=lambda view: view.appended_ms, reverse=True)
        return Page(list(overviews.values()), list(islice(newest, limit)))

    def _parts(self, shelves: Sequence[Shelf], limit: int | None) -> list[tuple[Overview, list[EntryView]]]:
        """Partitions side by side."""
        places = [(shelf, partition) for shelf in shelves for partition in range(shelf.partitions)]
        count = READERS if limit is None else PAGE_READERS
        with ThreadPoolExecutor(count) as pool:
            found = pool.map(lambda number: self._some_parts(places[number::count], limit), range(count))
            return [part for parts in found for part in parts]

    def _some_parts(
        self, places: Sequence[tuple[Shelf, int]], limit: int | None
    ) -> list[tuple[Overview, list[EntryView]]]:
        if not places:
            return []
        with closing(self.broker.reader()) as reader:
            return [self._part(reader, shelf, partition, limit) for shelf, partition in places]

    def _part(
        self, reader: Reader, shelf: Shelf, partition: int, limit: int | None
    ) -> tuple[Overview, list[EntryView]]:
        """What matches in one partition, newest first, and its counts."""
        overview, views = Overview(shelf.subscription.name), list[EntryView]()
        enough, read = COUNTED_RECORDS // shelf.partitions, 0
        for found in newest_of_partition(reader, shelf.subscription.dead_letter_topic, partition):
            self._tell(found.read)
            for view in self._matching(found.records, shelf, overview):
                overview.add(view)
                views.append(view)
            read += found.read
            if limit is not None and found.start and len(views) >= limit and read >= enough:
                overview.complete = False
                break
        return overview, views if limit is None else views[:limit]

    def _matching(self, records: Iterable[Record], shelf: Shelf, overview: Overview) -> Iterator[EntryView]:
        for record in records:
            try:
                view = view_of(record, shelf, keep_body=self.selection.needs_records)
            except FormatError as error:
                overview.unreadable += 1
                overview.why_unreadable = f"partition {record.partition}, offset {record.offset}: {error}"
                continue
            if self.selection.matches(view, self.value_of):
                yield view

    def _tell(self, read: int) -> None:
        if self.on_progress is not None:
            self.on_progress(read)
