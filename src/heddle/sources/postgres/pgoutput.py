"""The messages of PostgreSQL's `pgoutput` plugin, protocol version 1 (manual: "Logical Replication Message Formats").

Version 1 sends a transaction as a whole, after its commit and in the order of commits: what version 2 adds, pieces of
transactions that may yet be rolled back, is never asked for. Values come as text, in the form of the
session's settings.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from heddle.errors import HeddleError


class PgoutputError(HeddleError):
    """Bytes that are no message of protocol version 1. Nothing else is ever raised here, whatever the bytes."""

    code = "pgoutput"
    exit_code = 6


class Unchanged:
    """A large value that an update left alone and that the log therefore does not hold. Not null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()

Value = bytes | Unchanged | None
Row = tuple[Value, ...]


class Column(NamedTuple):
    """`is_key`: of the replica identity; of a full one, every column is. `oid`: of the type, a domain's own."""

    name: str
    oid: int
    is_key: bool
    modifier: int


class Begin(NamedTuple):
    """`commit_lsn`: where the commit record starts. `time_us`: microseconds since 2000-01-01 UTC."""

    commit_lsn: int
    time_us: int
    xid: int


class Commit(NamedTuple):
    """`end_lsn`: behind the commit record; who has confirmed it is not sent the transaction again."""

    commit_lsn: int
    end_lsn: int
    time_us: int


class Relation(NamedTuple):
    """Comes before a table's first row in a session, and again after its definition has changed.

    `identity` is pg_class.relreplident: d, n, f or i."""

    oid: int
    schema: str
    table: str
    identity: str
    columns: tuple[Column, ...]


class Insert(NamedTuple):
    relation: int
    new: Row


class Update(NamedTuple):
    """`old`: None where no column of the replica identity changed. `old_is_full`: all columns, not only the key's."""

    relation: int
    old: Row | None
    old_is_full: bool
    new: Row


class Delete(NamedTuple):
    relation: int
    old: Row
    old_is_full: bool


class Truncate(NamedTuple):
    relations: tuple[int, ...]


class Emitted(NamedTuple):
    """What a session wrote into the log with `pg_logical_emit_message`."""

    is_transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Ignored(NamedTuple):
    """An origin or a type's name: nothing that a reader needs."""

    kind: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Emitted | Ignored

_BEGIN, _COMMIT, _MESSAGE = Struct(">xQqI"), Struct(">xBQQq"), Struct(">xBQ")
_U32, _U16, _TRUNCATE = Struct(">I"), Struct(">H"), Struct(">xIB")
_COLUMN_TAIL = Struct(">Ii")
_INSERT_START, _CHANGE_START = 6, 5
_NULL, _TEXT, _LEFT = b"nt" + b"u"
_NEW, _KEY, _OLD = b"NKO"


def decode(data: bytes) -> Message:
    """Raises `PgoutputError`, and allocates no more than a small multiple of `data`."""
    try:
        match data[0:1]:
            case b"I":
                return _insert(data)
            case b"U":
                return _update(data)
            case b"D":
                return _delete(data)
            case b"B":
                return Begin(*_exactly(_BEGIN, data))
            case b"C":
                _, commit_lsn, end_lsn, time_us = _exactly(_COMMIT, data)
                return Commit(commit_lsn, end_lsn, time_us)
            case b"R":
                return _relation(data)
            case b"T":
                return _truncate(data)
            case b"M":
                return _emitted(data)
            case b"O":
                return Ignored("origin")
            case b"Y":
                return Ignored("type")
    except (StructError, IndexError, ValueError) as error:
        raise PgoutputError(f"a message of {len(data)} bytes, {data[:1]!r}, that cannot be read") from error
    raise PgoutputError(f"a message of a kind that protocol version 1 does not have: {data[:1]!r}")


def _insert(data: bytes) -> Insert:
    if data[_CHANGE_START] != _NEW:
        raise ValueError("no new row")
    new, end = _row(data, _INSERT_START)
    _ended(data, end)
    return Insert(_U32.unpack_from(data, 1)[0], new)


def _update(data: bytes) -> Update:
    kind, at = data[_CHANGE_START], _INSERT_START
    old: Row | None = None
    if kind in (_KEY, _OLD):
        old, at = _row(data, at)
        at += 1
    if data[at - 1] != _NEW:
        raise ValueError("no new row")
    new, end = _row(data, at)
    _ended(data, end)
    return Update(_U32.unpack_from(data, 1)[0], old, kind == _OLD, new)


def _delete(data: bytes) -> Delete:
    kind = data[_CHANGE_START]
    if kind not in (_KEY, _OLD):
        raise ValueError("no old row")
    old, end = _row(data, _INSERT_START)
    _ended(data, end)
    return Delete(_U32.unpack_from(data, 1)[0], old, kind == _OLD)


def _row(data: bytes, at: int) -> tuple[Row, int]:
    """A row and where it ends. Every column takes a byte at least, so the data's length bounds the loop."""
    values: list[Value] = []
    (count,) = _U16.unpack_from(data, at)
    at += 2
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + int.from_bytes(data[at + 1 : start], "big")
            values.append(data[start:at])
        elif kind == _NULL:
            at += 1
            values.append(None)
        elif kind == _LEFT:
            at += 1
            values.append(UNCHANGED)
        else:
            raise ValueError("a value that is neither text nor null")
    if at > len(data):
        raise ValueError("a value is cut off")
    return tuple(values), at


def _relation(data: bytes) -> Relation:
    (oid,) = _U32.unpack_from(data, 1)
    schema, at = _text(data, 5)
    table, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        is_key = bool(data[at] & 1)
        name, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN_TAIL.unpack_from(data, at)
        at += _COLUMN_TAIL.size
        columns.append(Column(name, type_oid, is_key, modifier))
    _ended(data, at)
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def _truncate(data: bytes) -> Truncate:
    count, _options = _TRUNCATE.unpack_from(data)
    if len(data) != _TRUNCATE.size + 4 * count:
        raise ValueError("the number of tables is not their count")
    return Truncate(tuple(oid for (oid,) in _U32.iter_unpack(data[_TRUNCATE.size :])))


def _emitted(data: bytes) -> Emitted:
    flags, lsn = _MESSAGE.unpack_from(data)
    prefix, at = _text(data, _MESSAGE.size)
    (size,) = _U32.unpack_from(data, at)
    content = data[at + 4 :]
    if len(content) != size:
        raise ValueError("the content is cut off")
    return Emitted(bool(flags & 1), lsn, prefix, content)


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _exactly(shape: Struct, data: bytes) -> tuple[int, ...]:
    _ended(data, shape.size)
    return shape.unpack(data)


def _ended(data: bytes, at: int) -> None:
    if at != len(data):
        raise ValueError("bytes are left over or missing")
