"""What runs plans: a batch of framed input in, record keys and framed output out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from heddle.wire.plan import WirePlan

FRAME_BYTES = 5

Function = Callable[..., bytes]
"""A call's function: an argument for each of its `Argument`s (bytes, or None), the bytes of a whole value back."""

Output = tuple[bytes, bytes]
"""Record key and framed value."""


class Outputs:
    """Of a batch, a list for keys and one for framed values: an object less for every record than as a list of
    `Output`, which is what one reads it as. None in both where there is no output."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes | None], values: list[bytes | None]) -> None:
        self.keys = keys
        self.values = values

    @classmethod
    def of(cls, outputs: Iterable[Output | None]) -> Outputs:
        made = cls([], [])
        for output in outputs:
            key, value = output or (None, None)
            made.keys.append(key)
            made.values.append(value)
        return made

    def put(self, index: int, output: Output | None) -> None:
        self.keys[index], self.values[index] = output or (None, None)

    def __getitem__(self, index: int) -> Output | None:
        key, value = self.keys[index], self.values[index]
        return None if key is None or value is None else (key, value)

    def __iter__(self) -> Iterator[Output | None]:
        return map(self.__getitem__, range(len(self)))

    def __len__(self) -> int:
        return len(self.keys)


class Engine(Protocol):
    """Used by one thread. Nothing that bytes can hold makes it raise."""

    name: str

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        """From now on do records that begin with `writer`, the frame of their writer's schema, by this plan. `frame`
        comes before every output. Raises ValueError for a plan that this engine cannot run."""

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        """Same length out; None where a record was left out (`when`) or refused. The refused ones' indexes, ascending:
        bad data, a frame that is not known, no bytes at all."""
