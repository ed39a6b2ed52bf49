"""A clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)
_MOVE_S = 1e-6
AT_ONCE_S = 1e-4
"""A wait that is shorter does not move the clock: quick tries follow at once."""


class TurnEnded(BaseException):
    """A worker would wait now. Whoever drives it decides when that time has passed."""


class ManualClock:
    """The worker's and the broker's clock in a test, in whole milliseconds; it begins at `START`. Only `move_to` moves
    it."""

    def __init__(self) -> None:
        self._elapsed_ms = 0
        self._moves = 0

    @property
    def now(self) -> datetime:
        return START + timedelta(milliseconds=self._elapsed_ms)

    def monotonic(self) -> float:
        """Every move adds a little: what is due at that very moment shall be due, whatever its sum was rounded to."""
        return self._elapsed_ms / 1000 + self._moves * _MOVE_S

    def wall_ms(self) -> int:
        return int(START.timestamp() * 1000) + self._elapsed_ms

    def wait(self, stop: threading.Event, seconds: float) -> bool:  # noqa: ARG002 - it never waits
        raise TurnEnded

    def jitter(self) -> float:
        """Every delay is the longest of its range."""
        return 1.0

    def move_to(self, moment: datetime) -> None:
        """Forwards, by whole milliseconds, rounded up; a moment in the past leaves it where it is."""
        elapsed_ms = -((START - moment) // timedelta(milliseconds=1))
        self._elapsed_ms = max(self._elapsed_ms, elapsed_ms)
        self._moves += 1


class CallsOnManualClock:
    """Implements `heddle.http.clock.CallClock`. A sink that waits between two tries of a call is at work: nobody could
    advance the clock meanwhile, so its wait passes at once, and moves the clock by as much."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wall_s(self) -> float:
        return self._clock.wall_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        """Others that wait for the same moment find that it has come."""
        ends_at = self._clock.now + timedelta(seconds=seconds)
        await asyncio.sleep(0)
        if seconds >= AT_ONCE_S:
            self._clock.move_to(ends_at)

    def jitter(self) -> float:
        return self._clock.jitter()
