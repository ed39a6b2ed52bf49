"""The streaming replication protocol, spoken over libpq (manual: "Streaming Replication Protocol")."""

from __future__ import annotations

import select
import time
from struct import Struct
from typing import NamedTuple

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from heddle.errors import DependencyDownError
from heddle.secrets import Secret
from heddle.sources.postgres.session import Login, fault_of, translated

CREATE_SLOT_TIMEOUT_S = 60.0

_DATA_HEADER_BYTES = 25
_DATA, _KEEPALIVE = b"wk"
_STATUS = Struct(">cQQQqB")
_KEEPALIVE_BODY = Struct(">xQqB")
_EPOCH_2000_S = 946_684_800


class System(NamedTuple):
    """What IDENTIFY_SYSTEM says."""

    id: str
    timeline: int
    end_lsn: int


class Keepalive(NamedTuple):
    """All that was committed before `end_lsn` has been sent. `is_urgent`: the server waits for an answer."""

    end_lsn: int
    is_urgent: bool


class Stream:
    """A replication connection, used by one thread. Only `START_REPLICATION` turns it into a stream.

    Waits are never cancelled: that would cancel the stream. What a method raises is `DependencyDownError`, `AuthError`,
    `PositionLostError` (the slot is gone or invalid) or `UsageError`."""

    def __init__(self, source: str, dsn: Secret) -> None:
        self._source = source
        self._login = Login(source, dsn)
        self._connection = self._login.connect(replication="database")
        self._pgconn = self._connection.pgconn

    def identify(self) -> System:
        with translated(self._source):
            result = self._pgconn.exec_(b"IDENTIFY_SYSTEM")
            if result.status != ExecStatus.TUPLES_OK:
                raise psycopg.errors.error_from_result(result)
        system_id, timeline, end = (result.get_value(0, column) or b"" for column in range(3))
        return System(system_id.decode(), int(timeline), lsn_of(end.decode()))

    def create_slot(self, slot: str, plugin: str) -> tuple[int, str]:
        """Its consistent point, and a snapshot that sees what was committed before it and nothing else, by the name
        under which other sessions may import it until this connection does anything more.

        Raises `DependencyDownError` where a transaction that runs does not end in time: a slot begins behind all."""
        with translated(self._source):
            self._pgconn.send_query(f"CREATE_REPLICATION_SLOT \"{slot}\" LOGICAL {plugin} (SNAPSHOT 'export')".encode())
            result = self._awaited_result(time.monotonic() + CREATE_SLOT_TIMEOUT_S)
            if result.status != ExecStatus.TUPLES_OK:
                raise psycopg.errors.error_from_result(result)
        point, exported = ((result.get_value(0, column) or b"").decode() for column in (1, 2))
        return lsn_of(point), exported

    def _awaited_result(self, deadline_s: float) -> PGresult:
        pgconn = self._pgconn
        while pgconn.flush() or pgconn.is_busy():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([pgconn.socket], [], [], left_s)[0]:
                pgconn.get_cancel().cancel()
                raise DependencyDownError(
                    f"{self._source}: no slot can be made while a transaction is open that has written something",
                    hint="end it: select * from pg_stat_activity where backend_xid is not null order by xact_start",
                )
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None or pgconn.get_result() is not None:
            raise DependencyDownError(f"{self._source}: PostgreSQL gives no answer", hint="it is asked again by itself")
        return result

    def start(self, slot: str, lsn: int, publication: str) -> None:
        """Of transactions that were confirmed the server sends nothing again, whatever `lsn` says."""
        quoted = publication.replace('"', '""').replace("'", "''")
        options = f"proto_version '1', publication_names '\"{quoted}\"', messages 'true'"
        with translated(self._source):
            result = self._pgconn.exec_(f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(lsn)} ({options})'.encode())
            if result.status != ExecStatus.COPY_BOTH:
                raise psycopg.errors.error_from_result(result)

    def read(self, max_wait_s: float) -> bytes | Keepalive | None:
        """The next pgoutput message or keepalive; None when none came in time."""
        pgconn = self._pgconn
        with_wait = max_wait_s > 0
        try:
            while True:
                size, view = pgconn.get_copy_data(1)
                if size > 0:
                    kind = view[0]
                    if kind == _DATA:
                        return bytes(view[_DATA_HEADER_BYTES:])
                    if kind == _KEEPALIVE:
                        end_lsn, _, urgent = _KEEPALIVE_BODY.unpack(view)
                        return Keepalive(end_lsn, bool(urgent))
                    continue
                if size < 0:
                    raise self._end()
                readable = bool(select.select([pgconn.socket], [], [], max_wait_s if with_wait else 0)[0])
                if not readable:
                    return None
                with_wait = False
                pgconn.consume_input()
        except psycopg.Error as error:
            raise fault_of(error, self._source) from None

    def confirm(self, lsn: int) -> None:
        """Tells the server that it may forget what was committed before `lsn`; also the sign of life that it wants.

        A login that was replaced ends the stream here, once the server has been told: the next goes on from there."""
        now_us = int((time.time() - _EPOCH_2000_S) * 1_000_000)
        try:
            self._pgconn.put_copy_data(_STATUS.pack(b"r", lsn, lsn, lsn, now_us, 0))
            while self._pgconn.flush():
                select.select([], [self._pgconn.socket], [], 1.0)
        except psycopg.Error as error:
            raise fault_of(error, self._source) from None
        if self._login.is_outdated:
            raise DependencyDownError(f"{self._source}: the secret has changed: the stream is opened anew")

    def close(self) -> None:
        self._connection.close()

    def _end(self) -> Exception:
        """The server ended the stream: why."""
        result = self._pgconn.get_result()
        if result is not None and result.status == ExecStatus.FATAL_ERROR:
            return psycopg.errors.error_from_result(result)
        return DependencyDownError(f"{self._source}: PostgreSQL ended the stream", hint="it is opened again by itself")


def lsn_of(text: str) -> int:
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
