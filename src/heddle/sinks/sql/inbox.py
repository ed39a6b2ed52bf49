"""The inbox's end: what is forgotten, and the bound that remembers it."""

from __future__ import annotations

from datetime import datetime

from psycopg import sql

from heddle.errors import UsageError
from heddle.sinks.sql.session import Connection
from heddle.sinks.sql.statements import BOUNDS, INBOX, composed


def prune(connection: Connection, schema: str, sink: str, before: datetime) -> int:
    """Bound first, in the same transaction: no row is gone that the bound does not cover. The bound never goes back."""
    if before.tzinfo is None:
        raise UsageError("the inbox's bound has no zone", hint="use an aware datetime")
    bounds, inbox = sql.Identifier(schema, BOUNDS), sql.Identifier(schema, INBOX)
    parameters = {"sink": sink, "before": before}
    connection.execute(composed("inbox_bound.sql", bounds=bounds), parameters)
    delete = sql.SQL("delete from {} where sink = %(sink)s and applied_at < %(before)s").format(inbox)
    return connection.execute(delete, parameters).rowcount


def pruned_before(connection: Connection, schema: str, sink: str) -> datetime | None:
    select = sql.SQL("select pruned_before from {} where sink = %s").format(sql.Identifier(schema, BOUNDS))
    row = connection.execute(select, (sink,)).fetchone()
    return None if row is None else row[0]
