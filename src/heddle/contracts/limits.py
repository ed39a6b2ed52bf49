"""What no honest record exceeds: bounds on bytes that anybody may have written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_depth` counts records inside records; we write less deep than we read, so that what we wrote is read.
    `max_empty_items` counts, over a whole record, array items that take no bytes: nothing else bounds them."""

    max_bytes: int = 2**24
    max_depth: int = 64
    max_written_depth: int = 48
    max_empty_items: int = 10_000


DEFAULT_LIMITS = Limits()
