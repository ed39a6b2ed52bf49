"""The engine that is always there: for each plan one generated Python function, without an object per value."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from typing import Final

from heddle.contracts.codegen import REFUSALS, Source
from heddle.errors import AuthError, DependencyDownError
from heddle.wire import python_emit, python_walk
from heddle.wire.engine import FRAME_BYTES, Function, Outputs
from heddle.wire.plan import WirePlan
from heddle.wire.python_emit import EmitWriter
from heddle.wire.python_expressions import Expressions, Place, joined
from heddle.wire.python_registers import (
    calls_used_often,
    entity_mark,
    index_numbers,
    reaches_out,
    read_in,
    set_often,
    tested_in,
)
from heddle.wire.python_walk import WalkWriter

Program = Callable[[bytes], tuple[bytes | None, bytes | None]]
"""One framed record in, key and framed value out; None twice where it is left out. Raises one of `REFUSALS` for what it
refuses."""

_INTERRUPTS: Final = (DependencyDownError, AuthError)


class PythonEngine:
    """As `Engine`. What a call raises refuses its record, but for a dependency that is down or refuses us: these
    pass through `transcode`."""

    name = "python"

    def __init__(self) -> None:
        self._programs: dict[bytes, Program] = {}
        self._sources: dict[bytes, str] = {}

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        """As `Engine.add`."""
        if len(functions) != len(plan.calls):
            raise ValueError(f"{len(functions)} functions for {len(plan.calls)} calls")
        label = f"wire {plan.mapping[:12]} from {writer.hex()}"
        try:
            source = generate(plan, functions, frame)
            program: Program = source.compile(label)["one"]
        except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            raise ValueError(f"this plan is too large for Python's compiler: {type(error).__name__}") from error
        text = source.text()
        linecache.cache[f"<heddle {label}>"] = (len(text), None, text.splitlines(keepends=True), f"<heddle {label}>")
        self._programs[writer], self._sources[writer] = program, text

    def source(self, writer: bytes) -> str:
        """The generated code for a writer's frame. Raises KeyError for one that was not added."""
        return self._sources[writer]

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        """As `Engine.transcode`."""
        programs = self._programs
        keys: list[bytes | None] = []
        framed: list[bytes | None] = []
        refused: list[int] = []
        for data in values:
            try:
                key, value = programs[data[:FRAME_BYTES]](data)  # type: ignore[index,arg-type]
            except REFUSALS:  # no bytes (TypeError) and unknown frames (KeyError) too
                refused.append(len(keys))
                key = value = None
            keys.append(key)
            framed.append(value)
        return Outputs(keys, framed), refused


def generate(plan: WirePlan, functions: Sequence[Function], frame: bytes) -> Source:
    """The code for a plan: its function `one` is a `Program`."""
    source = Source({**python_walk.NAMES, **python_emit.NAMES, "INTERRUPTS": _INTERRUPTS})
    for number, function in enumerate(functions):
        source.names[f"function{number}"] = function
        _define_call(source, number, len(plan.calls[number].arguments))
    walker = WalkWriter(
        source, read_in(plan), tested=tested_in(plan), spelt_out=set_often(plan), entity_mark=entity_mark(plan)
    )
    with source.function("def one(d):"):
        source.add("e = len(d)", f"if e > {plan.max_input_bytes}: raise Refused")
        end = walker.write(plan.walk, Place("", FRAME_BYTES))
        source.add(f"if {end} != e: raise Refused")
        memo = calls_used_often(plan)
        source.add(*(f"c{call} = None" for call in sorted(memo)))
        expressions = Expressions(source, plan.calls, walker.marks, index_numbers(plan), memo)
        if plan.when is not None:
            source.add(f"if not ({expressions.condition(plan.when)}): return None, None")
        bound = max(plan.max_input_bytes, plan.max_output_bytes) if reaches_out(plan) else 0
        source.add(*["z = 0"] * bool(bound))
        writer = EmitWriter(source, expressions, walker.again(), bound)
        source.add(f"o = {joined([repr(frame), *writer.pieces(plan.emits)])}")
        source.add(f"if len(o) > {plan.max_output_bytes}: raise Refused")
        source.add(f"return {writer.key(plan.key)}, o")
    return source


def _define_call(source: Source, number: int, arguments: int) -> None:
    """A call that refuses the record with whatever it raises."""
    listed = ", ".join(f"a{argument}" for argument in range(arguments))
    with source.function(f"def call{number}({listed}):"):
        source.add("try:", f"    return function{number}({listed})")
        source.add("except INTERRUPTS:", "    raise")
        source.add("except Exception:", "    raise Refused from None")
