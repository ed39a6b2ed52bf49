"""Where polling goes on: JSON, committed with the events of each page.

v          format version
resources  by name:
  mark     seconds since 1970, by the server's clock: what changed before it is done; null before the first sweep
  sweep    the sweep under way, or null: from, to, the end of its present slice, the newest change seen, the next step
  step     of a feed: where it goes on; null before its first page
  at       of a feed: when the server gave that step; of a listing: when it began
  seen     digests and times of rows that may come again
  etag     [digest of a request, its ETag], of a sweep that was one page
  listed   of a comparison of ids: the number of the listing under way, or next; whether it is through
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from heddle.errors import FormatError
from heddle.sources.rest.paging import Step

FORMAT_VERSION = 1
MAX_SEEN = 4_000
"""Of all resources: 64 KiB of a position's 100. Beyond it the oldest are forgotten, and come again with the same id."""

_ENTRY = struct.Struct(">8sI")


@dataclass(frozen=True, slots=True)
class Sweep:
    """All that changed from `since` (None: ever) to `until` (None: not known yet). `slice_end`: how far the present
    range of a backfill goes. `step`: None at its first page. `pages`: of the present range, so far."""

    since: float | None
    until: float | None
    slice_end: float | None = None
    newest: float | None = None
    step: Step | None = None
    pages: int = 0


class Listed(NamedTuple):
    """`number`: of the listing of ids that is under way or next. `is_complete`: what it lacks is being told."""

    number: int
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one resource."""

    mark: float | None = None
    sweep: Sweep | None = None
    step: Step | None = None
    at: float | None = None
    seen: Mapping[bytes, int] = field(default_factory=dict)
    etag: tuple[str, str] | None = None
    listed: Listed | None = None


def digest_of(text: str) -> bytes:
    """Of an event's id, as `seen` keeps it: of 4,000 the odds that two are one are 1 in 10^12."""
    return blake2b(text.encode(), digest_size=8).digest()


def newest_of(seen: Mapping[bytes, int], most: int) -> dict[bytes, int]:
    if len(seen) <= most:
        return dict(seen)
    return dict(sorted(seen.items(), key=lambda entry: entry[1])[-most:])


def pack(standings: Mapping[str, Standing]) -> bytes:
    return orjson.dumps({"v": FORMAT_VERSION, "resources": {name: _packed(each) for name, each in standings.items()}})


def unpack(packed: bytes) -> dict[str, Standing]:
    """Raises `FormatError`."""
    try:
        found = orjson.loads(packed)
        if found["v"] != FORMAT_VERSION:
            raise ValueError(found["v"])
        return {name: _unpacked(each) for name, each in found["resources"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise FormatError(
            "the position of a polled API cannot be read here", hint="a newer Heddle wrote it: run that version"
        ) from error


def _packed(one: Standing) -> dict[str, Any]:
    sweep = one.sweep
    seen = b"".join(_ENTRY.pack(digest, moment) for digest, moment in one.seen.items())
    return {
        "mark": one.mark,
        "sweep": sweep and [sweep.since, sweep.until, sweep.slice_end, sweep.newest, sweep.step, sweep.pages],
        "step": one.step,
        "at": one.at,
        "seen": base64.b64encode(seen).decode(),
        "etag": one.etag,
        **({"listed": list(one.listed)} if one.listed else {}),
    }


def _unpacked(found: dict[str, Any]) -> Standing:
    seen = dict(_ENTRY.iter_unpack(base64.b64decode(found["seen"])))
    etag = found["etag"]
    return Standing(
        found["mark"],
        Sweep(*found["sweep"]) if found["sweep"] else None,
        found["step"],
        found["at"],
        seen,
        (etag[0], etag[1]) if etag else None,
        Listed(*found["listed"]) if "listed" in found else None,
    )
