"""Connections to the database that is captured. All that they raise is a `HeddleError` without payload content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from heddle.errors import AuthError, DependencyDownError, HeddleError, PositionLostError, UsageError
from heddle.secrets import Secret, redact
from heddle.sources.postgres.values import SESSION_SETTINGS

Connection = psycopg.Connection[tuple[Any, ...]]

STATEMENT_TIMEOUT_S = 60

# What the dsn does not say itself. A silent network is noticed within seconds, not after the system's two hours.
_CONNECT_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|role .* does not exist|not permitted to log in|permission denied"
)
_REFUSED_STATES = ("28", "42501")
_SLOT_GONE_STATES = ("55000", "42704")  # invalidated, or not there
_NO_TEXT_STATES = ("22021", "22P05")  # bytes that are no text in the database's encoding, or none in UTF-8
_DECLARATION_STATES = ("0A", "3D", "3F", "42", "22023")


class Login:
    """A secret address, and the value of it that a connection was made with last."""

    def __init__(self, source: str, dsn: Secret) -> None:
        self._source = source
        self._dsn = dsn
        self._address = ""

    @property
    def is_outdated(self) -> bool:
        """Whether the secret has another value by now: the connection that is open should end. Raises what
        `Secret.resolve` raises."""
        return self._dsn.resolve() != self._address

    def connect(self, **more: Any) -> Connection:
        """In autocommit, with the settings that make one value one text. The secret is read now: a rotated one is
        found. What the server refuses is asked for once more, as its store may have been told in between."""
        self._address = address = self._dsn.resolve()
        try:
            return self._opened(address, more)
        except AuthError:
            self._dsn.refresh()
            self._address = self._dsn.resolve()
            if self._address == address:
                raise
        return self._opened(self._address, more)

    def _opened(self, address: str, more: dict[str, Any]) -> Connection:
        try:
            given = conninfo_to_dict(address)
        except psycopg.ProgrammingError:
            raise UsageError(
                f"{self._source}: secret {self._dsn.name} is not a PostgreSQL address",
                hint="write it as postgresql://user:password@host:5432/database",
            ) from None
        settings = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        fixed = {
            "client_encoding": "UTF8",
            "application_name": f"heddle/{self._source}",
            "options": f"{given.get('options') or ''} {settings} -c statement_timeout={STATEMENT_TIMEOUT_S}s".strip(),
        }
        try:
            return psycopg.connect(**{**_CONNECT_DEFAULTS, **given, **fixed, **more}, autocommit=True)
        except psycopg.Error as error:
            raise _connect_fault(error, self._source) from None


class Session:
    """An ordinary connection, used by one thread. Between transactions it is made anew when its secret has changed."""

    def __init__(self, source: str, dsn: Secret) -> None:
        self._source = source
        self._login = Login(source, dsn)
        self._connection = self._login.connect()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Raises `DependencyDownError`, `AuthError` or `UsageError`."""
        with translated(self._source):
            return self._current().execute(query.encode(), parameters or None).fetchall()

    def texts(
        self, query: str, parameters: Sequence[str]
    ) -> tuple[list[tuple[str, int]], list[tuple[bytes | None, ...]]]:
        """Columns as (name, type's oid), and rows of values as PostgreSQL writes them; parameters are text, as `$1`."""
        with translated(self._source):
            pgconn = self._current().pgconn
            result = pgconn.exec_params(query.encode(), [text.encode() for text in parameters])
            if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
                raise psycopg.errors.error_from_result(result)
        width = range(result.nfields)
        columns = [((result.fname(number) or b"").decode(), result.ftype(number)) for number in width]
        values = [tuple([result.get_value(row, number) for number in width]) for row in range(result.ntuples)]
        return columns, values

    @contextmanager
    def seeing(self, exported: str) -> Iterator[None]:
        """Statements inside see what an exported snapshot saw."""
        with translated(self._source), self._connection.transaction():
            self._connection.execute("set transaction isolation level repeatable read")
            self._connection.execute(sql.SQL("set transaction snapshot {}").format(exported))
            yield

    def close(self) -> None:
        self._connection.close()

    def _current(self) -> Connection:
        is_idle = self._connection.info.transaction_status == TransactionStatus.IDLE
        if is_idle and self._login.is_outdated:
            self._connection.close()
            self._connection = self._login.connect()
        return self._connection


@contextmanager
def translated(source: str) -> Iterator[None]:
    """psycopg's errors as ours, by what the worker does next."""
    try:
        yield
    except psycopg.Error as error:
        raise fault_of(error, source) from None


def fault_of(error: psycopg.Error, source: str) -> HeddleError:
    state, text = error.sqlstate, _text_of(error)
    if state is None:
        return DependencyDownError(f"{source}: the connection to PostgreSQL broke: {text}", hint="it is opened again")
    if state.startswith(_REFUSED_STATES):
        return AuthError(f"{source}: {text}", hint="`heddle check --sources` says what to grant")
    if state in _SLOT_GONE_STATES and "slot" in text:
        return PositionLostError(f"{source}: {text}", hint=resnapshot_hint(source))
    if state in _NO_TEXT_STATES:
        return UsageError(
            f"{source}: {text}",
            hint="correct the row; the log keeps what it was, so then "
            f"run `heddle snapshot {source} --restart`, which makes a new slot and reads every table again",
        )
    if state.startswith(_DECLARATION_STATES):
        return UsageError(
            f"{source}: {text}", hint="`heddle check --sources` compares the declaration with the database"
        )
    return DependencyDownError(f"{source}: PostgreSQL: {text}", hint="it is tried again by itself")


def resnapshot_hint(source: str) -> str:
    return (
        f"changes may be missing: stop the source and run `heddle snapshot {source} --restart`, "
        "which makes a new slot and reads every table again"
    )


def _connect_fault(error: psycopg.Error, source: str) -> HeddleError:
    text = _text_of(error)
    if _REFUSED.search(text):
        return AuthError(
            f"{source}: PostgreSQL refuses us: {text}", hint="correct the secret, or grant the role REPLICATION"
        )
    return DependencyDownError(f"{source}: PostgreSQL does not answer: {text}", hint="start it, or correct the secret")


def _text_of(error: psycopg.Error) -> str:
    """The primary message: the details below it hold rows."""
    primary = error.diag.message_primary
    lines = [line.strip() for line in redact(primary or str(error)).splitlines() if line.strip()]
    return (lines[0] if primary else lines[-1]) if lines else type(error).__name__
