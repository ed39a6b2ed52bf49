"""Deletes rows of a captured outbox once their events are in Kafka for good.

The log tells nothing by which a row could be found again cheaply, and a dead leader may have published rows that it
could not delete any more. So some rows are listed that are there now, and then a mark is written into the log. All of
them were committed before it: once the capture's committed position is behind the mark, they are done. (The log's end
would not do for a mark: what no commit follows is not sent.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from psycopg import sql

from heddle.sources.outbox.table import parts_of
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.window import emit, prefix_of

PRUNE_ROWS: Final = 5_000


class Pruner:
    """`key_type`: of the column `id`. `only`: rows of the table itself, not of those that inherit from it, which are
    published under names of their own."""

    def __init__(
        self, session: Session, table: str, key_type: str, slot: str, verify: Callable[[], None], *, only: bool
    ) -> None:
        self._session = session
        self._verify = verify
        self._prefix = prefix_of(slot)
        name = sql.SQL("only {}" if only else "{}").format(sql.Identifier(*parts_of(table)))
        self._list = sql.SQL("select id::text from {} limit {}").format(name, PRUNE_ROWS).as_string(None)
        # Compared in the column's own type, so that its index serves.
        self._delete = sql.SQL(
            "with gone as (delete from {} where id = any(%s::text[]::{}[]) returning 1) select count(*) from gone"
        ).format(name, sql.Identifier(key_type)).as_string(None)  # fmt: skip
        self._ids: list[str] = []
        self._mark_lsn = 0
        self._is_due = True

    def published(self) -> None:
        """Rows were: there will be some to delete."""
        self._is_due = True

    def confirmed(self, lsn: int) -> None:
        """All that committed before `lsn` is in Kafka for good."""
        if self._ids and lsn >= self._mark_lsn:
            self._verify()
            self._session.rows(self._delete, (self._ids,))
            self._ids = []
        if self._is_due and not self._ids:
            self._ids = [str(row_id) for (row_id,) in self._session.rows(self._list)]
            self._is_due = bool(self._ids)
            if self._ids:
                self._mark_lsn = emit(self._session, self._prefix, {"prunes": len(self._ids)})
