"""The worker's clock, so that a test can advance it: retry times and pauses go by it, deadlines of calls do not."""

from __future__ import annotations

import random
import threading
import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds; only differences mean anything."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, to be compared with the broker's append times."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait, or return True at once when `stop` is set."""

    def jitter(self) -> float:
        """From 0 to 1: where in its range a delay falls."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds)

    def jitter(self) -> float:
        return random.random()  # noqa: S311 - nothing secret
