"""One batch on its way into the database: staged, merged whole, and in halves when a record in it is refused.

Halving keeps log order: what comes first is settled first, and once a record failed, later ones of its key are left
out (`order="park"`), so that nothing of a parked key is applied after the record that parked it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from heddle.errors import Failure, FailureClass
from heddle.event import Identity
from heddle.integration import Applied, Delivered, Outcome
from heddle.sinks.sql.encode import Encoder, NulInTextError, Row
from heddle.sinks.sql.faults import RecordFault
from heddle.sinks.sql.session import Connection, Session
from heddle.sinks.sql.statements import Statements

_APPLIED = Applied(Outcome.APPLIED)
_RECOVERED = Applied(Outcome.APPLIED, recovered=True)
_DUPLICATE = Applied(Outcome.DUPLICATE)
_SUPERSEDED = Applied(Outcome.SUPERSEDED)


class Entry(NamedTuple):
    """One event of the batch with the rows it becomes. `staged_index`: see statements.py."""

    index: int  # type: ignore[assignment]  # nobody looks for values in an entry by tuple.index
    staged_index: int
    lane: Hashable
    identity: Identity
    revision: str
    body_hash: bytes
    rows: list[Row]


class ConflictError(Exception):
    """Identities that already took effect with another body, by index in the batch."""

    def __init__(self, indexes: set[int]) -> None:
        super().__init__(len(indexes))
        self.indexes = indexes


@dataclass(slots=True)
class Answers:
    """What is known of each event so far. `failed`: per key (lane), the index of its first failed event."""

    by_index: dict[int, Applied] = field(default_factory=dict)
    failures: list[tuple[Failure, Hashable]] = field(default_factory=list)
    failed: dict[Hashable, int] = field(default_factory=dict)

    def fail(self, failure: Failure, lane: Hashable) -> None:
        """Failures may be found in any order; of one key only the first counts, the others were not attempted."""
        self.failures.append((failure, lane))
        if lane is not None:
            self.failed[lane] = min(failure.index, self.failed.get(lane, failure.index))

    def eligible(self, entries: Sequence[Entry]) -> list[Entry]:
        """Without those whose key failed before them."""
        if not self.failed:
            return list(entries)
        failed = self.failed
        return [e for e in entries if e.lane not in failed or e.index < failed[e.lane]]

    def result(self, length: int) -> tuple[list[Applied | None], list[Failure]]:
        answers = [self.by_index.get(index) for index in range(length)]
        counted = [failure for failure, lane in self.failures if failure.index <= self.failed.get(lane, failure.index)]
        return answers, sorted(counted, key=lambda failure: failure.index)


class BatchWriter:
    """Applies batches inside of transactions of `session`. `fence` raises when the partitions are not ours."""

    def __init__(
        self, sink: str, topic: str, by_key: bool, session: Session, statements: Statements, encoder: Encoder
    ) -> None:
        self._parameters = {"sink": sink, "topic": topic}
        self._by_key = by_key
        self._session = session
        self._statements = statements
        self._encoder = encoder

    def apply(
        self, batch: Sequence[Delivered[Any]], fence: Callable[[Connection], None]
    ) -> tuple[list[Applied | None], list[Failure]]:
        """All or nothing, except for failed records."""
        answers = Answers()
        entries = answers.eligible(self._encoded(batch, answers))
        try:
            found = self._whole(entries, fence) if entries else {}
            answers.by_index.update(found)
        except (RecordFault, ConflictError):
            answers = Answers()
            entries = answers.eligible(self._encoded(batch, answers))
            self._in_pieces(entries, answers, fence)
        return answers.result(len(batch))

    def _encoded(self, batch: Sequence[Delivered[Any]], answers: Answers) -> list[Entry]:
        entries = []
        for index, (record, event, body_hash, replayed) in enumerate(batch):
            staged_index = ~index if replayed else index
            lane = (record.partition, record.key) if self._by_key and record.key is not None else None
            try:
                rows = self._staged(staged_index, record.partition, record.offset, event, body_hash)
            except NulInTextError as error:
                answers.fail(_nul_failure(index, error.path), lane)
                continue
            entries.append(Entry(index, staged_index, lane, event.identity, event.lineage.revision, body_hash, rows))
        return entries

    def _staged(self, staged_index: int, partition: int, offset: int, event: Any, body_hash: bytes) -> list[Row]:
        """The event's staged rows. Only the first of several carries what the inbox needs."""
        source, event_id = event.identity
        revision = event.lineage.revision
        if "\0" in event_id or "\0" in source or "\0" in revision:
            raise NulInTextError("ce_id, ce_source or heddle-lineage")
        head = [staged_index, event_id, source, partition, offset, revision, body_hash]
        rows = self._encoder.rows(event.value)
        if not self._encoder.has_lines:
            return [head + rows[0]]
        if not rows:
            return [[*head, 0, 0, *self._encoder.head(event.value)]]
        rest: Row = [staged_index, None, None, None, None, None, None]
        return [
            [*(rest if number else head), number + 1, None if number else len(rows), *row]
            for number, row in enumerate(rows)
        ]

    def _whole(self, entries: Sequence[Entry], fence: Callable[[Connection], None]) -> dict[int, Applied]:
        """Staged before the fence is held: a process that freezes inside a COPY is never timed out by the server."""
        with self._session.transaction() as connection:
            self._stage(connection, entries)
            fence(connection)
            return self._merge(connection, entries)

    def _in_pieces(self, entries: Sequence[Entry], answers: Answers, fence: Callable[[Connection], None]) -> None:
        """Constraints that would wait for the commit are checked at once, so that each failure finds its record."""
        with self._session.transaction() as connection:
            connection.execute("set constraints all immediate")
            self._halve(entries, answers, lambda some: self._stage(connection, some))
            # Thousands of small merges may follow; none of them shall read the whole stage.
            connection.execute(self._statements.index_stage)
            fence(connection)

            def merge(some: Sequence[Entry]) -> None:
                answers.by_index.update(self._merge(connection, some))

            self._halve(entries, answers, merge)
            connection.execute(self._statements.drop_stage_index)

    def _halve(self, entries: Sequence[Entry], answers: Answers, run: Callable[[Sequence[Entry]], None]) -> None:
        failed_alone = {failure.index for failure, _ in answers.failures}
        entries = [entry for entry in answers.eligible(entries) if entry.index not in failed_alone]
        if not entries:
            return
        try:
            with self._session.transaction():
                run(entries)
            return
        except RecordFault as fault:
            if len(entries) == 1:
                answers.fail(fault.failure(entries[0].index), entries[0].lane)
                return
        except ConflictError as conflict:
            self._refuse(entries, conflict.indexes, answers)
            self._halve(entries, answers, run)
            return
        middle = len(entries) // 2
        self._halve(entries[:middle], answers, run)
        self._halve(entries[middle:], answers, run)

    def _refuse(self, entries: Sequence[Entry], conflicts: set[int], answers: Answers) -> None:
        for entry in entries:
            if entry.index in conflicts and entry in answers.eligible([entry]):
                answers.fail(_conflict_failure(entry.index), entry.lane)

    def _stage(self, connection: Connection, entries: Sequence[Entry]) -> None:
        with connection.cursor() as cursor, cursor.copy(self._statements.copy) as copy:
            copy.set_types(self._statements.copy_types)
            write_row = copy.write_row
            for entry in entries:
                for row in entry.rows:
                    write_row(row)

    def _merge(self, connection: Connection, entries: Sequence[Entry]) -> dict[int, Applied]:
        """Answers by index; nothing of it holds before the transaction commits. Raises `ConflictError`.

        Of one identity only the first in the batch takes part; the others are compared with it, or with the inbox
        where that knows the identity."""
        firsts: dict[Identity, Entry] = {}
        repeated: list[tuple[Entry, Entry]] = []
        for entry in entries:
            first = firsts.setdefault(entry.identity, entry)
            if first is not entry:
                repeated.append((entry, first))
        answers = dict.fromkeys([entry.index for entry in firsts.values()], _APPLIED)
        staged = [entry.staged_index for entry in firsts.values()]
        statement = self._statements.merge if min(staged) >= 0 else self._statements.merge_replayed
        known = set()
        for staged_index, seen in connection.execute(statement, {**self._parameters, "indexes": staged}, binary=True):
            index = _index_of(staged_index)
            answers[index] = _SUPERSEDED
            if seen:
                known.add(index)
        conflicts = set()
        for entry, first in repeated:
            answers[entry.index] = _DUPLICATE
            if first.index in known:
                known.add(entry.index)
            elif entry.revision == first.revision and entry.body_hash != first.body_hash:
                conflicts.add(entry.index)
        if known:
            conflicts |= self._compare_with_inbox(connection, [e for e in entries if e.index in known], answers)
        if conflicts:
            raise ConflictError(conflicts)
        return answers

    def _compare_with_inbox(
        self, connection: Connection, known: Sequence[Entry], answers: dict[int, Applied]
    ) -> set[int]:
        """Fills in answers for identities that the inbox holds; returns those that conflict with it."""
        conflicts = set()
        parameters = {**self._parameters, "indexes": [entry.staged_index for entry in known]}
        for staged_index, same_origin, same_revision, same_body in connection.execute(
            self._statements.seen, parameters
        ):
            index = _index_of(staged_index)
            if same_revision and not same_body:
                conflicts.add(index)
            answers[index] = _RECOVERED if same_origin else _DUPLICATE
        return conflicts


def _index_of(staged_index: int) -> int:
    return staged_index if staged_index >= 0 else ~staged_index


def _nul_failure(index: int, path: str) -> Failure:
    return Failure(index, FailureClass.CONTRACT, "nul-in-text", path, "text holds a NUL, which PostgreSQL cannot store")


def _conflict_failure(index: int) -> Failure:
    message = "an event of the same identity and revision took effect with another body"
    return Failure(index, FailureClass.CONTRACT, "identity-conflict", "", message)
