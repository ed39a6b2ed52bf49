"""The values of one writer's record as places in its bytes, each with the registers that somebody wants of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from typing import Final

from heddle.contracts.resolution import (
    Action,
    ReadArray,
    ReadEnum,
    ReadFixed,
    ReadMap,
    ReadRecord,
    ReadScalar,
    ReadUnion,
)
from heddle.contracts.schema import Logical
from heddle.contracts.values import DAY_US, EPOCH_ORDINAL
from heddle.wire import plan as wire

MAX_PLACES: Final = 5_000
"""Records that share types can unfold to any size; an honest one has some hundred places."""

_MIN_DAY, _MAX_DAY = date.min.toordinal() - EPOCH_ORDINAL, date.max.toordinal() - EPOCH_ORDINAL
_MIN_US, _MAX_US = _MIN_DAY * DAY_US, (_MAX_DAY + 1) * DAY_US - 1
_BOUNDS: Final = {
    "date": (_MIN_DAY, _MAX_DAY),
    "time-millis": (0, DAY_US // 1000 - 1),
    "time-micros": (0, DAY_US - 1),
    "timestamp-millis": (_MIN_US // 1000, _MAX_US // 1000),
    "timestamp-micros": (_MIN_US, _MAX_US),
    "local-timestamp-millis": (_MIN_US // 1000, _MAX_US // 1000),
    "local-timestamp-micros": (_MIN_US, _MAX_US),
}
"""What the codec can make a date or a time of, bounds included."""


class Unplanned(Exception):
    """Why a mapping has no plan for this writer at all."""


class Unlowered(Exception):
    """Why a rule has no instructions, as a clause: it becomes a call."""


@dataclass(slots=True)
class Registers:
    """Hands out registers. Not every one that is asked for gets into the plan (`lower_registers`)."""

    marks: Iterator[int] = field(default_factory=count)
    numbers: Iterator[int] = field(default_factory=count)
    places: int = 0


class Slot:
    """One value as the writer wrote it. Asking for a register is what makes the walk set it.

    `children`: a record's fields in the writer's order, a union's branches, an array's items, a map's values.
    `fields`: a record's children by the contract's names, without those that are dropped."""

    def __init__(self, action: Action, registers: Registers, record: Slot | None = None) -> None:
        registers.places += 1
        if registers.places > MAX_PLACES:
            raise Unplanned(f"the schema unfolds to more than {MAX_PLACES} values")
        self.action = action
        self.record = record
        self.before = record.children[-1] if record is not None and record.children else None
        self.children: list[Slot] = []
        self.fields: dict[str, Slot] = {}
        self.folds: list[wire.Fold] = []
        self._registers = registers
        self._known: dict[str, int] = {}
        match action:
            case ReadRecord(steps=steps):
                for step in steps:
                    self.children.append(Slot(step.action, registers, self))
                    if step.target is not None:
                        self.fields[step.target] = self.children[-1]
            case ReadUnion(branches):
                self.children = [Slot(branch, registers) for branch in branches]
            case ReadArray(inner) | ReadMap(inner):
                self.children = [Slot(inner, registers)]

    def again(self) -> Slot:
        """The same place with registers of its own, for another walk."""
        return Slot(self.action, self._registers)

    @property
    def is_last(self) -> bool:
        """The last field of its record."""
        return self.record is not None and self is self.record.children[-1]

    @property
    def begin(self) -> int:
        """Fields lie side by side: one mark serves as the end of one and the beginning of the next."""
        if self.record is None:
            return self._register("begin", self._registers.marks)
        return self.record.begin if self.before is None else self.before.end

    @property
    def end(self) -> int:
        if self.record is not None and self.is_last:
            return self.record.end
        return self._register("end", self._registers.marks)

    @property
    def content(self) -> int:
        """The mark after a text's length."""
        return self._register("content", self._registers.marks)

    @property
    def number(self) -> int:
        """The value as a whole number, see the walk's operations. Of an array: how many items it has."""
        return self._register("number", self._registers.numbers)

    def fold(self, value: wire.Value) -> int:
        """The number that grows by `value` with each item of this array."""
        for known in self.folds:
            if known.value == value:
                return known.number
        self.folds.append(wire.Fold(next(self._registers.numbers), value))
        return self.folds[-1].number

    def _register(self, name: str, numbers: Iterator[int]) -> int:
        if name not in self._known:
            self._known[name] = next(numbers)
        return self._known[name]

    def walk(self) -> wire.Walk:
        """The way through this value, with the registers that were asked for until now."""
        begin, end, number = (self._known.get(name, wire.UNSET) for name in ("begin", "end", "number"))
        inside = tuple(child.walk() for child in self.children)
        match self.action:
            case ReadScalar():
                return self._scalar(self.action, begin, end, number)
            case ReadFixed(0, Logical()):
                raise Unplanned("a decimal of no bytes is nothing that engines know")
            case ReadFixed(size, Logical(precision=digits)):
                return wire.Decimal(digits, size, begin, end, number)
            case ReadFixed(size):
                return wire.Fixed(size, begin, end)
            case ReadEnum(symbols):
                return wire.Enum(len(symbols), begin, end, number)
            case ReadArray(item_bytes=item_bytes):
                return wire.Array(inside[0], item_bytes, begin, end, number, tuple(self.folds))
            case ReadMap():
                return wire.Map(inside[0], begin, end)
            case ReadUnion():
                return wire.Union(inside, begin, end, number)
            case ReadRecord():
                return wire.Record(inside, begin, end)

    def _scalar(self, action: ReadScalar, begin: int, end: int, number: int) -> wire.Walk:
        match action.kind:
            case "null":
                return wire.Null(begin, end)
            case "boolean":
                return wire.Boolean(begin, end, number)
            case "int" | "long":
                logical = action.logical.name if action.logical and action.becomes in ("int", "long") else ""
                low, high = _BOUNDS.get(logical, (None, None))
                return wire.Integer(32 if action.kind == "int" else 64, low, high, begin, end, number)
            case "float" | "double":
                return wire.Real(4 if action.kind == "float" else 8, begin, end)
        if action.becomes == "string":
            return wire.Text(action.logical is not None, begin, end, self._known.get("content", wire.UNSET))
        if action.logical is not None:
            return wire.Decimal(action.logical.precision, 0, begin, end, number)
        return wire.Bytes(begin, end)


def is_null(slot: Slot) -> bool:
    return isinstance(slot.action, ReadScalar) and slot.action.kind == "null"


def record_levels(action: Action) -> int:
    """How deep records lie inside records. Raises `Unplanned` for a schema that contains itself."""
    return _levels(action, frozenset(), {})


def _levels(action: Action, around: frozenset[int], known: dict[int, int]) -> int:
    if id(action) in around:
        raise Unplanned("the schema contains itself")
    if id(action) not in known:
        match action:
            case ReadRecord(steps=steps):
                inside, own = [step.action for step in steps], 1
            case ReadUnion(branches):
                inside, own = list(branches), 0
            case ReadArray(inner) | ReadMap(inner):
                inside, own = [inner], 0
            case _:
                inside, own = [], 0
        below = around | {id(action)}
        known[id(action)] = own + max((_levels(inner, below, known) for inner in inside), default=0)
    return known[id(action)]
