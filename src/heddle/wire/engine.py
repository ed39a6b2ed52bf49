"""What runs plans: a batch of framed input in, record keys and framed output out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from heddle.wire.plan import WirePlan

FRAME_BYTES = 5

Function = Callable[..., bytes]
"""A call's function: an argument for each of its `Argument`s (bytes, or None), the bytes of a whole value back."""

Output = tuple[bytes, bytes]
"""Record key and framed value."""


class Engine(Protocol):
    """Used by one thread. Nothing that bytes can hold makes it raise."""

    name: str

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        """From now on do records that begin with `writer`, the frame of their writer's schema, by this plan. `frame`
        comes before every output. Raises ValueError for a plan that this engine cannot run."""

    def transcode(self, values: Sequence[bytes | None]) -> tuple[list[Output | None], list[int]]:
        """Same length out; None where a record was left out (`when`) or refused. The refused ones' indexes, ascending:
        bad data, a frame that is not known, no bytes at all."""
