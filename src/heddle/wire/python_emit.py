"""Generated code that writes the output from what the walk found: one list of pieces, joined once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from heddle.contracts.codegen import Source
from heddle.wire import python_runtime as runtime
from heddle.wire.plan import (
    UNSET,
    Copy,
    Each,
    Emit,
    Exact,
    If,
    JoinPart,
    Key,
    Lookup,
    Number,
    Pick,
    Raw,
    Refuse,
    Spliced,
    WriteDecimal,
    WriteJoin,
    WriteNumber,
    WriteText,
)
from heddle.wire.python_values import Expressions, Place, bytes_of, joined, value_of
from heddle.wire.python_walk import WalkWriter

NAMES: Final[dict[str, Any]] = {
    "join": b"".join,
    "LENGTHS": tuple(runtime.length(size) for size in range(128)),
    "NUMBERS": tuple(runtime.zigzag(number, 32) for number in range(64)),
    "UNRESERVED": runtime.UNRESERVED,
    **{
        name: getattr(runtime, name)
        for name in ("digits", "decimal", "escaped", "fixed_decimal", "length", "row_of", "zigzag")
    },
}


@dataclass(slots=True)
class EmitWriter:
    """Emits statements where an expression will not do. `walker` walks arrays once more."""

    source: Source
    expressions: Expressions
    walker: WalkWriter

    def pieces(self, emits: tuple[Emit, ...]) -> list[str]:
        """Bytes expressions, which the caller evaluates in this order."""
        pieces: list[str] = []
        data, span = b"", None  # what may go on with the next emit
        for emit in (*emits, None):
            if isinstance(emit, Raw):
                pieces += self._span(span)
                data, span = data + emit.data, None
            elif isinstance(emit, Copy):
                pieces += [bytes_of(data, self.source)] * bool(data)
                first, last = (self.expressions.marks[mark] for mark in (emit.first, emit.last))
                if span is not None and span[1] == first:
                    first = span[0]
                else:
                    pieces += self._span(span)
                data, span = b"", (first, last)
            else:
                pieces += [bytes_of(data, self.source)] * bool(data) + self._span(span)
                data, span = b"", None
                if emit is not None:
                    pieces += self._emit(emit)
        return pieces

    def _span(self, span: tuple[Place, Place] | None) -> list[str]:
        return [] if span is None else [f"d[{span[0]}:{span[1]}]"]

    def _emit(self, emit: Emit) -> list[str]:
        match emit:
            case WriteText():
                return self.expressions.text(emit.parts)
            case WriteJoin():
                return self._join(emit)
            case WriteNumber():
                return [self._number(emit)]
            case WriteDecimal():
                value, bound = value_of(emit.value, self.source), self.source.constant("TEN", 10**emit.digits)
                call = f"fixed_decimal({value}, {bound}, {emit.size})" if emit.size else f"decimal({value}, {bound})"
                return [call]
            case Pick():
                return [self.expressions.row(emit.number, emit.rows)]
            case Lookup():
                rows = self.source.constant("ROWS", dict(reversed(emit.rows)))
                content = self.expressions.content(emit)
                if emit.otherwise is None:
                    return [f"{rows}[{content}]"]
                return [f"{rows}.get({content}, {bytes_of(emit.otherwise, self.source)})"]
            case If():
                return [self._choice(emit)]
            case Refuse():
                self.source.add("raise Refused")
                return []
            case Each():
                return [self._each(emit)]
            case Spliced():
                return [self.expressions.call(emit.call)]
            case Raw() | Copy():
                raise AssertionError("merged by the caller")

    def _number(self, emit: WriteNumber) -> str:
        value = value_of(emit.value, self.source)
        if isinstance(emit.value, Number):
            return f"(NUMBERS[{value}] if 0 <= {value} < 64 else zigzag({value}, {emit.bits}))"
        if isinstance(emit.value, Exact):
            return f"zigzag({value}, {emit.bits})"
        name = self.source.fresh("x")
        return f"(NUMBERS[{name}] if 0 <= ({name} := {value}) < 64 else zigzag({name}, {emit.bits}))"

    def _join(self, emit: WriteJoin) -> list[str]:
        by, text = bytes_of(emit.by, self.source), self.source.fresh("t")
        listed = self.source.fresh("j")
        self.source.add(f"{listed} = []")
        for part in emit.parts:
            condition = self._is_there(part)
            line = f"{listed}.append({self.expressions.parts(part.parts)})"
            self.source.add(f"if {condition}: {line}" if condition else line)
        self.source.add(f"{text} = {by}.join({listed})")
        size = f"len({text})"
        return [f"(LENGTHS[{size}] if {size} < 128 else length({size}))", text]

    def _is_there(self, part: JoinPart) -> str:
        return f"{self.expressions.marks[part.present]} >= 0" if part.present != UNSET else ""

    def _choice(self, emit: If) -> str:
        """Both branches as one expression where they are short and need no statements."""
        condition = self.expressions.condition(emit.condition)
        if not any(isinstance(inner, If | Each | WriteJoin | Refuse) for inner in (*emit.then, *emit.otherwise)):
            then, otherwise = joined(self.pieces(emit.then)), joined(self.pieces(emit.otherwise))
            return f"({then} if {condition} else {otherwise})"
        result, word = self.source.fresh("x"), "if"
        while True:
            with self.source.block(f"{word} {condition}:"):
                self.source.add(f"{result} = {joined(self.pieces(emit.then))}")
            if len(emit.otherwise) != 1 or not isinstance(emit.otherwise[0], If):
                break
            emit = emit.otherwise[0]
            word, condition = "elif", self.expressions.condition(emit.condition)
        with self.source.block("else:"):
            self.source.add(f"{result} = {joined(self.pieces(emit.otherwise))}")
        return result

    def _each(self, emit: Each) -> str:
        out, number = self.source.fresh("o"), self.source.fresh("i")
        self.source.add(f"{out} = []", f"{number} = 0")
        marks = self.expressions.marks
        with self.walker.loop(emit.items, marks[emit.begin], 1) as loop:
            self.walker.walk_item(emit.items, loop)
            if emit.where is None:
                self._write_item(emit, out, number)
            else:
                with self.source.block(f"if {self.expressions.condition(emit.where)}:"):
                    self._write_item(emit, out, number)
        result = self.source.fresh("x")
        block = f"NUMBERS[{number}] if {number} < 64 else zigzag({number}, 64)"
        self.source.add(f'{result} = join(({block}, *{out}, b"\\0")) if {number} else b"\\0"')
        return result

    def _write_item(self, emit: Each, out: str, number: str) -> None:
        self.source.add(f"{number} += 1")
        for piece in self.pieces(emit.emits):
            self.source.add(f"{out}.append({piece})")

    def key(self, key: Key) -> str:
        """An expression for the record key."""
        if key.call != UNSET:
            return self.expressions.call(key.call)
        if len(key.entities) == 1:
            entity = self._escaped(self.expressions.parts(key.entities[0]))
        else:
            inner = ", ".join(f"escaped({self.expressions.parts(parts)})" for parts in key.entities)
            entity = f'escaped(b"/".join(({inner},)))'
        if key.tenant is None:
            return f'b"default/" + {entity}'
        return f'{self._escaped(self.expressions.parts(key.tenant))} + b"/" + {entity}'

    def _escaped(self, text: str) -> str:
        name = self.source.fresh("k")
        self.source.add(f"{name} = {text}", f"if {name}.strip(UNRESERVED): {name} = escaped({name})")
        return name
