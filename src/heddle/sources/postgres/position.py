"""Where a capture goes on: JSON, committed with the events before it.

v          format version
slot       identity of the slot: system id, timeline, database, name, and the point at which we found it
tables     digest of each captured table's publication, by table
lsn        all transactions that committed before it are done
partial    [commit LSN, ordinal]: of this next transaction so many changes are done; or null
snapshots  under way or still to come, in order: id, table, and the key after which to go on, or null
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from heddle.errors import FormatError
from heddle.event import stable_id

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class SlotIdentity:
    """PostgreSQL keeps no creation id of a slot, so the point at which it was found is part of who it is."""

    system: str
    timeline: int
    database: str
    name: str
    found_at: int

    @property
    def id(self) -> str:
        """Begins the id of every event that comes through it."""
        return stable_id(self.system, str(self.timeline), self.database, self.name, str(self.found_at))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading of one table. `after`: the key of the last row done, as texts."""

    id: str
    table: str
    after: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Position:
    slot: SlotIdentity
    tables: dict[str, str]
    lsn: int
    partial: tuple[int, int] | None = None
    snapshots: tuple[Snapshot, ...] = field(default=())

    def pack(self) -> bytes:
        slot = self.slot
        return orjson.dumps(
            {
                "v": FORMAT_VERSION,
                "slot": [slot.system, slot.timeline, slot.database, slot.name, slot.found_at],
                "tables": self.tables,
                "lsn": self.lsn,
                "partial": self.partial,
                "snapshots": [[each.id, each.table, each.after] for each in self.snapshots],
            }
        )

    @staticmethod
    def unpack(packed: bytes) -> Position | None:
        """None for `RESTART`. Raises `FormatError`."""
        try:
            found: dict[str, Any] = orjson.loads(packed)
            if found["v"] != FORMAT_VERSION:
                raise ValueError(found["v"])
            if found.get("restart"):
                return None
            partial = found["partial"]
            return Position(
                SlotIdentity(*found["slot"]),
                found["tables"],
                found["lsn"],
                None if partial is None else (partial[0], partial[1]),
                tuple(
                    Snapshot(each_id, table, None if after is None else tuple(after))
                    for each_id, table, after in found["snapshots"]
                ),
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(
                "the position of a PostgreSQL capture cannot be read here", hint="a newer Heddle wrote it: run that"
            ) from error


RESTART = orjson.dumps({"v": FORMAT_VERSION, "restart": True})
"""In the place of a position: begin with a new slot, and read all tables."""
