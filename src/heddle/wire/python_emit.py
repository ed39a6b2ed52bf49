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
    Part,
    Pick,
    Raw,
    Refuse,
    Spliced,
    WriteDecimal,
    WriteJoin,
    WriteNumber,
    WriteText,
)
from heddle.wire.python_expressions import Expressions, Place, bytes_of, joined, value_of
from heddle.wire.python_walk import WalkWriter

_SHORT_DIGITS: Final = 300
"""Decimals of so many digits have a length of one byte or two."""

NAMES: Final[dict[str, Any]] = {
    "join": b"".join,
    "LENGTHS": tuple(runtime.length(size) for size in range(128)),
    "NUMBERS": tuple(runtime.zigzag(number, 32) for number in range(64)),
    **{
        name: getattr(runtime, name)
        for name in ("digits", "decimal", "escaped", "escaped_twice", "fixed_decimal", "length", "row_of", "zigzag")
    },
}


@dataclass(slots=True)
class EmitWriter:
    """Emits statements where an expression will not do. `walker` walks arrays once more.

    `bound`: where items write what is not their own, the output can be much larger than the input. Then the variable
    `z` counts items and their bytes, and a record is refused that has more than so many. 0: needless."""

    source: Source
    expressions: Expressions
    walker: WalkWriter
    bound: int = 0

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
                return [self._decimal(emit)]
            case Pick():
                return [self.expressions.row(emit.number, emit.rows)]
            case Lookup():
                rows = self.source.constant("ROWS", dict(emit.rows))
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
                raise AssertionError  # `pieces` has them

    def _number(self, emit: WriteNumber) -> str:
        value = value_of(emit.value, self.source)
        if isinstance(emit.value, Number):
            return f"(NUMBERS[{value}] if 0 <= {value} < 64 else zigzag({value}, {emit.bits}))"
        if isinstance(emit.value, Exact):
            return f"zigzag({value}, {emit.bits})"
        name = self.source.fresh("x")
        return f"(NUMBERS[{name}] if 0 <= ({name} := {value}) < 64 else zigzag({name}, {emit.bits}))"

    def _decimal(self, emit: WriteDecimal) -> str:
        value, bound = value_of(emit.value, self.source), f"TEN_{emit.digits}"
        self.source.names[bound] = 10**emit.digits
        if emit.size:
            return f"fixed_decimal({value}, {bound}, {emit.size})"
        if emit.digits > _SHORT_DIGITS:
            return f"decimal({value}, {bound})"
        name, size = self.source.fresh("x"), self.source.fresh("s")
        short = f"LENGTHS[{size} := ({name}.bit_length() >> 3) + 1] + {name}.to_bytes({size})"
        return f"({short} if 0 <= ({name} := {value}) < {bound} else decimal({name}, {bound}))"

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
        out, count = self.source.fresh("o"), self.source.fresh("i")
        self.source.add(f"{out} = []", f"{count} = 0")
        with self.walker.loop(emit.items, self.expressions.marks[emit.begin], 1) as loop:
            self.walker.write_item(emit.items, loop)
            if self.bound:
                self.source.add("z += 1", f"if z > {self.bound}: raise Refused")
            condition = "True" if emit.where is None else self.expressions.condition(emit.where)
            with self.source.block(f"if {condition}:"):
                self.source.add(f"{count} += 1")
                for piece in self.pieces(emit.emits):
                    self._append(out, piece)
        array = self.source.fresh("x")
        block = f"NUMBERS[{count}] if {count} < 64 else zigzag({count}, 64)"
        self.source.add(f'{array} = join(({block}, *{out}, b"\\0")) if {count} else b"\\0"')
        return array

    def _append(self, out: str, piece: str) -> None:
        if self.bound:
            name = self.source.fresh("x")
            self.source.add(f"{name} = {piece}", f"z += len({name})", f"{out}.append({name})")
        else:
            self.source.add(f"{out}.append({piece})")

    def key(self, key: Key) -> str:
        """An expression for the record key."""
        if key.call != UNSET:
            return self.expressions.call(key.call)
        if self.walker.entity_name:
            entity = self.walker.entity_name
        elif len(key.entities) == 1:
            entity = self._escaped(key.entities[0], "escaped")
        else:
            # Joined by '/' after the first time, so that this is escaped once.
            entity = f'b"%2F".join(({", ".join(self._escaped(parts, "escaped_twice") for parts in key.entities)}))'
        if key.tenant is None:
            return f'b"default/" + {entity}'
        return f'{self._escaped(key.tenant, "escaped")} + b"/" + {entity}'

    def _escaped(self, parts: tuple[Part, ...], how: str) -> str:
        name = self.source.fresh("k")
        self.source.add(f"{name} = {self.expressions.parts(parts)}")
        self.source.add(f"if {name}.strip(UNRESERVED): {name} = {how}({name})")
        return name
