"""The sink's open end: fence, retry, and the batch in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

import stamina

from heddle.errors import DependencyDownError, Failure, TransientError
from heddle.integration import Applied, Delivered, PartitionFencedError
from heddle.sinks.sql import inbox
from heddle.sinks.sql.batch import BatchWriter
from heddle.sinks.sql.deletes import Segments
from heddle.sinks.sql.session import Connection, Session
from heddle.sinks.sql.statements import Statements

R = TypeVar("R")

TRIES = 4
_WAIT_INITIAL_S, _WAIT_MAX_S = 0.02, 0.5


class SqlWriter(Generic[R]):
    """A `SinkWriter` over one PostgreSQL session. Deadlocks are tried again here; a broken connection is the
    worker's to wait for: it runs the same batch again, and the inbox says what took effect."""

    def __init__(
        self,
        sink: str,
        topic: str,
        schema: str,
        session: Session,
        statements: Statements,
        batches: BatchWriter | Segments,
    ) -> None:
        self._parameters = {"sink": sink, "topic": topic}
        self._name = sink
        self._schema = schema
        self._session = session
        self._statements = statements
        self._batches = batches
        self._epochs: dict[int, int] = {}

    def bump(self, partitions: Iterable[int]) -> None:
        """Waits for the locks of a former owner's open batch: at most until the server ends it for being idle."""
        wanted = sorted(set(partitions))
        if not wanted:
            return
        with self._session.transaction() as connection:
            parameters = {**self._parameters, "partitions": wanted}
            epochs = connection.execute(self._statements.fence_bump, parameters).fetchall()
        self._epochs.update(dict(epochs))

    def release(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._epochs.pop(partition, None)

    def apply(self, batch: Sequence[Delivered[R]]) -> tuple[list[Applied | None], list[Failure]]:
        """None without a `Failure`: not attempted, because an earlier record of its key failed in this batch."""
        if not batch:
            return [], []
        partitions = sorted({delivered.record.partition for delivered in batch})
        try:
            for attempt in stamina.retry_context(
                on=TransientError, attempts=TRIES, timeout=None, wait_initial=_WAIT_INITIAL_S, wait_max=_WAIT_MAX_S
            ):
                with attempt:
                    return self._batches.apply(batch, lambda connection: self._check_fence(connection, partitions))
        except TransientError as error:
            raise DependencyDownError(f"{error} {TRIES} times in a row", hint="see what else writes there") from error
        raise AssertionError("a retry context ends by returning or raising")

    def pruned_before(self) -> datetime | None:
        """See `SqlSink.pruned_before`: asked here before an owner replays, as another process may have pruned."""
        with self._session.transaction() as connection:
            return inbox.pruned_before(connection, self._schema, self._name)

    def close(self) -> None:
        self._session.close()

    def _check_fence(self, connection: Connection, partitions: list[int]) -> None:
        """Shares the partitions' epoch rows until the batch commits; ours must still be the newest."""
        parameters = {**self._parameters, "partitions": partitions}
        present: dict[int, int] = dict(connection.execute(self._statements.fence_check, parameters).fetchall())
        lost = [partition for partition in partitions if present.get(partition) != self._epochs.get(partition, -1)]
        if lost:
            raise PartitionFencedError(f"{self._name}: a later owner has taken over partitions {lost}")
