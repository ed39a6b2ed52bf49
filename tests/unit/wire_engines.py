"""Crossings on the engines of this machine, as a worker runs them, but that one sees what an engine refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from wire_oracle import Answer, Crossing

from heddle.mapping.transcoder import Transcoder
from heddle.mapping.wire_transcoder import WireTranscoder
from heddle.wire.choice import chosen_engine
from heddle.wire.engine import Engine, Function, Output, Outputs
from heddle.wire.native_engine import native_engine
from heddle.wire.plan import WirePlan

NATIVE = pytest.param("native", marks=pytest.mark.skipif(native_engine() is None, reason="heddle-native is not built"))
ENGINES = ["python", NATIVE]
CODECS = ["objects", *ENGINES]


class Watched:
    """An engine, and the indexes that it refused last."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.refused: list[int] = []
        self._engine = engine

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        self._engine.add(writer, plan, functions, frame)

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        outputs, self.refused = self._engine.transcode(values)
        return outputs, self.refused


class Run:
    """One crossing on one engine, or on none (`objects`)."""

    def __init__(self, crossing: Crossing, codec: str) -> None:
        engine = chosen_engine(codec)
        self._watched = None if engine is None else Watched(engine)
        self._transcoder: Transcoder = crossing.objects
        if self._watched is not None:
            self._transcoder = WireTranscoder(
                self._watched, crossing.lowered, lambda: crossing.writer.frame, crossing.objects
            )

    def transcode(self, values: Sequence[bytes | None]) -> list[Answer]:
        """What comes out in the end, for each record."""
        emissions, failures = self._transcoder.transcode(values)
        refusals = {failure.index: (failure.code, failure.path) for failure in failures}
        assert len(refusals) == len(failures)
        return [Answer(emission, refusals.get(index)) for index, emission in enumerate(emissions)]

    def alone(self, values: Sequence[bytes | None]) -> tuple[list[Output | None], set[int]]:
        """What the engine makes of records by itself, once it has learnt their writers, and which it refuses."""
        assert self._watched is not None
        outputs, refused = self._watched.transcode(values)
        return list(outputs), set(refused)

    @property
    def refused(self) -> list[int]:
        """What the engine did not do itself of the last batch."""
        return [] if self._watched is None else self._watched.refused


def engine_names() -> list[str]:
    """Of the engines of this machine."""
    return ["python"] if native_engine() is None else ["python", "native"]


def engines_here(crossing: Crossing) -> dict[str, Run]:
    """A run on each engine of this machine."""
    return {name: Run(crossing, name) for name in engine_names()}


def may_be_too_wide(crossing: Crossing) -> bool:
    """Whether numbers may come up that an engine of bounded width cannot hold: products."""
    plans = [crossing.lowered(frame).plan for frame in crossing.nodes]
    return any(plan is not None and '"op":"multiply"' in plan.json() for plan in plans)
