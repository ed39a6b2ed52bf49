"""Registers as they are in the plan: those that something reads, numbered from 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar

from heddle.wire import plan as wire

P = TypeVar("P")

_MARKS: Final = frozenset({"begin", "end", "content", "mark", "first", "last", "present"})
_NUMBERS: Final = frozenset({"number", "count"})
"""What the fields of a plan's parts that hold a register are called."""

_WALKS: Final = (
    wire.Null, wire.Boolean, wire.Integer, wire.Real, wire.Text, wire.Bytes, wire.Fixed, wire.Decimal, wire.Enum,
    wire.Array, wire.Map, wire.Union, wire.Record,
)  # fmt: skip


class Renumbering:
    """Of the registers that these parts of a plan read; a walk only sets them."""

    def __init__(self, walk: wire.Record, readers: Sequence[Any]) -> None:
        self._marks: set[int] = set()
        self._numbers: set[int] = set()
        for part in readers:
            self._read(part)
        folds = [fold for part in (walk, *readers) for fold in _folds(part)]
        while waiting := [fold for fold in folds if fold.number in self._numbers]:
            folds = [fold for fold in folds if fold.number not in self._numbers]
            for fold in waiting:
                self._read(fold.value)
        self._mark_of = {old: new for new, old in enumerate(sorted(self._marks))}
        self._number_of = {old: new for new, old in enumerate(sorted(self._numbers))}

    @property
    def marks(self) -> int:
        return len(self._marks)

    @property
    def numbers(self) -> int:
        return len(self._numbers)

    def of(self, part: P) -> P:
        """The part with its registers as they are in the plan. What nobody reads is not set, and not added up."""
        return self._of(part)  # type: ignore[no-any-return]

    def _of(self, part: Any) -> Any:
        if isinstance(part, tuple):
            kept = (p for p in part if not isinstance(p, wire.Fold) or p.number in self._numbers)
            return tuple(self._of(p) for p in kept)
        if not is_dataclass(part) or isinstance(part, type):
            return part
        changed = {}
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name in _MARKS:
                changed[field.name] = self._mark_of.get(value, wire.UNSET)
            elif field.name in _NUMBERS:
                changed[field.name] = self._number_of.get(value, wire.UNSET)
            else:
                changed[field.name] = self._of(value)
        return replace(part, **changed)

    def _read(self, part: Any) -> None:
        if isinstance(part, tuple):
            for inner in part:
                self._read(inner)
        elif is_dataclass(part) and not isinstance(part, (type, *_WALKS)):
            for field in fields(part):
                value = getattr(part, field.name)
                if field.name in _MARKS and value != wire.UNSET:
                    self._marks.add(value)
                elif field.name in _NUMBERS:
                    self._numbers.add(value)
                else:
                    self._read(value)


def _folds(part: Any) -> Iterator[wire.Fold]:
    if isinstance(part, wire.Fold):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _folds(inner)
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _folds(getattr(part, field.name))
