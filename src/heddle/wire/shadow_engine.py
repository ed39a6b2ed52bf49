"""Two engines side by side: what they do not agree on is refused, and said."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from heddle.wire.engine import Engine, Function, Outputs
from heddle.wire.plan import WirePlan


class ShadowEngine:
    """For a deployment's first days on another engine, and for tests: twice the work. Where one engine alone refuses a
    record, that is what it is allowed to do; another output is a fault, and `disagreements` counts it."""

    def __init__(self, first: Engine, second: Engine) -> None:
        self.name = f"{first.name} and {second.name}"
        self.disagreements = 0
        self._engines = (first, second)

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        """As `Engine.add`, on both."""
        for engine in self._engines:
            engine.add(writer, plan, functions, frame)

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        """As `Engine.transcode`."""
        (outputs, refused), (others, refused_too) = (engine.transcode(values) for engine in self._engines)
        doubtful = set(refused) | set(refused_too)
        odd = [index for index, output in enumerate(outputs) if output != others[index] and index not in doubtful]
        if odd:
            self.disagreements += len(odd)
            structlog.get_logger().error(
                "engines do not agree; the object path decides", engines=self.name, records=len(odd), first=odd[0]
            )
        refused = sorted(doubtful.union(odd))
        for index in refused:
            outputs.put(index, None)
        return outputs, refused
