"""Ends the process when a handler will not come back: a thread that still runs cannot be trusted with a batch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_STUCK = 70


class Watchdog:
    """One daemon thread per worker; armed around each call of a step."""

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        self._deadline: float | None = None
        self._changed = threading.Condition()
        self._on_stuck = on_stuck
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def armed(self, limit_s: float) -> Iterator[None]:
        self._set(time.monotonic() + limit_s)
        try:
            yield
        finally:
            self._set(None)

    def _set(self, deadline: float | None) -> None:
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._deadline is None:
                    self._changed.wait()
                    continue
                left = self._deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
            self._on_stuck()
            os._exit(EXIT_STUCK)
