"""One connection to PostgreSQL, opened when needed, dropped when broken, and never trusted to be there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.string import BytesBinaryDumper

from heddle.errors import AuthError, UsageError
from heddle.secrets import Secret
from heddle.sinks.sql.faults import connect_fault, fault_of

Connection = psycopg.Connection[tuple[Any, ...]]

# A frozen owner's open batch must end before its group session does (6 s): its successor waits for these locks.
IDLE_IN_TRANSACTION_TIMEOUT_S = 4.0
STATEMENT_TIMEOUT_S = 30.0

# What the dsn does not say itself. A silent network is noticed within seconds, not after the system's two hours.
_CONNECT_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    "target_session_attrs": "read-write",
}
_SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S * 1000:.0f}",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S * 1000:.0f}",
    # A plan made while the inbox was empty would go on reading all of it once it is not.
    "plan_cache_mode": "force_custom_plan",
}
# Offsets pass a batch once its commit returned, so that commit must be on disk. Stricter settings of the server stay.
_DURABLE_COMMIT = sql.SQL(
    "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"
)


class Session:
    """The sink's connection. One thread. Everything it raises is a `HeddleError` or a `RecordFault`.

    `prepare` runs once on each new connection. The secret is asked for before each transaction: once it has another
    value, a new connection takes the old one's place. What the server refuses is asked for anew, once."""

    def __init__(
        self,
        sink: str,
        dsn: Secret,
        table: str,
        path_of: Callable[[str], str],
        prepare: Sequence[bytes] = (),
    ) -> None:
        self._sink = sink
        self._dsn = dsn
        self._table = table
        self._path_of = path_of
        self._prepare = prepare
        self._address = ""
        self._connection: Connection | None = None

    def connect(self) -> Connection:
        """The open connection, or a new one. Raises `DependencyDownError`, `AuthError` or `UsageError`."""
        connection = self._connection
        if connection is not None and not connection.closed:
            is_busy = connection.info.transaction_status != TransactionStatus.IDLE
            if is_busy or self._dsn.resolve() == self._address:
                return connection
            self.close()
        self._connection = connection = self._connect()
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction, or inside of one a savepoint. A commit whose answer is lost raises `DependencyDownError`:
        run the same batch again, the inbox knows whether it took effect."""
        connection = self.connect()
        try:
            with connection.transaction():
                yield connection
        except psycopg.Error as error:
            raise self._translated(error) from None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        address = self._dsn.resolve()
        try:
            return self._open(address)
        except AuthError:
            self._dsn.refresh()
            renewed = self._dsn.resolve()
            if renewed == address:
                raise
        return self._open(renewed)

    def _open(self, address: str) -> Connection:
        self._address = address
        parameters = {**_CONNECT_DEFAULTS, **self._parameters(address)}
        try:
            connection = psycopg.connect(**parameters)
        except psycopg.Error as error:
            raise connect_fault(error, self._sink) from None
        try:
            for name, value in _SESSION_SETTINGS.items():
                connection.execute("select set_config(%s, %s, false)", (name, value))
            connection.execute(_DURABLE_COMMIT)
            # For a column of type bytea, psycopg takes what was registered last: a slower one, of the DB-API's Binary.
            connection.adapters.register_dumper(bytes, BytesBinaryDumper)
            for statement in self._prepare:
                connection.execute(statement)
        except psycopg.Error as error:
            connection.close()
            raise self._translated(error) from None
        return connection

    def _parameters(self, address: str) -> dict[str, Any]:
        try:
            given = conninfo_to_dict(address)
        except psycopg.ProgrammingError:
            raise UsageError(
                f"{self._sink}: secret {self._dsn.name} is not a PostgreSQL address",
                hint="write it as postgresql://user:password@host:5432/database",
            ) from None
        fixed = {"client_encoding": "UTF8", "autocommit": True, "application_name": f"heddle/{self._sink}"}
        return {**given, **fixed}

    def _translated(self, error: psycopg.Error) -> Exception:
        if self._connection is not None and self._connection.closed:
            self._connection = None
        return fault_of(error, self._sink, self._table, self._path_of)
