"""One entry by its name, and the lane that it stands in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from heddle.broker.log import Reader
from heddle.broker.newest import newest_of_partition
from heddle.errors import FailureClass, FormatError, HeddleError, UsageError
from heddle.operations.dead_letters.entries import EntryView, OnProgress, Shelf, view_of
from heddle.operations.dead_letters.select import EntryName


class NoSuchEntryError(HeddleError):
    """No unresolved entry has this name."""

    failure_class = FailureClass.OURS
    code = "no-such-entry"


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """`view` keeps its record. `before` and `behind`: unresolved entries of the same key, in order of their origin;
    empty where keys hold nothing back."""

    shelf: Shelf
    view: EntryView
    before: tuple[EntryView, ...] = ()
    behind: tuple[EntryView, ...] = ()


def find_entry(
    reader: Reader, shelves: Iterable[Shelf], name: EntryName, on_progress: OnProgress | None = None
) -> FoundEntry:
    """An entry of another topic id is found without it, if only one comes into question.

    Raises `NoSuchEntryError`, or `UsageError` when several have that name."""
    partition = int(name.entry_id.partition("-")[0])
    found = [
        each
        for shelf in shelves
        if partition < shelf.partitions
        for each in _in_partition(reader, shelf, partition, name.entry_id, on_progress)
    ]
    exact = [each for each in found if each.view.entry_id == name.entry_id] or found
    if not exact:
        where = f"{name.subscription}/" if name.subscription else ""
        raise NoSuchEntryError(
            f"no entry {where}{name.entry_id}",
            hint="it is resolved, or never was: `heddle dlq list` shows what is there",
        )
    if len(exact) > 1:
        names = ", ".join(each.view.name for each in exact)
        raise UsageError(f"several entries are called {name.entry_id}", hint=f"name one of them: {names}")
    return exact[0]


def _in_partition(
    reader: Reader, shelf: Shelf, partition: int, entry_id: str, on_progress: OnProgress | None
) -> list[FoundEntry]:
    views: list[EntryView] = []
    hits: list[EntryView] = []
    for found in newest_of_partition(reader, shelf.subscription.dead_letter_topic, partition):
        if on_progress is not None:
            on_progress(found.read)
        for record in found.records:
            try:
                view = view_of(record, shelf)
            except FormatError:
                continue  # a name that cannot be read is not the one that was typed
            views.append(view)
            if view.entry_id == entry_id or view.entry_id.startswith(f"{entry_id}@"):
                hits.append(replace(view, record=record))
    return [_with_lane(shelf, hit, views) for hit in hits]


def _with_lane(shelf: Shelf, view: EntryView, views: Sequence[EntryView]) -> FoundEntry:
    in_lane = shelf.subscription.order == "park" and view.topic_id == shelf.topic_id and view.key is not None
    if not in_lane:
        return FoundEntry(shelf, view)
    lane = [v for v in views if v.key == view.key and v.topic_id == view.topic_id and not v.state.is_marker]
    lane.sort(key=lambda v: v.offset)
    return FoundEntry(
        shelf,
        view,
        tuple(v for v in lane if v.offset < view.offset),
        tuple(v for v in lane if v.offset > view.offset),
    )
