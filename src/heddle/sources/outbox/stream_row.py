"""Rows of an outbox as the log brings them: inserted once, and events from then on."""

from __future__ import annotations

from typing import Final, Literal

import structlog
from structlog.typing import FilteringBoundLogger

from heddle.errors import UsageError
from heddle.sources.outbox.row import Kinds, OutboxRow
from heddle.sources.outbox.table import PLAIN_COLUMNS
from heddle.sources.postgres.pgoutput import Row, Value
from heddle.sources.postgres.relations import KeyValues
from heddle.sources.postgres.tables import Change, Shape


class OutboxTable:
    """Implements `heddle.sources.postgres.relations.Declared`. What is there already is read by `Backlog`, in the order
    of its numbers: a captured table's own snapshot goes by key. A truncate removes what the log has told."""

    snapshot: Final = False
    truncates: Final[Literal["ignore"]] = "ignore"


class StreamedOutbox:
    """Implements `heddle.sources.postgres.relations.Captured`. `created_at` is read where there is such a column, else
    the commit's time stands for it. Raises `UsageError` where a column is missing."""

    def __init__(self, shape: Shape, kinds: Kinds, source: str) -> None:
        missing = [name for name in PLAIN_COLUMNS if name not in shape.names]
        if missing:
            raise UsageError(
                f"{source}: {shape.table} has no column {', '.join(missing)}, or its publication leaves it out",
                hint="docs/how-to/publish-through-an-outbox.md has the table",
            )
        self.shape = shape
        self._kinds = kinds
        self._log: FilteringBoundLogger = structlog.get_logger(source=source)
        self._places = [shape.names.index(name) for name in PLAIN_COLUMNS]
        self._created_at = shape.names.index("created_at") if "created_at" in shape.names else None
        self._is_bytes = shape.types[self._places[-1]] == "bytea"
        self._has_warned = False

    @property
    def unknown_columns(self) -> list[str]:
        """None: others may keep columns of their own in it, as Debezium's router lets them."""
        return []

    def contract_key_moved(self, old: Row, new: Row) -> bool:  # noqa: ARG002 - an update is nothing to tell
        return False

    def pulled(self, row: Row, change: Change, event_id: str, key: KeyValues) -> OutboxRow | None:  # noqa: ARG002
        """The row's own id is its event's. Deleting it only says that somebody has tidied up."""
        if change.operation != "insert":
            if change.operation == "update" and not self._has_warned:
                self._has_warned = True
                self._log.warning("a row of the outbox was changed, which publishes nothing", table=self.shape.table)
            return None
        row_id, aggregate_type, aggregate_id, kind, payload = (row[place] for place in self._places)
        created_at = None if self._created_at is None else row[self._created_at]
        return OutboxRow(
            _text(row_id),
            _text(aggregate_type),
            _text(aggregate_id),
            _text(kind),
            self._payload(payload),
            change.time.isoformat() if created_at is None else _text(created_at),
            self._kinds,
        )

    def _payload(self, value: Value) -> str | bytes | None:
        if value is None:
            return None
        text = _text(value)
        return bytes.fromhex(text.removeprefix("\\x")) if self._is_bytes else text


def _text(value: Value) -> str:
    """An inserted row has all its values."""
    return value.decode() if isinstance(value, bytes) else ""
