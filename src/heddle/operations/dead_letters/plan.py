"""What an operator is about to ask of a subscription's owners: frozen entry by entry, with a hash over all of it.

A plan is closed over heads: where order holds, a waiting entry cannot run before the earlier entries of its key, so
they come along. What waits behind the last target of a key runs by itself once the key is free; it is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from heddle.delivery.command import (
    MAX_SLICE_BYTES,
    MAX_SLICE_ENTRIES,
    Action,
    PlanHeader,
    Slice,
    Target,
    plan_hash,
)
from heddle.delivery.envelope import State
from heddle.integration import Component, Flow
from heddle.mapping import Mapping as MappingRules
from heddle.operations.dead_letters.entries import EntryView
from heddle.project import Project, sources_digest

_ACCEPTED = {
    Action.REPLAY: frozenset({State.DEAD, State.RETRYING, State.WAITING}),
    Action.DISCARD: frozenset({State.DEAD, State.RETRYING, State.WAITING, State.UNKNOWN}),
    Action.EDIT: frozenset({State.DEAD, State.RETRYING, State.WAITING}),
    Action.SETTLE: frozenset({State.UNKNOWN}),
}
_UNSETTLED = "nobody knows yet whether its target has acted: `heddle dlq settle` it first"

NOT_THERE = -1
"""The version of an entry that a plan would make."""

Bodies = Mapping["Place", bytes | None]


class Place(NamedTuple):
    """An entry within its subscription."""

    topic_id: str
    partition: int
    offset: int


class Planned(NamedTuple):
    """One target as the plan saw it. `came_along`: not selected, but an earlier entry of a selected one's key."""

    place: Place
    version: int
    entry_id: str
    state: State
    key: str | None
    failure_class: str
    code: str
    fingerprint: str
    since_ms: int
    came_along: bool = False


class LeftOut(NamedTuple):
    """A selected entry that the action cannot be done with."""

    entry_id: str
    state: State
    reason: str


class Changed(NamedTuple):
    """A target that is not any more what the plan saw. `now` "" = resolved."""

    entry_id: str
    then: str
    now: str


class Group(NamedTuple):
    """Targets that failed alike."""

    failure_class: str
    code: str
    fingerprint: str
    entries: int


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """`followers` wait behind the targets, and run once these are resolved. `most_runs`: of the fullest partition,
    followers included, which is what a rate limit is about."""

    header: PlanHeader
    slices: tuple[Slice, ...]
    targets: tuple[Planned, ...]
    followers: int = 0
    most_runs: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def hash(self) -> str:
        return plan_hash(self.header, self.slice_hashes)

    @property
    def slice_hashes(self) -> tuple[str, ...]:
        return tuple(part.hash for part in self.slices)

    @property
    def heads(self) -> int:
        """Targets that nobody selected."""
        return sum(target.came_along for target in self.targets)

    @property
    def keys(self) -> int:
        """Different keys of the targets; a target without one counts as one."""
        keyed = {(target.place.partition, target.key) for target in self.targets if target.key is not None}
        return len(keyed) + sum(target.key is None for target in self.targets)

    @property
    def estimated_s(self) -> float | None:
        """At the rate limit; None without one."""
        rate = self.header.rate_per_s
        return self.most_runs / rate if rate and runs(self.header) else None

    @property
    def groups(self) -> list[Group]:
        """By what failed, largest first."""
        found: dict[tuple[str, str, str], int] = {}
        for target in self.targets:
            alike = (target.failure_class, target.code, target.fingerprint)
            found[alike] = found.get(alike, 0) + 1
        return sorted((Group(*alike, count) for alike, count in found.items()), key=lambda g: (-g.entries, g))


def runs(header: PlanHeader) -> bool:
    """Whether the plan's targets are tried again at once."""
    return header.action is Action.REPLAY or header.run


def releases(header: PlanHeader) -> bool:
    """Whether what waits behind a target may run once the plan has succeeded."""
    return runs(header) or header.action is Action.DISCARD or header.settle_as == "applied"


def make_plan(
    header: PlanHeader, chosen: Sequence[EntryView], every: Iterable[EntryView], *,
    topic_id: str, ordered: bool, canary: int = 0, bodies: Bodies | None = None,
) -> ReplayPlan:  # fmt: skip
    """`chosen` of `every` entry of one subscription; `topic_id` is its input topic's present one, `ordered` whether
    later events of a key wait for earlier ones. `canary`: so many targets come in slices of their own, first. The same
    entries give the same plan, whoever makes it."""
    lanes = _Lanes(every if ordered else (), topic_id)
    taken, left_out = _eligible(header, chosen, lanes)
    selected = {place_of(view) for view in taken}
    if header.action is Action.REPLAY:
        taken += [view for view in lanes.ahead_of(taken) if place_of(view) not in selected]
    targets = tuple(_planned(view, place_of(view) not in selected) for view in sorted(taken, key=place_key))
    followers = list(lanes.behind(targets)) if releases(header) else []
    return ReplayPlan(
        header,
        tuple(_slices(targets, canary, bodies)),
        targets,
        len(followers),
        _most_runs(targets, followers),
        tuple(sorted(left_out)),
    )


def changes(plan: ReplayPlan, present: Iterable[EntryView]) -> list[Changed]:
    """What happened to the plan's targets since. `present`: the entries of their partitions as they are now."""
    now = {place_of(view): view for view in present}
    changed = []
    for target in plan.targets:
        view = now.get(target.place)
        if (NOT_THERE if view is None else view.version) != target.version:
            then = "not there" if target.version == NOT_THERE else target.state
            changed.append(Changed(target.entry_id, then, _told(view)))
    return changed


def handler_digest(component: Component, project: Project) -> str:
    """Names the code that would run, as the worker names it."""
    if isinstance(component, Flow) and isinstance(component.do, MappingRules):
        return component.do.digest
    return sources_digest(project.root)


def place_of(view: EntryView) -> Place:
    return Place(view.topic_id, view.partition, view.offset)


def place_key(view: EntryView) -> tuple[int, int, str]:
    """Lanes run by offset within a partition."""
    return view.partition, view.offset, view.topic_id


class _Lanes:
    """Who waits behind whom: unresolved entries of a key by offset. Entries of another topic id are in no lane."""

    def __init__(self, every: Iterable[EntryView], topic_id: str) -> None:
        self._topic_id = topic_id
        self._lanes: dict[tuple[int, bytes], list[EntryView]] = {}
        for view in every:
            if view.key is not None and view.topic_id == topic_id and not view.state.is_marker:
                self._lanes.setdefault((view.partition, view.key), []).append(view)
        for lane in self._lanes.values():
            lane.sort(key=lambda view: view.offset)

    def ahead(self, view: EntryView) -> list[EntryView]:
        """Earlier entries of its key."""
        if view.key is None or view.topic_id != self._topic_id:
            return []
        lane = self._lanes.get((view.partition, view.key), ())
        return list(takewhile(lambda other: other.offset < view.offset, lane))

    def ahead_of(self, views: Iterable[EntryView]) -> list[EntryView]:
        """Without doubles: of each key, what comes before its last."""
        last = {(view.partition, view.key): view for view in sorted(views, key=place_key)}
        return [earlier for view in last.values() for earlier in self.ahead(view)]

    def behind(self, targets: Iterable[Planned]) -> Iterator[EntryView]:
        """What is released when the targets are resolved: of each lane that begins with targets, the rest."""
        meant = {target.place for target in targets}
        for lane in self._lanes.values():
            if lane and place_of(lane[0]) in meant:
                yield from (view for view in lane if place_of(view) not in meant)


def _eligible(header: PlanHeader, chosen: Iterable[EntryView], lanes: _Lanes) -> tuple[list[EntryView], list[LeftOut]]:
    taken: dict[Place, EntryView] = {}
    left_out = []
    for view in chosen:
        reason = _refusal(header, view, lanes)
        if reason:
            left_out.append(LeftOut(view.entry_id, view.state, reason))
        else:
            taken[place_of(view)] = view
    return list(taken.values()), left_out


def _refusal(header: PlanHeader, view: EntryView, lanes: _Lanes) -> str:
    if view.state not in _ACCEPTED[header.action]:
        if view.state is State.UNKNOWN:
            return _UNSETTLED
        return f"it is {view.state}: {header.action} takes {', '.join(sorted(_ACCEPTED[header.action]))}"
    if header.action is Action.REPLAY:
        for earlier in lanes.ahead(view):
            if earlier.state is State.UNKNOWN:
                return f"it waits behind {earlier.entry_id}; {_UNSETTLED}"
    return ""


def _planned(view: EntryView, came_along: bool) -> Planned:
    return Planned(
        place_of(view), view.version, view.entry_id, view.state, view.key_text, view.failure_class, view.code,
        view.fingerprint, view.since_ms, came_along,
    )  # fmt: skip


def _most_runs(targets: Iterable[Planned], followers: Iterable[EntryView]) -> int:
    runs: dict[int, int] = {}
    for partition in [*(t.place.partition for t in targets), *(f.partition for f in followers)]:
        runs[partition] = runs.get(partition, 0) + 1
    return max(runs.values(), default=0)


def _slices(targets: Sequence[Planned], canary: int, bodies: Bodies | None) -> Iterator[Slice]:
    for part, is_canary in ((targets[:canary], True), (targets[canary:], False)):
        by_partition: dict[int, list[Planned]] = {}
        for target in part:
            by_partition.setdefault(target.place.partition, []).append(target)
        for partition, listed in by_partition.items():
            for chunk in _chunks(listed, bodies or {}):
                named = tuple(Target(t.place.topic_id, t.place.offset, t.version) for t in chunk)
                told = () if bodies is None else tuple(bodies[t.place] for t in chunk)
                yield Slice(partition, named, told, canary=is_canary)


def _chunks(targets: Iterable[Planned], bodies: Bodies) -> Iterator[list[Planned]]:
    chunk: list[Planned] = []
    size = 0
    for target in targets:
        body_bytes = len(bodies.get(target.place) or b"")
        if chunk and (len(chunk) == MAX_SLICE_ENTRIES or size + body_bytes > MAX_SLICE_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(target)
        size += body_bytes
    if chunk:
        yield chunk


def _told(view: EntryView | None) -> str:
    if view is None:
        return ""
    runs_told = f", {view.attempts} attempts" if view.attempts else ""
    return f"{view.state}{runs_told}"
