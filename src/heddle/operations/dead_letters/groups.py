"""Entries that have something in common, counted: what on-call looks at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from heddle.delivery.envelope import State
from heddle.operations.dead_letters.entries import EntryView


class GroupBy(StrEnum):
    FINGERPRINT = "fingerprint"
    CLASS = "class"
    KEY = "key"
    CONTRACT = "contract"


@dataclass(slots=True)
class Group:
    """`value`: what its entries share, "" for none. Times in ms: `oldest_ms` the first failure of the entry that is
    unresolved for longest, `last_ms` the newest append. `example`: the newest entry that has run; `keys`: how many
    different ones."""

    subscription: str
    value: str
    by_state: Counter[State] = field(default_factory=Counter)
    oldest_ms: int = 0
    last_ms: int = 0
    example: EntryView | None = None
    _keys: set[bytes | None] = field(default_factory=set)

    @property
    def count(self) -> int:
        return self.by_state.total()

    @property
    def keys(self) -> int:
        return len(self._keys)

    def add(self, view: EntryView) -> None:
        self.by_state[view.state] += 1
        self.oldest_ms = min(self.oldest_ms or view.since_ms, view.since_ms)
        self.last_ms = max(self.last_ms, view.appended_ms)
        self._keys.add(view.key)
        if self.example is None or _tells_more(view, self.example):
            self.example = view


def group(views: Iterable[EntryView], by: GroupBy) -> list[Group]:
    """The largest first. An entry that waits counts with the head of its lane, whose failure is what it waits for;
    where that head is not among `views` it counts as a group without a value."""
    views = list(views)
    cause_of = _VALUES[by]
    heads = _heads(views) if by in (GroupBy.FINGERPRINT, GroupBy.CLASS) else {}
    groups: dict[tuple[str, str], Group] = {}
    for view in views:
        cause = heads.get(_lane(view), view) if view.state is State.WAITING else view
        place = (view.subscription, cause_of(cause))
        if place not in groups:
            groups[place] = Group(*place)
        groups[place].add(view)
    return sorted(groups.values(), key=lambda g: (-g.count, g.subscription, g.value))


def _heads(views: Iterable[EntryView]) -> dict[tuple[object, ...], EntryView]:
    """The first entry of each lane, if it has run."""
    heads: dict[tuple[object, ...], EntryView] = {}
    for view in views:
        if view.state is not State.WAITING and not view.state.is_marker:
            other = heads.get(_lane(view))
            if other is None or view.offset < other.offset:
                heads[_lane(view)] = view
    return heads


def _lane(view: EntryView) -> tuple[object, ...]:
    return view.subscription, view.partition, view.topic_id, view.key


def _tells_more(view: EntryView, than: EntryView) -> bool:
    return (bool(view.fingerprint), view.appended_ms) > (bool(than.fingerprint), than.appended_ms)


_VALUES: dict[GroupBy, Callable[[EntryView], str]] = {
    GroupBy.FINGERPRINT: lambda view: view.fingerprint,
    GroupBy.CLASS: lambda view: view.failure_class,
    GroupBy.KEY: lambda view: view.key_text or "",
    GroupBy.CONTRACT: lambda view: view.contract,
}
