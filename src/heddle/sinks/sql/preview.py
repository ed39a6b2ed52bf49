"""What a batch would do to the tables: done for real inside a transaction that is rolled back.

Its locks are held for moments: few events at a time, nothing waits for long, and a preview that stands still is ended
by the server. What a trigger does outside of the transaction (a sequence's next value) is not taken back."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from psycopg import Rollback

from heddle.errors import TransientError
from heddle.integration import Delivered
from heddle.preview import Preview, Rows
from heddle.sinks.sql.batch import BatchWriter
from heddle.sinks.sql.encode import Encoder, NulInTextError, Row
from heddle.sinks.sql.faults import BusyError
from heddle.sinks.sql.layout import Layout
from heddle.sinks.sql.session import Connection, Session
from heddle.sinks.sql.statements import EntityRows

MAX_EVENTS_AT_ONCE = 100
MAX_ROWS_OF_ENTITY = 100
LOCK_TIMEOUT_S = 0.1
STATEMENT_TIMEOUT_S = 2.0
IDLE_TIMEOUT_S = 1.0

# In vain, for locks, in one preview. After that, what is left is said to be in somebody's hands without a try.
LONGEST_WAIT_S = 2.0
_SETTINGS = (
    f"select set_config('lock_timeout', '{LOCK_TIMEOUT_S * 1000:.0f}', true),"
    f" set_config('statement_timeout', '{STATEMENT_TIMEOUT_S * 1000:.0f}', true),"
    f" set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_S * 1000:.0f}', true)"
)

Group = list[int]
Batch = Sequence[Delivered[Any]]


class Previewer:
    """Previews of one sink over a session of its own. The fence is neither asked nor moved."""

    def __init__(
        self, session: Session, layout: Layout, batches: BatchWriter, encoder: Encoder, rows: EntityRows
    ) -> None:
        self._session = session
        self._batches = batches
        self._encoder = encoder
        self._rows = rows
        self._names = layout.row_names
        self._waits_left = round(LONGEST_WAIT_S / LOCK_TIMEOUT_S)
        self._obstacle = ""

    def preview(self, batch: Batch) -> list[Preview]:
        """Events of one key see each other's effects, and so do neighbours; keys far apart do not."""
        found: dict[int, Preview] = {}
        for groups in _portions(_by_key(batch)):
            found.update(self._portion(batch, groups))
        return [found[index] for index in range(len(batch))]

    def _portion(self, batch: Batch, groups: Sequence[Group]) -> dict[int, Preview]:
        """In halves when somebody else holds a lock, so that his keys alone stay unknown."""
        indexes = sorted(index for group in groups for index in group)
        events = [batch[index] for index in indexes]
        if self._waits_left:
            try:
                return dict(zip(indexes, self._tried(events, indexes), strict=True))
            except (BusyError, TransientError) as error:
                self._waits_left -= 1
                self._obstacle = str(error)
            if len(groups) > 1:
                middle = len(groups) // 2
                return self._portion(batch, groups[:middle]) | self._portion(batch, groups[middle:])
        return dict(zip(indexes, self._unknown(events), strict=True))

    def _tried(self, events: Batch, indexes: Sequence[int]) -> list[Preview]:
        entities = [self._entity(event) for event in events]
        with self._session.transaction() as connection:
            connection.execute(_SETTINGS)
            now = self._read(connection, entities)
            # A constraint that waits for the commit would never be asked.
            connection.execute("set constraints all immediate")
            answers, failures = self._batches.apply(events, _no_fence)
            then = self._read(connection, entities)
            raise Rollback
        failed = {failure.index: failure._replace(index=indexes[failure.index]) for failure in failures}
        return [Preview(failed.get(i, answers[i]), now[i], then[i]) for i in range(len(events))]

    def _unknown(self, events: Batch) -> list[Preview]:
        """Rows are readable while others hold locks on them; not so a table that is being altered."""
        entities = [self._entity(event) for event in events]
        try:
            with self._session.transaction() as connection:
                connection.execute(_SETTINGS)
                now: list[Rows | None] = list(self._read(connection, entities))
        except BusyError:
            now = [None] * len(events)
        return [Preview(None, rows, None, self._obstacle) for rows in now]

    def _entity(self, event: Delivered[Any]) -> Row | None:
        """None: no key that a table could hold."""
        try:
            return self._encoder.key(event.event.value)
        except NulInTextError:
            return None

    def _read(self, connection: Connection, entities: Sequence[Row | None]) -> list[Rows]:
        places: dict[tuple[Any, ...], int] = {}
        for entity in entities:
            if entity is not None:
                places.setdefault(tuple(entity), len(places))
        shown: list[list[dict[str, Any]]] = [[] for _ in places]
        counts = [0] * len(places)
        parameters = self._rows.parameters(list(places), MAX_ROWS_OF_ENTITY)
        for place, count, *values in connection.execute(self._rows.select, parameters):
            shown[place - 1].append(dict(zip(self._names, values, strict=True)))
            counts[place - 1] = count
        rows = [Rows(tuple(some), count) for some, count in zip(shown, counts, strict=True)]
        return [Rows() if entity is None else rows[places[tuple(entity)]] for entity in entities]


def _by_key(batch: Batch) -> list[Group]:
    """Indexes of one key's events together; an event without key is alone."""
    groups: dict[Hashable, Group] = {}
    for index, (record, *_) in enumerate(batch):
        lane = index if record.key is None else (record.partition, record.key)
        groups.setdefault(lane, []).append(index)
    return list(groups.values())


def _portions(groups: Sequence[Group]) -> Iterator[list[Group]]:
    portion: list[Group] = []
    size = 0
    for group in groups:
        if portion and size + len(group) > MAX_EVENTS_AT_ONCE:
            yield portion
            portion, size = [], 0
        portion.append(group)
        size += len(group)
    if portion:
        yield portion


def _no_fence(_connection: Connection) -> None:
    return None
