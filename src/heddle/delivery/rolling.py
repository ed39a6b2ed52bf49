"""Counts over the last so many seconds, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SLICES = 10


class Rolling(Generic[T]):
    """A window cut into `SLICES`, which drop out one by one: it reaches back between nine and ten of them.

    `make` builds an empty slice. `now`: seconds that never go back."""

    def __init__(self, window_s: float, now: Callable[[], float], make: Callable[[], T]) -> None:
        self._slice_s = window_s / SLICES
        self._now = now
        self._make = make
        self._slices: deque[tuple[int, T]] = deque(maxlen=SLICES)

    def present(self) -> T:
        """The slice to count into, until the next call."""
        number = self._number()
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append((number, self._make()))
        return self._slices[-1][1]

    def all(self) -> list[T]:
        """Slices that are within the window, oldest first."""
        oldest = self._number() - SLICES + 1
        return [each for number, each in self._slices if number >= oldest]

    def clear(self) -> None:
        self._slices.clear()

    def _number(self) -> int:
        return int(self._now() / self._slice_s)
