"""What the gateway counts, and the one log line per second that it may write."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import structlog

LOG_INTERVAL_S = 1.0

log = structlog.get_logger("heddle.gateway")


class Counters:
    """Plain integers on one event loop. A change asks for a summary line, which comes within a second."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.accepted_bytes: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self.unkeyed: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self._started = time.monotonic()
        self._fresh_accepted: Counter[str] = Counter()
        self._fresh_refused: Counter[tuple[str, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, source: str, size: int, *, keyed: bool) -> None:
        self.accepted[source] += 1
        self.accepted_bytes[source] += size
        self._fresh_accepted[source] += 1
        if not keyed:
            self.unkeyed[source] += 1
        self._ask_for_line()

    def refuse(self, source: str, reason: str) -> None:
        self.refused[source, reason] += 1
        self._fresh_refused[source, reason] += 1
        self._ask_for_line()

    def as_dict(self) -> dict[str, Any]:
        """For `/statusz`. Refusals of no source (an unknown path) stand under "-"."""
        names = sorted({*self.accepted, *self.handshakes, *(source for source, _ in self.refused)})
        return {
            "uptime_s": round(time.monotonic() - self._started, 1),
            "accepted": self.accepted.total(),
            "refused": _by_reason(self.refused, None),
            "sources": {name: self._source(name) for name in names},
        }

    def flush(self) -> None:
        """Write the pending line now, if there is something to say."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._fresh_accepted or self._fresh_refused):
            return
        refused = {f"{source} {reason}": n for (source, reason), n in sorted(self._fresh_refused.items())}
        write = log.warning if refused else log.info
        write("gateway.deliveries", accepted=dict(self._fresh_accepted), refused=refused)
        self._fresh_accepted, self._fresh_refused = Counter(), Counter()

    def _source(self, name: str) -> dict[str, Any]:
        return {
            "accepted": self.accepted[name],
            "accepted_bytes": self.accepted_bytes[name],
            "handshakes": self.handshakes[name],
            "unkeyed": self.unkeyed[name],
            "refused": _by_reason(self.refused, name),
        }

    def _ask_for_line(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOG_INTERVAL_S, self.flush)


def _by_reason(refused: Counter[tuple[str, str]], source: str | None) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for (name, reason), count in refused.items():
        if source is None or name == source:
            totals[reason] += count
    return dict(sorted(totals.items()))
