"""What a plan's entries would do now: the present handler in this process, its effects discarded.

A flow or a source runs as in its worker, and what it emits is decoded instead of written. A sink that can say what it
would write is asked to; no effect is made. The registry is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from heddle.broker.log import Reader, Record
from heddle.delivery.envelope import entry_of, original_of
from heddle.delivery.revision import as_handled
from heddle.errors import Failure, HeddleError, TransientError
from heddle.operations.dead_letters.differences import Difference, differences
from heddle.operations.dead_letters.entries import Shelf
from heddle.operations.dead_letters.plan import Bodies, Place, Planned, ReplayPlan

SHOWN = 20
BATCH = 500
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One event that would be emitted, or one row that would be written: where, and what is different there.

    `was` is `ABSENT` when there is nothing yet, or nothing among what was looked at."""

    target: str
    key: str
    was: Any
    now: Any

    @property
    def differences(self) -> list[Difference]:
        return differences(self.was, self.now)


class Tried(NamedTuple):
    """One entry. `outcome`: how it would settle (emitted, applied, duplicate, superseded), or fails, waits (an earlier
    entry of its key fails), gone (it is resolved by now), unclear (`obstacle` says why)."""

    entry_id: str
    outcome: str
    effects: tuple[Effect, ...] = ()
    failure: Failure | None = None
    obstacle: str = ""


class Cause(NamedTuple):
    """What entries would fail with again."""

    failure_class: str
    code: str
    path: str


@dataclass(slots=True)
class DryRun:
    """All entries are counted; of the first `SHOWN` it is told what they would do. `interrupted`: why the rest was
    not tried."""

    outcomes: dict[str, int] = field(default_factory=dict)
    effects: int = 0
    causes: dict[Cause, int] = field(default_factory=dict)
    shown: list[Tried] = field(default_factory=list)
    interrupted: HeddleError | None = None

    @property
    def fails(self) -> int:
        return self.outcomes.get("fails", 0)

    def add(self, tried: Tried) -> None:
        self.outcomes[tried.outcome] = self.outcomes.get(tried.outcome, 0) + 1
        self.effects += len(tried.effects)
        if tried.failure is not None:
            cause = Cause(tried.failure.failure_class, tried.failure.code, tried.failure.path)
            self.causes[cause] = self.causes.get(cause, 0) + 1
        if len(self.shown) < SHOWN:
            self.shown.append(tried)


class Done(NamedTuple):
    """How a record would settle, and what comes of it. `obstacle`: why that cannot be said."""

    outcome: str
    effects: tuple[Effect, ...] = ()
    obstacle: str = ""


Answer = Done | Failure | None
"""None: not attempted, because an earlier record of its key failed in this very batch."""


class Runner(Protocol):
    """Runs records with the present code. `run` answers for as many as were attempted, in order."""

    def run(self, records: Sequence[Record]) -> tuple[list[Answer], HeddleError | None]: ...


def dry_run(plan: ReplayPlan, runner: Runner, reader: Reader, shelf: Shelf, bodies: Bodies | None = None) -> DryRun:
    """Each target once, in the order of its owner. `bodies`: an edit's new ones, in place of what is there."""
    result = DryRun()
    held: set[tuple[int, bytes]] = set()
    ordered = shelf.subscription.order == "park"
    for targets in _batches(plan.targets):
        records = _originals(targets, reader, shelf, bodies)
        for target in targets:
            if target.place not in records:
                result.add(Tried(target.entry_id, "gone"))
        waiting = [(target, records[target.place]) for target in targets if target.place in records]
        while waiting and result.interrupted is None:
            waiting = _round(waiting, runner, result, held if ordered else None)
        if result.interrupted is not None:
            return result
    return result


def _round(
    waiting: list[tuple[Planned, Record]], runner: Runner, result: DryRun, held: set[tuple[int, bytes]] | None
) -> list[tuple[Planned, Record]]:
    """Run what is not held back by a key; returns what a deadline cut off."""
    free = []
    for target, record in waiting:
        if held is not None and record.key is not None and (record.partition, record.key) in held:
            result.add(Tried(target.entry_id, "waits"))
        else:
            free.append((target, record))
    if not free:
        return []
    answers, result.interrupted = runner.run([record for _, record in free])
    if not answers and result.interrupted is None:
        result.interrupted = TransientError("the handler did not begin a record in time")
    for (target, record), answer in zip(free, answers, strict=False):
        if isinstance(answer, Failure):
            result.add(Tried(target.entry_id, "fails", failure=answer))
            if held is not None and record.key is not None:
                held.add((record.partition, record.key))
        elif answer is None:
            result.add(Tried(target.entry_id, "waits"))
        else:
            result.add(Tried(target.entry_id, answer.outcome, answer.effects, obstacle=answer.obstacle))
    return free[len(answers) :]


def _batches(targets: Sequence[Planned]) -> Iterator[Sequence[Planned]]:
    by_partition: dict[int, list[Planned]] = {}
    for target in targets:
        by_partition.setdefault(target.place.partition, []).append(target)
    for listed in by_partition.values():
        yield from (listed[start : start + BATCH] for start in range(0, len(listed), BATCH))


def _originals(targets: Sequence[Planned], reader: Reader, shelf: Shelf, bodies: Bodies | None) -> dict[Place, Record]:
    versions = sorted(target.version for target in targets)
    found = reader.fetch(shelf.subscription.dead_letter_topic, targets[0].place.partition, versions, TIMEOUT_S)
    ordered = shelf.subscription.order == "park"
    records = {}
    for target in targets:
        record = found.get(target.version)
        if record is not None and record.value is not None:
            original, edit = original_of(record), entry_of(record).edit
            if bodies is not None:
                original, edit = original._replace(value=bodies[target.place]), edit + 1
            is_ordered = ordered and original.key is not None and target.place.topic_id == shelf.topic_id
            records[target.place] = as_handled(original, edit, is_ordered=is_ordered)
    return records
