"""Which registers of a plan are set where, and which anybody reads: the rest need no code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from heddle.wire.plan import (
    UNSET,
    AmongNumbers,
    AmongTexts,
    Argument,
    Boolean,
    Content,
    Copy,
    Decimal,
    Each,
    Enum,
    Fold,
    Holds,
    Integer,
    JoinPart,
    Key,
    Lookup,
    Number,
    Pick,
    Picked,
    Present,
    Record,
    Spliced,
    Text,
    Union,
    Walk,
    WirePlan,
)


def nodes(part: Any) -> Iterator[Any]:
    """Every node of a plan from here on down, this one first."""
    waiting = [part]
    while waiting:
        current = waiting.pop()
        if isinstance(current, tuple):
            waiting.extend(reversed(current))
        elif is_dataclass(current):
            yield current
            waiting.extend(getattr(current, field.name) for field in reversed(fields(current)))


@dataclass(frozen=True, slots=True)
class Registers:
    """Marks and numbers, by number."""

    marks: frozenset[int]
    numbers: frozenset[int]

    def __and__(self, other: Registers) -> Registers:
        return Registers(self.marks & other.marks, self.numbers & other.numbers)

    def __sub__(self, other: Registers) -> Registers:
        return Registers(self.marks - other.marks, self.numbers - other.numbers)

    def names(self) -> list[str]:
        """Their variables, in one order."""
        return [f"m{mark}" for mark in sorted(self.marks)] + [f"n{number}" for number in sorted(self.numbers)]


def set_in(walk: Any) -> Registers:
    """What a walk, or a part of one, sets."""
    marks: set[int] = set()
    numbers: set[int] = set()
    for node in nodes(walk):
        marks.update(getattr(node, name, UNSET) for name in ("begin", "end", "content"))
        if not isinstance(node, Number | Each):
            numbers.update((getattr(node, "number", UNSET), getattr(node, "count", UNSET)))
    return Registers(frozenset(marks - {UNSET}), frozenset(numbers - {UNSET}))


def read_in(part: Any) -> Registers:
    """What conditions, emits, folds, arguments or a key read."""
    marks: set[int] = set()
    numbers: set[int] = set()
    for node in nodes(part):
        match node:
            case Number() | Picked() | Pick() | AmongNumbers():
                numbers.add(node.number)
            case Present():
                marks.add(node.mark)
            case Content() | AmongTexts() | Lookup():
                marks.update((node.content, node.end))
            case Copy() | Argument():
                marks.update((node.first, node.last))
            case JoinPart():
                marks.add(node.present)
            case Each():
                marks.add(node.begin)
    return Registers(frozenset(marks - {UNSET}), frozenset(numbers))


def tested_in(plan: WirePlan) -> frozenset[int]:
    """Marks that somebody asks whether they are set: these alone must be unset where they are not."""
    found: set[int] = set()
    for node in nodes(plan):
        match node:
            case Present():
                found.add(node.mark)
            case JoinPart():
                found.add(node.present)
            case Argument():
                found.add(node.first)
    return frozenset(found - {UNSET})


def calls_used_often(plan: WirePlan) -> frozenset[int]:
    """Calls that are mentioned more than once."""
    uses = Counter(node.call for node in nodes(plan) if isinstance(node, Holds | Spliced | Key))
    return frozenset(call for call, count in uses.items() if count > 1 and call != UNSET)


def entity_mark(plan: WirePlan) -> int:
    """The content of the text that alone is the entity of the key, where every record has it. UNSET: no such text."""
    match plan.key.entities:
        case ((Content(content, end),),):
            found = any(isinstance(node, Text) and (node.content, node.end) == (content, end) for node in _always(plan))
            return content if found else UNSET
    return UNSET


def _always(plan: WirePlan) -> Iterator[Any]:
    """What every record has."""
    waiting: list[Any] = [plan.walk]
    while waiting:
        current = waiting.pop()
        yield current
        if isinstance(current, Record):
            waiting.extend(current.fields)


def reaches_out(plan: WirePlan) -> bool:
    """Whether items of arrays write, or walk, what is not their own."""
    for each in (node for node in nodes(plan.emits) if isinstance(node, Each)):
        own = frozenset[int]().union(*(set_in(inner.items).marks for inner in nodes(each) if isinstance(inner, Each)))
        if not read_in((each.where, each.emits)).marks <= own:
            return True
    return False


def folds_of(walk: Any) -> tuple[Fold, ...]:
    """Those of all arrays in a walk."""
    return tuple(node for node in nodes(walk) if isinstance(node, Fold))


def set_often(plan: WirePlan) -> set[int]:
    """Marks that are set in several places: no one position is theirs."""
    walked = (node for node in nodes(plan) if isinstance(node, Walk))
    times = Counter(getattr(node, name, UNSET) for node in walked for name in ("begin", "end", "content"))
    return {mark for mark, count in times.items() if count > 1 and mark != UNSET}


def index_numbers(plan: WirePlan) -> frozenset[int]:
    """Numbers that are never negative."""
    numbers: dict[int, bool] = {}
    for node in nodes(plan):
        match node:
            case Enum() | Union() | Boolean():
                numbers[node.number] = numbers.get(node.number, True)
            case Integer() | Decimal() | Fold():
                numbers[node.number] = False
    return frozenset(number for number, index in numbers.items() if index)
