"""Where the reading of an outbox goes on: JSON, committed with the events before it.

v         format version
table     whose rows: system id, database, and the table's oid
timeline  of the server
done      all rows of transactions before this one are done
window    [before, seq]: of the transactions from `done` to before `before`, the rows up to `seq` are done; or null
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import orjson

from heddle.errors import FormatError

P = TypeVar("P")

FORMAT_VERSION = 1
FIRST_SEQ = -(2**63)
_UNREADABLE_HINT = (
    "a newer Heddle wrote it, or read_by= was changed: run that version, or stop the source and give the position up "
    "with `heddle snapshot NAME --restart`, which publishes all that the table then holds"
)


class TableIdentity(NamedTuple):
    system: str
    database: str
    oid: int


class Window(NamedTuple):
    """Transactions that have all ended, from `Position.done` to before `before`; `seq`: how far they are done."""

    before: int
    seq: int = FIRST_SEQ


@dataclass(frozen=True, slots=True)
class Position:
    table: TableIdentity
    timeline: str
    done: int = 0
    window: Window | None = None

    def pack(self) -> bytes:
        return orjson.dumps(
            {
                "v": FORMAT_VERSION,
                "table": list(self.table),
                "timeline": self.timeline,
                "done": self.done,
                "window": self.window and list(self.window),
            }
        )

    @staticmethod
    def unpack(packed: bytes) -> Position | None:
        """None for what `heddle snapshot --restart` leaves in its place. Raises `FormatError`."""
        return unpacked(packed, FORMAT_VERSION, Position._of)

    @staticmethod
    def _of(found: dict[str, Any]) -> Position:
        window = found["window"]
        return Position(TableIdentity(*found["table"]), found["timeline"], found["done"], window and Window(*window))


def unpacked(packed: bytes, version: int, make: Callable[[dict[str, Any]], P]) -> P | None:
    """None for what `heddle snapshot --restart` leaves in its place. Raises `FormatError`, also for what `make` cannot
    read."""
    try:
        found = orjson.loads(packed)
        if found["v"] != version:
            raise ValueError(found["v"])
        return None if found.get("restart") else make(found)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FormatError("the position in an outbox cannot be read here", hint=_UNREADABLE_HINT) from error
