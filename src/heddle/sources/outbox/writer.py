"""What an application calls to publish: a row in its outbox, in its own transaction, checked by the contract at once.

A connection is one of psycopg (3), or of SQLAlchemy on psycopg: a `Connection` or a `Session`, plain or
async. Nothing is committed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from heddle.errors import UsageError
from heddle.sources.outbox.payload import DELETED, Payloads, payloads_of
from heddle.sources.outbox.table import quoted

# The payload is cast, so that a bytea column refuses it: it would take the text for an escaped one.
_INSERT: Final = "insert into {} (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, %s, %s::json)"


class Outbox:
    """One outbox table. Kept for the life of the application; any number of threads may use it.

    Of two changes of one entity the later one must be written by who holds the entity's lock (has updated its row, or
    selected it `for update`): no outbox knows another order. All methods raise `ContractError` with the field path,
    before anything is written, for what the contract refuses, and the driver's own errors."""

    def __init__(self, table: str = "public.outbox") -> None:
        self._insert = _INSERT.format(quoted(table))

    def put(self, connection: Any, value: Any, *, event_id: UUID | None = None) -> UUID:
        """Publish a value of a contract's generated type; returns the event's id, a random one where none is given."""
        made_id = event_id or uuid4()
        _execute(connection, self._insert, _value_row(made_id, value))
        return made_id

    async def put_async(self, connection: Any, value: Any, *, event_id: UUID | None = None) -> UUID:
        made_id = event_id or uuid4()
        await _execute_async(connection, self._insert, _value_row(made_id, value))
        return made_id

    def delete(self, connection: Any, kind: type[Any], key: Mapping[str, Any], *, event_id: UUID | None = None) -> UUID:
        """Publish that an entity is gone. `key`: the fields that make the contract's key, by name."""
        made_id = event_id or uuid4()
        _execute(connection, self._insert, _key_row(made_id, kind, key))
        return made_id

    async def delete_async(
        self, connection: Any, kind: type[Any], key: Mapping[str, Any], *, event_id: UUID | None = None
    ) -> UUID:
        made_id = event_id or uuid4()
        await _execute_async(connection, self._insert, _key_row(made_id, kind, key))
        return made_id


def _value_row(event_id: UUID, value: Any) -> tuple[str, ...]:
    payloads = payloads_of(type(value))
    text = payloads.text(value)
    return _row(event_id, payloads, payloads.contract.key_of(value), payloads.contract.name, text)


def _key_row(event_id: UUID, kind: type[Any], key: Mapping[str, Any]) -> tuple[str, ...]:
    payloads = payloads_of(kind)
    text = payloads.key_text(key)
    return _row(event_id, payloads, payloads.contract.key_of(key), payloads.contract.name + DELETED, text)


def _row(event_id: UUID, payloads: Payloads, key: bytes, kind: str, payload: str) -> tuple[str, ...]:
    aggregate = payloads.contract.name.rpartition(".v")[0]
    return str(event_id), aggregate, key.decode(), kind, payload


def _execute(connection: Any, statement: str, row: tuple[str, ...]) -> None:
    if _is_session(connection):
        connection = connection.connection()
    _method_of(connection)(statement, row)


async def _execute_async(connection: Any, statement: str, row: tuple[str, ...]) -> None:
    if _is_session(connection):
        connection = await connection.connection()
    await _method_of(connection)(statement, row)


def _is_session(connection: Any) -> bool:
    """SQLAlchemy's: it lends its connection. A cursor of psycopg has one, too, but as an attribute."""
    return not hasattr(connection, "exec_driver_sql") and callable(getattr(connection, "connection", None))


def _method_of(connection: Any) -> Callable[[str, tuple[str, ...]], Any]:
    """What takes a statement with `%s`: SQLAlchemy's own `execute` takes no text."""
    method = getattr(connection, "exec_driver_sql", None) or getattr(connection, "execute", None)
    if method is None:
        raise _no_connection(connection)
    found: Callable[[str, tuple[str, ...]], Any] = method
    return found


def _no_connection(connection: Any) -> UsageError:
    return UsageError(
        f"{type(connection).__name__} is no connection that an outbox row can be written on",
        hint="pass the psycopg or SQLAlchemy connection or session whose transaction changes the data",
    )
