"""PostgreSQL's errors, classed by what the worker does next. Their texts hold payload values, so none is passed on."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from heddle.errors import AuthError, DependencyDownError, Failure, FailureClass, HeddleError, TransientError, UsageError
from heddle.secrets import redact
from heddle.sinks import sqlstate

# A session in a state that it should not be in is dropped, and the batch runs again on a new one.
_DOWN = (*sqlstate.DOWN, "25", "40", "55")
_BUSY = {
    "55P03": "another transaction holds locks on {}",
    "57014": "a statement on {} took too long and was ended",
}


class BusyError(DependencyDownError):
    """PostgreSQL answers, but a lock or the time for a statement was not to be had."""


class RecordFault(Exception):
    """A statement failed because of data in it. Which record it was is found out by halving the batch."""

    def __init__(self, failure_class: FailureClass, code: str, path: str, message: str) -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.code = code
        self.path = path

    def failure(self, index: int) -> Failure:
        return Failure(index, self.failure_class, self.code, self.path, str(self))


def fault_of(error: psycopg.Error, sink: str, table: str, path_of: Callable[[str], str]) -> Exception:
    """What to raise instead of `error`: a `HeddleError` that concerns the whole batch, or a `RecordFault`."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.DataError):
            return RecordFault(FailureClass.CONTRACT, "unstorable", "", f"a value does not fit its column of {table}")
        return DependencyDownError(f"{sink}: the connection to PostgreSQL broke", hint="it is opened again by itself")
    name = sqlstate.condition_of(error, state)
    if state in sqlstate.RETRY:
        return TransientError(f"{sink}: {name} on {table}", hint="it is tried again by itself")
    if state.startswith(sqlstate.AUTH):
        return AuthError(f"{sink}: {name} on {table}", hint="grant the sink's role what it needs, then start it again")
    if state.startswith(sqlstate.DECLARATION):
        return UsageError(f"{sink}: {table} is not as declared ({name})", hint="see what differs with `heddle plan`")
    if state in _BUSY:
        return BusyError(f"{sink}: {_BUSY[state].format(table)}", hint="see who does, in pg_locks and pg_stat_activity")
    if state.startswith(_DOWN):
        return DependencyDownError(f"{sink}: PostgreSQL: {name}", hint="see the database's own log")
    return _record_fault(error, state, name, table, path_of)


def connect_fault(error: psycopg.Error, sink: str) -> HeddleError:
    """A failed connect: refused credentials, a database that is not there, or nobody who answers."""
    lines = [line.strip() for line in redact(str(error)).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if sqlstate.REFUSED.search(text):
        return AuthError(f"{sink}: PostgreSQL refuses us: {text}", hint="correct the secret of the sink's dsn")
    if sqlstate.NO_DATABASE.search(text):
        return UsageError(f"{sink}: {text}", hint="create the database, or correct the secret of the sink's dsn")
    return DependencyDownError(
        f"{sink}: PostgreSQL does not answer: {text}", hint="start it, or correct the sink's dsn"
    )


def _record_fault(
    error: psycopg.Error, state: str, name: str, table: str, path_of: Callable[[str], str]
) -> RecordFault:
    """A missing parent row may come later, so a foreign key is worth a retry; an application's own error code (a
    trigger) is unknown; all else of the data classes fails the same way for ever."""
    column, constraint = error.diag.column_name, error.diag.constraint_name
    failure_class = FailureClass.CONTRACT if state.startswith(sqlstate.DATA) else FailureClass.UNKNOWN
    if state == sqlstate.FOREIGN_KEY:
        failure_class = FailureClass.TRANSIENT
    message = f"{name} in {table}" + (f", constraint {constraint}" if constraint else "")
    return RecordFault(failure_class, name, path_of(column) if column else constraint or "", message)
