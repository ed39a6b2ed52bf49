"""One chunk of a snapshot, read between two marks in the log and merged with the stream where the second one passes.

Netflix's DBLog showed the idea. A mark is written (low), rows are read, a mark is written (high), and both marks come
back in the stream. What changed between them is in the stream anyway: such rows leave the chunk. What is left when the
high mark passes is newer than all that was streamed before it, and older than all that follows.

One case needs more. PostgreSQL writes a commit into the log before it lets others see it, so that a transaction may
have been streamed that the chunk's own database snapshot does not hold. Such a snapshot names it among the transactions
in progress: then the chunk is thrown away and read again."""

from __future__ import annotations

from collections import OrderedDict
from uuid import uuid4

import orjson

from heddle.errors import UsageError
from heddle.sources.postgres.catalog import TableInfo, Types
from heddle.sources.postgres.pgoutput import Row
from heddle.sources.postgres.position import Snapshot
from heddle.sources.postgres.replication import lsn_of
from heddle.sources.postgres.session import Session

MARK_VERSION = 1
REMEMBERED_TRANSACTIONS = 20_000

_EMIT = "select pg_logical_emit_message(true, %s, %s)::text"


class Streamed:
    """The latest transactions that came in the stream, by their 32-bit ids."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()

    def add(self, xid: int) -> None:
        self._ids[xid] = None
        if len(self._ids) > REMEMBERED_TRANSACTIONS:
            self._ids.popitem(last=False)

    def holds_any(self, database_snapshot: str) -> bool:
        """Of those that a snapshot, as `xmin:xmax:xid,xid`, says are in progress."""
        _, _, running = database_snapshot.split(":")
        return any(int(xid) & 0xFFFFFFFF in self._ids for xid in running.split(",") if xid)


class Window:
    """Rows of one chunk by key, from before the low mark was written until the high one has passed."""

    def __init__(self, snapshot: Snapshot, info: TableInfo) -> None:
        self.snapshot = snapshot
        self.info = info
        self.mark = uuid4().hex
        self.names: tuple[str, ...] = ()
        self.type_names: tuple[str, ...] = ()
        self.rows: dict[tuple[bytes | None, ...], Row] = {}
        self.after: tuple[str, ...] | None = None
        self.is_last = False
        self.is_stale = False
        self.low: tuple[int, int] | None = None
        """Commit LSN and time of the low mark, once it has passed."""

    def read(self, session: Session, types: Types, prefix: str, streamed: Streamed, columns: list[str],
             row_filter: str, max_rows: int) -> None:  # fmt: skip
        """Blocks for three statements. Raises what `Session` raises."""
        emit(session, prefix, {"mark": self.mark, "end": "low"})
        key = self.info.key
        keys = ", ".join(map(quoted, key))
        # By name of the type that each key column has, so that the comparison is the column's own.
        conditions = [f"({row_filter})"] if row_filter else []
        parameters: tuple[str, ...] = ()
        table = ".".join(map(quoted, self.info.name.split(".")))
        if self.snapshot.after is not None:
            parameters = self.snapshot.after
            bounds = ", ".join(f"${number}" for number in range(1, len(key) + 1))
            conditions.append(f"({keys}) > ({bounds})")
        where = f" where {' and '.join(conditions)}" if conditions else ""
        # The log has rows of inheriting tables under names of their own. Those of partitions are the table's.
        only = "only " if self.info.kind == "r" else ""
        # One statement is one snapshot, so its rows are of one moment: the one that the first column tells.
        listed = ", ".join(map(quoted, columns))
        found, rows = session.texts(
            f"select pg_current_snapshot()::text, {listed} from {only}{table}{where} order by {keys} limit {max_rows}",  # noqa: S608  # every name is quoted
            parameters,
        )
        emit(session, prefix, {"mark": self.mark, "end": "high"})
        self.names = tuple(name for name, _ in found[1:])
        self.type_names = tuple(types.name(oid) for _, oid in found[1:])
        places = [self.names.index(name) for name in key]
        self.is_last = len(rows) < max_rows
        self.is_stale = bool(rows) and streamed.holds_any((rows[0][0] or b"").decode())
        for _, *values in rows:
            self.rows[tuple([values[place] for place in places])] = tuple(values)
        if rows:
            self.after = tuple((rows[-1][1 + place] or b"").decode() for place in places)

    def changed(self, key: tuple[bytes | None, ...]) -> None:
        """The stream brought a change of this row: it is newer than ours, or ours will be told by it anyway."""
        self.rows.pop(key, None)


def emit(session: Session, prefix: str, content: dict[str, object]) -> int:
    """Writes a message of ours into the log, in a transaction of its own. Returns where it stands."""
    ((lsn,),) = session.rows(_EMIT, (prefix, orjson.dumps({"v": MARK_VERSION, **content}).decode()))
    return lsn_of(str(lsn))


def read_emitted(content: bytes) -> dict[str, object] | None:
    """None for what is not ours, or of another version: others may write there too."""
    try:
        found = orjson.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("v") == MARK_VERSION else None


def prefix_of(slot: str) -> str:
    return f"heddle/{slot}"


def quoted(name: str) -> str:
    if "\0" in name:
        raise UsageError("a name with a NUL character")
    return '"' + name.replace('"', '""') + '"'
