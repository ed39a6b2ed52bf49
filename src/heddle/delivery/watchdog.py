"""Ends the process when a handler, or the log's client, will not come back: a thread that still runs cannot be trusted
with a batch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_STUCK = 70


class Watchdog:
    """One daemon thread per worker; armed around what might never return."""

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        self._deadline: Callable[[], float] | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._on_stuck = on_stuck
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def armed(self, deadline: Callable[[], float]) -> Iterator[None]:
        """`deadline`, on `time.monotonic`, may move on while the block runs: it is asked again when it has passed."""
        self._set(deadline)
        try:
            yield
        finally:
            self._set(None)

    def end(self) -> None:
        """Its thread ends; nothing is watched any more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _set(self, deadline: Callable[[], float] | None) -> None:
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._ended:
                    return
                if self._deadline is None:
                    self._changed.wait()
                    continue
                left = self._deadline() - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
            self._on_stuck()
            os._exit(EXIT_STUCK)


def within(limit_s: float) -> Callable[[], float]:
    """A deadline that stays where it is, that many seconds from now."""
    deadline = time.monotonic() + limit_s
    return lambda: deadline
