"""Where `heddle rewind --to` goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from heddle.errors import UsageError
from heddle.operations.dead_letters.select import since_ms

_OFFSETS = re.compile(r"\d+=\d+(,\d+=\d+)*")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to: `offsets` by partition (others stay), else the first record of `time_ms` or later, else the first
    that the log still has."""

    offsets: Mapping[int, int] | None = None
    time_ms: int | None = None

    @staticmethod
    def parse(text: str, now: datetime | None = None) -> Destination:
        """`earliest`, `0=1500,1=1400`, how long ago (`2h`), or an RFC 3339 time. Raises `UsageError`."""
        if text == "earliest":
            return Destination()
        if _OFFSETS.fullmatch(text):
            pairs = [pair.split("=") for pair in text.split(",")]
            offsets = {int(partition): int(offset) for partition, offset in pairs}
            if len(offsets) < len(pairs):
                raise UsageError(f"--to {text} names a partition twice", hint="one offset a partition: 0=1500,1=1400")
            return Destination(offsets)
        try:
            return Destination(time_ms=since_ms(text, now))
        except UsageError:
            raise UsageError(
                f"--to {text} is neither a time nor offsets",
                hint="write 2h (ago), 2026-03-01T09:30:00Z, 0=1500,1=1400 (partition=offset) or earliest",
            ) from None
