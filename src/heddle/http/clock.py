"""The clock of whoever calls an API: pauses and windows go by it, so that a test can move it. How long a call takes
and its deadlines do not: its other end is real."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class CallClock(Protocol):
    """Used on the loop of the calls."""

    def monotonic(self) -> float:
        """Seconds; only differences mean anything."""

    def wall_s(self) -> float:
        """Seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Returns when so much time has passed by this clock."""

    def jitter(self) -> float:
        """From 0 to 1: where in its range a delay falls."""


class SystemCallClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return random.random()  # noqa: S311 - nothing secret


SYSTEM: CallClock = SystemCallClock()
