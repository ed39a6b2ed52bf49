"""Generated code that walks what a writer wrote: one variable per position, short cuts for what is usually short.

The code reads past the end without looking: a slice is then short and an index raises, and the final check that the
position is the record's length catches what neither did.

Texts are not checked one by one. From a text on, everything that takes one byte (a length, an index, a small number)
is ASCII, so a run of texts and such bytes is UTF-8 if and only if each of its texts is. `r` is where the run began;
whatever may hold other bytes ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from heddle.contracts.codegen import INLINE_DEPTH, Refused, Source
from heddle.wire import python_runtime as runtime
from heddle.wire.plan import (
    UNSET,
    Array,
    Boolean,
    Bytes,
    Decimal,
    Enum,
    Fixed,
    Integer,
    Map,
    Null,
    Real,
    Record,
    Text,
    Union,
    Walk,
)
from heddle.wire.python_registers import Registers, folds_of, nodes, read_in, set_in
from heddle.wire.python_values import Place, value_of

SMALL: Final = tuple((number >> 1) ^ -(number & 1) for number in range(128))
"""The numbers of one byte."""

CHAIN: Final = 16

NAMES: Final[dict[str, Any]] = {
    "Refused": Refused,
    "SMALL": SMALL,
    "number_in": int.from_bytes,
    **{
        name: getattr(runtime, name)
        for name in (
            "uuid_at", "varint_at", "number_at", "past_number", "past_number_within", "past_bytes", "text_at",
            "past_text", "decimal_at", "past_decimal", "block_at",
        )
    },
}  # fmt: skip


@dataclass(slots=True)
class Loop:
    """What repeats: where an item begins, and, once it is walked, where it ends. After the loop `begin` is its end."""

    begin: Place
    after: Place


@dataclass(slots=True)
class WalkWriter:
    """Emits code that reads bytes `d` (`e` of them). After `write`, `marks` says how to spell each mark's position;
    number registers are variables `n0`, `n1`, …

    `read`: the registers that anybody reads. `tested`: marks that must be -1 where they are not set. `checks`: False
    for bytes that were walked before."""

    source: Source
    read: Registers
    tested: frozenset[int]
    checks: bool = True
    marks: dict[int, Place] = field(default_factory=dict)
    spelt_out: set[int] = field(default_factory=set)
    run: bool = False

    def write(self, walk: Walk, at: Place) -> Place:
        """Returns the position after the value, with no texts left unchecked."""
        place = self._value(walk, at, 0)
        self._end_run(place)
        return place

    def walk_item(self, walk: Walk, loop: Loop) -> None:
        """An item of a list, wherever that is."""
        loop.after = self._value(walk, loop.begin, 2)

    def again(self) -> WalkWriter:
        """For bytes that were walked before, with the same marks."""
        return replace(self, checks=False)

    def _value(self, walk: Walk, at: Place, depth: int) -> Place:
        if depth >= INLINE_DEPTH and isinstance(walk, Array | Map | Union):
            return self._apart(walk, at)
        self._mark(walk.begin, at)
        after = self._inline(walk, at, depth)
        self._mark(walk.end, after)
        return after

    def _inline(self, walk: Walk, at: Place, depth: int) -> Place:
        match walk:
            case Null():
                return at
            case Boolean():
                return self._boolean(walk, at)
            case Integer():
                return self._integer(walk, at)
            case Real() | Fixed():
                self._end_run(at)
                return at + walk.size
            case Text():
                return self._text(walk, at)
            case Bytes():
                self._end_run(at)
                return self._past_bytes(at)
            case Decimal():
                self._end_run(at)
                return self._decimal(walk, at)
            case Enum():
                return self._index(walk.symbols, self._number(walk.number), at)
            case Array():
                return self._array(walk, at, depth)
            case Map():
                return self._map(walk, at, depth)
            case Union():
                return self._union(walk, at, depth)
            case Record():
                for item in walk.fields:
                    at = self._value(item, at, depth)
                return at

    # Registers

    def _mark(self, mark: int, at: Place) -> None:
        if mark not in self.read.marks:
            return
        if mark in self.spelt_out:
            self.source.add(f"m{mark} = {at}")
            at = Place(f"m{mark}")
        self.marks[mark] = at

    def _unset(self, marks: frozenset[int]) -> None:
        """These get variables of their own, which say -1 until they are set."""
        self.spelt_out |= marks
        for mark in sorted(marks):
            self.marks[mark] = Place(f"m{mark}")
        if marks:
            self.source.add(" = ".join(f"m{mark}" for mark in sorted(marks)) + f" = {UNSET}")

    def _apart(self, walk: Walk, at: Place) -> Place:
        """A value that a function of its own walks; it returns the position after it and the registers it sets."""
        self._end_run(at)
        inner = set_in(walk) & self.read
        needed = read_in(folds_of(walk)) - set_in(walk)
        inside = WalkWriter(self.source, self.read, self.tested, self.checks, spelt_out=set(inner.marks))
        name = self.source.fresh("walk")
        more = ", ".join(["e", *needed.names()])
        with self.source.function(f"def {name}(d, p, {more}):"):
            if inner.names():
                self.source.add(" = ".join(inner.names()) + f" = {UNSET}")
            after = inside.write(walk, Place("p"))
            self.source.add(f"return {', '.join([str(after), *inner.names()])}")
        place = self._fresh()
        self.source.add(f"{', '.join([place.name, *inner.names()])} = {name}(d, {at}, {more})")
        self.marks.update({mark: Place(f"m{mark}") for mark in inner.marks})
        return place

    def _fresh(self) -> Place:
        return Place(self.source.fresh("p"))

    # Runs of texts

    def _begin_run(self, at: Place) -> None:
        if self.checks and not self.run:
            self.source.add(f"r = {at}")
            self.run = True

    def _end_run(self, at: Place) -> None:
        if self.run:
            self.source.add(f"d[r:{at}].decode()")
            self.run = False

    @contextmanager
    def _interruption(self, at: Place, after: Place) -> Iterator[None]:
        """What lies between these is not ASCII, or was checked apart; the run goes on behind it."""
        if self.run:
            self.source.add(f"d[r:{at}].decode()")
        yield
        if self.run:
            self.source.add(f"r = {after}")

    # Values

    def _boolean(self, walk: Boolean, at: Place) -> Place:
        byte = self._number(walk.number) or f"d[{at}]"
        if byte != f"d[{at}]":
            self.source.add(f"{byte} = d[{at}]")
        if self.checks:
            self.source.add(f"if {byte} > 1: raise Refused")
        return at + 1

    def _number(self, number: int) -> str:
        """The variable of a number that somebody reads."""
        return f"n{number}" if number in self.read.numbers else ""

    def _index(self, count: int, name: str, at: Place) -> Place:
        """An index below `count`, which the variable gets if there is one. An index below 64 that is longer than a
        byte is longer than it need be."""
        if count <= 64:
            indexes = self._constant("INDEX", {2 * index: index for index in range(count)})
            self.source.add(f"{name} = {indexes}[d[{at}]]" if name else f"if d[{at}] not in {indexes}: raise Refused")
            return at + 1
        after = self._fresh()
        name = name or self.source.fresh("i")
        self._end_run(at)
        self.source.add(f"{name}, {after} = number_at(d, {at}, 64)")
        self.source.add(f"if not 0 <= {name} < {count}: raise Refused")
        return after

    def _integer(self, walk: Integer, at: Place) -> Place:
        after, name = self._fresh(), self._number(walk.number)
        bounds = f"{walk.low}, {walk.high}" if self.checks and walk.low is not None else ""
        if bounds and not name and walk.low is not None and walk.low > -64:
            name = self.source.fresh("i")
        with self.source.block(f"if d[{at}] < 128:"):
            self.source.add(f"{after} = {at + 1}")
            if name:
                self.source.add(f"{name} = SMALL[d[{at}]]")
        with self.source.block("else:"), self._interruption(at, after):
            if name:
                self.source.add(f"{name}, {after} = number_at(d, {at}, {walk.bits})")
            elif bounds:
                self.source.add(f"{after} = past_number_within(d, {at}, {walk.bits}, {bounds})")
            else:
                self.source.add(f"{after} = past_number(d, {at}, {walk.bits})")
        if name and bounds:
            self.source.add(f"if not {walk.low} <= {name} <= {walk.high}: raise Refused")
        return after

    def _text(self, walk: Text, at: Place) -> Place:
        if walk.uuid:
            self._mark(walk.content, at + 1)
            if self.checks:
                self.source.add(f"if not uuid_at(d, {at}): raise Refused")
            return at + 37
        if walk.content in self.read.marks:
            start, after = self._content(at)
            self._mark(walk.content, start)
            return after
        self._begin_run(at)
        after = self._fresh()
        self._short_span(after, at, 0)
        with self.source.block(f"if {after} == {at.name or 0}:"), self._interruption(at, after):
            self.source.add(f"{after} = past_text(d, {at})")
        return after

    def _content(self, at: Place) -> tuple[Place, Place]:
        """Where a text's content begins and ends."""
        self._begin_run(at)
        start, after = self._fresh(), self._fresh()
        self._short_span(after, at, 0)
        with self.source.block(f"if {after} == {at.name or 0}:"), self._interruption(at, after):
            self.source.add(f"{start}, {after} = text_at(d, {at})")
        self.source.add(f"else: {start} = {at + 1}")
        return start, after

    def _short_span(self, after: Place, at: Place, least: int, most: int = 63) -> None:
        """Length and bytes of up to 63: then `after` is behind them. Otherwise it is the variable of `at` (or 0)."""
        ends = [0] * 256
        for size in range(least, most + 1):
            ends[2 * size] = at.offset + 1 + size
        table = self._constant("END", tuple(ends))
        self.source.add(f"{after} = {at.name + ' + ' if at.name else ''}{table}[d[{at}]]")

    def _past_bytes(self, at: Place) -> Place:
        after = self._fresh()
        self._short_span(after, at, 0)
        self.source.add(f"if {after} == {at.name or 0}: {after} = past_bytes(d, {at})")
        return after

    def _decimal(self, walk: Decimal, at: Place) -> Place:
        bound, name = 10**walk.digits, self._number(walk.number)
        safe = (bound.bit_length() - 1) // 8  # so many bytes hold no number of more digits
        if walk.size:
            after = at + walk.size
            checked = self.checks and walk.size > safe
            if name or checked:
                name = name or self.source.fresh("i")
                self.source.add(f'{name} = number_in(d[{at}:{after}], "big", signed=True)')
            if checked:
                limit = self._constant("TEN", bound)
                self.source.add(f"if not -{limit} < {name} < {limit}: raise Refused")
            return after
        after = self._fresh()
        limit = self._constant("TEN", bound)
        self._short_span(after, at, 1, min(safe, 63))
        if not name:
            self.source.add(f"if {after} == {at.name or 0}: {after} = past_decimal(d, {at}, {limit})")
            return after
        self.source.add(f"if {after} == {at.name or 0}: {name}, {after} = decimal_at(d, {at}, {limit})")
        self.source.add(f'else: {name} = number_in(d[{at + 1}:{after}], "big", signed=True)')
        return after

    def _constant(self, prefix: str, value: Any) -> str:
        for name, known in self.source.names.items():
            if name.startswith(prefix) and type(known) is type(value) and known == value:
                return name
        return self.source.constant(prefix, value)

    # What nests

    def _begins_runs(self, walk: Any) -> bool:
        return self.checks and any(isinstance(node, Text | Map) for node in nodes(walk))

    @contextmanager
    def loop(self, items: Walk, at: Place, item_bytes: int, total: str = "") -> Iterator[Loop]:
        """Opens the loops over the blocks of a list that begins at `at`, and over their items. `total`: a variable
        that gets the number of all items."""
        self._unset(set_in(items).marks & self.tested)
        if self._begins_runs(items):
            self._begin_run(at)
        else:
            self._end_run(at)
        goes_on = self.run  # the same before and after each item
        count, p = self.source.fresh("b"), self._fresh()
        self.source.add(f"{count} = d[{at}]", f"{p} = {at + 1}")
        with self.source.block(f"while {count}:"):
            with self.source.block(f"if {count} > 127 or {count} & 1:"), self._interruption(p + -1, p):
                self.source.add(f"{count}, {p} = block_at(d, {p + -1})")
            self.source.add(f"else: {count} >>= 1")
            self.source.add(f"if {count} > e - {p}: raise Refused" if item_bytes else "raise Refused")
            if total:
                self.source.add(f"{total} += {count}")
            with self.source.block(f"for _ in range({count}):"):
                loop = Loop(p, p)
                yield loop
                if goes_on and not self.run:
                    self.source.add(f"r = {loop.after}")
                self.run = goes_on
                self.source.add(f"{p} = {loop.after}")
            self.source.add(f"{count} = d[{p}]", f"{p} += 1")

    def _array(self, walk: Array, at: Place, depth: int) -> Place:
        folds = [fold for fold in walk.folds if fold.number in self.read.numbers]
        total = self._number(walk.count)
        if starts := [f"n{fold.number}" for fold in folds] + [total] * bool(total):
            self.source.add(" = ".join(starts) + " = 0")
        with self.loop(walk.items, at, walk.item_bytes, total) as loop:
            loop.after = self._value(walk.items, loop.begin, depth + 2)
            for fold in folds:
                self.source.add(f"n{fold.number} += {value_of(fold.value, self.source)}")
        return loop.begin

    def _map(self, walk: Map, at: Place, depth: int) -> Place:
        keys = self.source.fresh("k")
        self.source.add(f"{keys} = set()")
        with self.loop(Record((Text(), walk.values)), at, 2) as loop:
            key = self.source.fresh("t")
            start, end = self._content(loop.begin)
            self.source.add(f"{key} = d[{start}:{end}]", f"if {key} in {keys}: raise Refused", f"{keys}.add({key})")
            loop.after = self._value(walk.values, end, depth + 2)
        return loop.begin

    def _union(self, walk: Union, at: Place, depth: int) -> Place:
        after = self._fresh()
        tested = set_in(walk.branches).marks & self.tested
        self.spelt_out |= tested
        index, at = self._branch(walk, at)
        before, goes_on = self.run, self.run or self._begins_runs(walk)
        # A chain of elif nests in Python's own compiler, so a long one would not compile.
        words = ("if", "elif" if len(walk.branches) <= CHAIN else "if")
        for position, branch in enumerate(walk.branches):
            self.run = before
            with self.source.block(f"{words[position > 0]} {index} == {position}:"):
                self._unset(tested - set_in(branch).marks)
                end = self._value(branch, at, depth + 1)
                if goes_on and not self.run:
                    self.source.add(f"r = {end}")
                self.source.add(f"{after} = {end}")
        self.run = goes_on
        return after

    def _branch(self, walk: Union, at: Place) -> tuple[str, Place]:
        """The variable of a union's index, and the position behind it."""
        number = self._number(walk.number) or self.source.fresh("u")
        return number, self._index(len(walk.branches), number, at)
