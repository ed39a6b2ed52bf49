"""Generated Python for what a plan computes: numbers, conditions, parts of texts and calls, each as one expression."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from heddle.contracts.codegen import Source
from heddle.wire.plan import (
    UNSET,
    Add,
    All,
    AmongNumbers,
    AmongTexts,
    AnyOf,
    Argument,
    Call,
    Compare,
    Condition,
    Content,
    Digits,
    Exact,
    Holds,
    Multiply,
    Not,
    Number,
    Part,
    Picked,
    Present,
    Said,
    Subtract,
    Value,
)

_LITERAL_BITS: Final = 256
"""Larger constants get a name: Python limits the digits of a literal."""
_LITERAL_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the record: a variable (or none) and a number of bytes after it."""

    name: str
    offset: int = 0

    @property
    def may_be_unset(self) -> bool:
        """Whether it is a mark's own variable, and not just a position."""
        return self.name.startswith("m")

    def __add__(self, more: int) -> Place:
        return Place(self.name, self.offset + more)

    def __str__(self) -> str:
        if not self.name:
            return str(self.offset)
        return f"{self.name} + {self.offset}" if self.offset else self.name


def value_of(value: Value, source: Source) -> str:
    match value:
        case Number():
            return f"n{value.number}"
        case Exact():
            spelt = value.value.bit_length() <= _LITERAL_BITS
            return f"({value.value})" if spelt else source.constant("EXACT", value.value)
        case Add():
            return _chain(" + ", "0", [value_of(part, source) for part in value.parts])
        case Subtract():
            return f"({value_of(value.left, source)} - {value_of(value.right, source)})"
        case Multiply():
            return _chain(" * ", "1", [value_of(part, source) for part in value.parts])


def _chain(by: str, none: str, parts: list[str]) -> str:
    return f"({by.join(parts)})" if parts else none


def bytes_of(data: bytes, source: Source) -> str:
    return repr(data) if len(data) <= _LITERAL_BYTES else source.constant("DATA", data)


def joined(pieces: list[str]) -> str:
    """One bytes expression of several."""
    match pieces:
        case []:
            return 'b""'
        case [one]:
            return one
        case [first, second]:
            return f"({first} + {second})"
        case _:
            return f"join(({', '.join(pieces)}))"


@dataclass(slots=True)
class Expressions:
    """`marks`: where each mark is. `indexes`: numbers that are never negative. `memo`: calls that are mentioned more
    than once, whose result a variable keeps (None before the call)."""

    source: Source
    calls: tuple[Call, ...]
    marks: dict[int, Place]
    indexes: frozenset[int]
    memo: frozenset[int]

    def condition(self, condition: Condition) -> str:
        match condition:
            case Present():
                return f"{self.marks[condition.mark]} >= 0"
            case Compare():
                sides = value_of(condition.left, self.source), value_of(condition.right, self.source)
                return f"{sides[0]} {condition.relation} {sides[1]}"
            case AmongTexts():
                content = self.content(condition)
                if len(condition.values) == 1:
                    return f"{content} == {bytes_of(condition.values[0], self.source)}"
                return f"{content} in {self.source.constant('TEXTS', frozenset(condition.values))}"
            case AmongNumbers():
                return f"n{condition.number} in {self.source.constant('NUMBERS', frozenset(condition.values))}"
            case Holds():
                return f'{self.call(condition.call)} == b"\\x01"'
            case Not():
                return f"not ({self.condition(condition.of)})"
            case All():
                return _chain(" and ", "True", [f"({self.condition(part)})" for part in condition.of])
            case AnyOf():
                return _chain(" or ", "False", [f"({self.condition(part)})" for part in condition.of])

    def content(self, part: Any) -> str:
        """The bytes between the marks `content` and `end`."""
        return f"d[{self.marks[part.content]}:{self.marks[part.end]}]"

    def row(self, number: int, rows: tuple[bytes | None, ...]) -> str:
        """None where the record is to be refused: every use of that raises."""
        table = self.source.constant("ROWS", rows)
        return f"{table}[n{number}]" if number in self.indexes else f"row_of({table}, n{number})"

    def part(self, part: Part) -> str:
        match part:
            case Said():
                return bytes_of(part.data, self.source)
            case Content():
                return self.content(part)
            case Digits():
                return f"digits({value_of(part.value, self.source)}, {part.scale})"
            case Picked():
                return self.row(part.number, part.rows)

    def parts(self, parts: tuple[Part, ...]) -> str:
        return joined([self.part(part) for part in parts])

    def call(self, number: int) -> str:
        arguments = ", ".join(self._argument(argument) for argument in self.calls[number].arguments)
        called = f"call{number}({arguments})"
        return f"(c{number} if c{number} is not None else (c{number} := {called}))" if number in self.memo else called

    def _argument(self, argument: Argument) -> str:
        if argument.first == UNSET:
            return "None"
        first = self.marks[argument.first]
        data = f"d[{first}:{self.marks[argument.last]}]"
        return f"{data} if {first} >= 0 else None" if first.may_be_unset else data

    def text(self, parts: tuple[Part, ...]) -> list[str]:
        """A length, and the parts."""
        size, pieces = Size(), []
        for part in parts:
            match part:
                case Said():
                    size.constant += len(part.data)
                    pieces.append(self.part(part))
                case Content():
                    size.span(self.marks[part.content], self.marks[part.end])
                    pieces.append(self.part(part))
                case _:
                    name = self.source.fresh("t")
                    size.more.append(f"len({name} := {self.part(part)})")
                    pieces.append(name)
        return [self.length(size), *pieces]

    def length(self, size: Size) -> str:
        name = self.source.fresh("s")
        return f"(LENGTHS[{name}] if ({name} := {size}) < 128 else length({name}))"


@dataclass(slots=True)
class Size:
    """A number of bytes: the sum of a constant, of variables so many times, and of other terms."""

    constant: int = 0
    times: Counter[str] = field(default_factory=Counter)
    more: list[str] = field(default_factory=list)

    def span(self, begin: Place, end: Place) -> None:
        self.constant += end.offset - begin.offset
        self.times[end.name] += 1
        self.times[begin.name] -= 1

    def __str__(self) -> str:
        added = [*self.more, *filter(None, (+self.times).elements())]
        taken = filter(None, (-self.times).elements())
        return " + ".join([*added, str(self.constant)]) + "".join(f" - {name}" for name in taken)
