"""Where the capture of an outbox goes on: JSON, committed with the events before it.

v        format version
capture  position of the capture: heddle.sources.postgres.position
backlog  [snapshot, seq]: of the rows that this database snapshot sees, which were there when the slot was made, those
         up to `seq` are done; or null: all of them are
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from heddle.sources.outbox.position import FIRST_SEQ, unpacked
from heddle.sources.postgres import position as captured

FORMAT_VERSION = 1


class Backlog(NamedTuple):
    """`snapshot`: as PostgreSQL's `pg_snapshot` is written."""

    snapshot: str
    seq: int = FIRST_SEQ


class StreamPosition(NamedTuple):
    capture: bytes
    backlog: Backlog | None

    def pack(self) -> bytes:
        return orjson.dumps(
            {
                "v": FORMAT_VERSION,
                "capture": orjson.Fragment(self.capture),
                "backlog": self.backlog and list(self.backlog),
            }
        )

    @staticmethod
    def unpack(packed: bytes) -> StreamPosition | None:
        """None for what `heddle snapshot --restart` leaves in its place. Raises `FormatError`."""
        return unpacked(packed, FORMAT_VERSION, StreamPosition._of)

    @staticmethod
    def _of(found: dict[str, Any]) -> StreamPosition:
        backlog = found["backlog"]
        return StreamPosition(orjson.dumps(found["capture"]), backlog and Backlog(*backlog))

    @property
    def lsn(self) -> int:
        """All that committed before it has been pulled."""
        found = captured.Position.unpack(self.capture)
        assert found is not None, "a capture inside of an outbox's position never asks for a restart"
        return found.lsn
