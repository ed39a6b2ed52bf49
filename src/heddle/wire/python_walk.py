"""Generated code that walks whole records: what nests, and the registers that are set on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from heddle.contracts.codegen import INLINE_DEPTH
from heddle.wire import python_runtime as runtime
from heddle.wire import python_scalars
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
from heddle.wire.python_expressions import Place, value_of
from heddle.wire.python_registers import folds_of, nodes, read_in, set_in
from heddle.wire.python_scalars import ScalarWriter

_TIMES: Final = tuple(range(count) for count in range(64))
"""To run over a range that is there costs half of what it costs to make one first."""

NAMES: Final[dict[str, Any]] = {**python_scalars.NAMES, "TIMES": _TIMES, "block_at": runtime.block_at}


@dataclass(slots=True)
class Loop:
    """What repeats: where an item begins, and where it ended once it is walked. After the loop `begin` is its end."""

    begin: Place
    after: Place


@dataclass(slots=True)
class WalkWriter(ScalarWriter):
    """Emits code that reads bytes `d`, of which there are `e`. Then `marks` says where each mark is; the number
    registers are variables `n0`, `n1`, …

    `tested`: marks that must be -1 where they are not set. `spelt_out`: marks that have a variable of their own, and
    are not just another name of a position. `entity_mark`: the content of the text that alone is the key's entity,
    and `entity_name` the variable that gets it, escaped."""

    tested: frozenset[int] = frozenset()
    spelt_out: set[int] = field(default_factory=set)
    entity_mark: int = UNSET
    entity_name: str = ""
    marks: dict[int, Place] = field(default_factory=dict)

    def write(self, walk: Walk, at: Place) -> Place:
        """Returns the position after the value, with no texts left unchecked."""
        after = self._value(walk, at, 0)
        self.end_run(after)
        return after

    def write_item(self, walk: Walk, loop: Loop) -> None:
        """An item of a list that is walked once more."""
        loop.after = self._value(walk, loop.begin, 2)

    def again(self) -> WalkWriter:
        """A writer for bytes that were walked before. It has the same marks."""
        return replace(self, checks=False, entity_mark=UNSET)

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
                return self.boolean(at, self.variable(walk.number))
            case Integer():
                return self.integer(at, self.variable(walk.number), walk)
            case Real() | Fixed():
                return self.skip(at, walk.size)
            case Text():
                return self._text(walk, at)
            case Bytes():
                return self.bytes(at)
            case Decimal():
                return self.decimal(at, self.variable(walk.number), walk)
            case Enum():
                return self.index(at, self.variable(walk.number), walk.symbols)
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

    def _text(self, walk: Text, at: Place) -> Place:
        if walk.uuid:
            start, after = at + 1, self.uuid(at)
        elif walk.content not in self.read.marks:
            return self.text(at)
        elif walk.content == self.entity_mark and not self.run:
            self.entity_name = self.source.fresh("k")
            start, after = self.entity(at, self.entity_name)
        else:
            start, after = self.content(at)
        self._mark(walk.content, start)
        return after

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
        self.marks.update({mark: Place(f"m{mark}") for mark in marks})
        self._assign([f"m{mark}" for mark in sorted(marks)], UNSET)

    def _assign(self, names: list[str], value: int) -> None:
        if names:
            self.source.add(" = ".join([*names, str(value)]))

    def _apart(self, walk: Walk, at: Place) -> Place:
        """A value that a function of its own walks. It gives the position after it and the registers it sets."""
        self.end_run(at)
        inner = set_in(walk) & self.read
        taken = ", ".join(["e", *(read_in(folds_of(walk)) - set_in(walk)).names()])
        inside = WalkWriter(self.source, self.read, self.checks, tested=self.tested, spelt_out=set(inner.marks))
        name, after = self.source.fresh("walk"), self.fresh()
        with self.source.function(f"def {name}(d, p, {taken}):"):
            self._assign(inner.names(), UNSET)
            self.source.add(f"return {', '.join([str(inside.write(walk, Place('p'))), *inner.names()])}")
        self.source.add(f"{', '.join([str(after), *inner.names()])} = {name}(d, {at}, {taken})")
        self.marks.update({mark: Place(f"m{mark}") for mark in inner.marks})
        return after

    # What nests

    def _begins_runs(self, walk: Any) -> bool:
        return self.checks and any(isinstance(node, Text | Map) for node in nodes(walk))

    @contextmanager
    def loop(self, items: Walk, at: Place, item_bytes: int, total: str = "") -> Iterator[Loop]:
        """Opens the loops over the blocks of a list that begins at `at`, and over their items. `total`: a variable
        that gets the number of all items."""
        if self._begins_runs(items):
            self.begin_run(at)
        else:
            self.end_run(at)
        goes_on = self.run  # the same before and after each item
        count, p = self.source.fresh("b"), self.fresh()
        self.source.add(f"{count} = d[{at}]", f"{p} = {at + 1}")
        with self.source.block(f"while {count}:"):
            with self.source.block(f"if {count} > 127 or {count} & 1:"), self.interruption(p + -1, p):
                self.source.add(f"{count}, {p} = block_at(d, {p + -1})")
            self.source.add(f"else: {count} >>= 1")
            self.source.add(f"if {count} > e - {p}: raise Refused" if item_bytes else "raise Refused")
            if total:
                self.source.add(f"{total} += {count}")
            with self.source.block(f"for _ in TIMES[{count}] if {count} < {len(_TIMES)} else range({count}):"):
                loop = Loop(p, p)
                yield loop
                if goes_on and not self.run:
                    self.source.add(f"r = {loop.after}")
                self.run = goes_on
                self.source.add(f"{p} = {loop.after}")
            self.source.add(f"{count} = d[{p}]", f"{p} += 1")

    def _array(self, walk: Array, at: Place, depth: int) -> Place:
        total = self.variable(walk.count)
        folds = [(name, fold.value) for fold in walk.folds if (name := self.variable(fold.number))]
        self._assign([name for name, _ in folds] + [total] * bool(total), 0)
        with self.loop(walk.items, at, walk.item_bytes, total) as loop:
            loop.after = self._value(walk.items, loop.begin, depth + 2)
            for name, value in folds:
                self.source.add(f"{name} += {value_of(value, self.source)}")
        return loop.begin

    def _map(self, walk: Map, at: Place, depth: int) -> Place:
        keys, key = self.source.fresh("k"), self.source.fresh("k")
        self.source.add(f"{keys} = set()")
        with self.loop(Record((Text(), walk.values)), at, 1) as loop:
            start, end = self.content(loop.begin)
            self.source.add(f"{key} = d[{start}:{end}]", f"if {key} in {keys}: raise Refused", f"{keys}.add({key})")
            loop.after = self._value(walk.values, end, depth + 2)
        return loop.begin

    def _union(self, walk: Union, at: Place, depth: int) -> Place:
        after, index = self.fresh(), self.variable(walk.number) or self.source.fresh("u")
        tested = set_in(walk.branches).marks & self.tested
        self.spelt_out |= tested
        at = self.index(at, index, len(walk.branches))
        before, goes_on = self.run, self.run or self._begins_runs(walk.branches)
        for number, branch in enumerate(walk.branches):
            self.run = before
            with self.source.block(f"{'elif' if number else 'if'} {index} == {number}:"):
                self._unset(tested - set_in(branch).marks)
                end = self._value(branch, at, depth + 1)
                if goes_on and not self.run:
                    self.source.add(f"r = {end}")
                self.source.add(f"{after} = {end}")
        self.run = goes_on
        return after
