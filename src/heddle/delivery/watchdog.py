"""Ends the process when a handler, or the log's client, will not come back: a thread that still runs cannot be trusted
with a batch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_STUCK = 70

LOOK_S = 0.25
"""How late it may be: it looks so often, and nobody wakes it. To be woken with every batch cost 0.07 µs a record, and
the interpreter's lock each time."""


class Watchdog:
    """One daemon thread per worker; armed around what might never return."""

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        self._deadline: Callable[[], float] | None = None
        self._ended = threading.Event()
        self._on_stuck = on_stuck
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def armed(self, deadline: Callable[[], float]) -> Iterator[None]:
        """`deadline`, on `time.monotonic`, may move on while the block runs."""
        self._deadline = deadline
        try:
            yield
        finally:
            self._deadline = None

    def end(self) -> None:
        """Its thread ends; nothing is watched any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            deadline = self._deadline
            if deadline is not None and deadline() <= time.monotonic():
                self._on_stuck()
                os._exit(EXIT_STUCK)


def within(limit_s: float) -> Callable[[], float]:
    """A deadline that stays where it is, that many seconds from now."""
    deadline = time.monotonic() + limit_s
    return lambda: deadline
