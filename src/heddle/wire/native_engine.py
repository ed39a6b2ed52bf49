"""The engine in Rust, where the optional package heddle-native is installed (`make native`)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from heddle.errors import AuthError, DependencyDownError
from heddle.wire.engine import FRAME_BYTES, Function, Outputs
from heddle.wire.plan import FORMAT, WirePlan

_INTERRUPTS: Final = (DependencyDownError, AuthError)

_Wanted = list[tuple[int, int, list[bytes | None]]]
"""Index, call, arguments: ascending by index. These records go on when they have these calls' results."""

_Results = list[tuple[int, int, bytes]]


class _Plans(Protocol):
    """`heddle_native.Plans`. Never changes, so threads may share it; it runs without the GIL."""

    def with_plan(self, writer: bytes, plan: str, frame: bytes) -> _Plans:
        """An engine with one plan more. ValueError for a plan of another format, or with a part it does not know."""

    def transcode(
        self, values: Sequence[bytes | None], results: _Results
    ) -> tuple[list[bytes | None], list[bytes | None], list[int], _Wanted]:
        """As `Engine.transcode` (keys, values, refused), and what is still wanted. `results` ascend by index."""


class NativeEngine:
    """Plans that call no functions take one pass; others one more for each call whose need the last pass showed."""

    name = "native"

    def __init__(self, plans: _Plans) -> None:
        self._plans = plans
        self._functions: dict[bytes, Sequence[Function]] = {}

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        """As `Engine.add`."""
        if len(functions) != len(plan.calls):
            raise ValueError(f"{len(functions)} functions for {len(plan.calls)} calls")
        self._plans = self._plans.with_plan(writer, plan.json(), frame)
        self._functions[writer] = functions

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        """As `Engine.transcode`. Raises `DependencyDownError` and `AuthError` of a function: not the record's fault."""
        keys, framed, refused, wanted = self._plans.transcode(values, [])
        outputs = Outputs(keys, framed)
        if wanted:
            refused += self._finish(values, outputs, wanted)
            refused.sort()
        return outputs, refused

    def _finish(self, values: Sequence[bytes | None], outputs: Outputs, wanted: _Wanted) -> list[int]:
        """Puts the outputs of the records that want calls in their places; gives the indexes of the refused ones."""
        results: _Results = []
        refused: list[int] = []
        while wanted:
            failed = self._call(values, wanted, results)
            going = {index for index, _, _ in wanted} - failed
            results = sorted(row for row in results if row[0] in going)
            keys, framed, again, wanted = self._plans.transcode(
                [value if index in going else None for index, value in enumerate(values)], results
            )
            done = Outputs(keys, framed)
            for index in going:
                outputs.put(index, done[index])
            refused += failed.union(going.intersection(again))
        return refused

    def _call(self, values: Sequence[bytes | None], wanted: _Wanted, results: _Results) -> set[int]:
        """Adds what the wanted calls give to `results`; the indexes of the records for which one raised."""
        failed: set[int] = set()
        for index, call, arguments in wanted:
            function = self._functions[(values[index] or b"")[:FRAME_BYTES]][call]
            if index in failed:
                continue
            try:
                results.append((index, call, function(*arguments)))
            except _INTERRUPTS:
                raise
            except Exception:
                failed.add(index)
        return failed


def native_engine() -> NativeEngine | None:
    """None where heddle-native is not installed, is older than this, or runs plans of other formats only."""
    try:
        module: Any = importlib.import_module("heddle_native")
    except ImportError:
        return None
    return NativeEngine(module.Plans()) if FORMAT in module.FORMATS and hasattr(module, "Plans") else None
