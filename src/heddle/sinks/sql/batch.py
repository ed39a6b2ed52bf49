"""One batch on its way into the database: staged, merged whole, and in halves when a record in it is refused.

Halving keeps log order: what comes first is settled first, and once a record failed, later ones of its key are left
out (`order="park"`), so that nothing of a parked key is applied after the record that parked it.

Events are named by their index in the batch throughout."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from heddle.errors import Failure, FailureClass
from heddle.event import Identity
from heddle.integration import Applied, Delivered, Outcome
from heddle.sinks.sql.encode import Encoder, NulInTextError
from heddle.sinks.sql.faults import RecordFault
from heddle.sinks.sql.session import Connection, Session
from heddle.sinks.sql.statements import Statements

Batch = Sequence[Delivered[Any]]
Lane = Hashable
"""What is held back together: a partition's key, or None where nothing waits."""

_APPLIED = Applied(Outcome.APPLIED)
_RECOVERED = Applied(Outcome.APPLIED, recovered=True)
_DUPLICATE = Applied(Outcome.DUPLICATE)
_SUPERSEDED = Applied(Outcome.SUPERSEDED)


class Effect(NamedTuple):
    """What an event is known by once it took effect. Another body of the same revision contradicts it."""

    topic: str
    partition: int
    offset: int
    revision: str
    body_hash: bytes

    def is_contradicted_by(self, other: Effect) -> bool:
        return self.revision == other.revision and self.body_hash != other.body_hash

    def is_of_record(self, other: Effect) -> bool:
        return self[:3] == other[:3]


class ConflictError(Exception):
    """Identities that already took effect with another body, by index in the batch."""

    def __init__(self, indexes: set[int]) -> None:
        super().__init__(len(indexes))
        self.indexes = indexes


@dataclass(slots=True)
class Answers:
    """What is known of each event so far. `blocked_at`: per lane, the first of its events that failed."""

    lanes: Sequence[Lane]
    applied: dict[int, Applied] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    blocked_at: dict[Lane, int] = field(default_factory=dict)

    def fail(self, failure: Failure) -> None:
        """Failures may be found in any order; of one lane only the first counts, the others were not attempted."""
        index, lane = failure.index, self.lanes[failure.index]
        self.failures[index] = failure
        if lane is not None:
            self.blocked_at[lane] = min(index, self.blocked_at.get(lane, index))

    def eligible(self, indexes: Iterable[int]) -> list[int]:
        """Without those that failed, or whose lane did before them."""
        return [i for i in indexes if i not in self.failures and i < self.blocked_at.get(self.lanes[i], i + 1)]

    def result(self) -> tuple[list[Applied | None], list[Failure]]:
        counted = [i for i in sorted(self.failures) if i <= self.blocked_at.get(self.lanes[i], i)]
        return [self.applied.get(index) for index in range(len(self.lanes))], [self.failures[i] for i in counted]


class BatchWriter:
    """Applies batches inside of transactions of `session`. `fence` raises when the partitions are not ours."""

    def __init__(
        self, sink: str, topic: str, by_key: bool, session: Session, statements: Statements, encoder: Encoder
    ) -> None:
        self._parameters = {"sink": sink, "topic": topic}
        self._topic = topic
        self._by_key = by_key
        self._session = session
        self._statements = statements
        self._encoder = encoder

    def apply(self, batch: Batch, fence: Callable[[Connection], None]) -> tuple[list[Applied | None], list[Failure]]:
        """All or nothing, except for failed records."""
        try:
            return self._whole(batch, fence), []
        except (RecordFault, ConflictError, NulInTextError):
            answers = Answers([self._lane(delivered) for delivered in batch])
            self._in_pieces(batch, answers, fence)
            return answers.result()

    def _lane(self, delivered: Delivered[Any]) -> Lane:
        record = delivered.record
        return (record.partition, record.key) if self._by_key and record.key is not None else None

    def _whole(self, batch: Batch, fence: Callable[[Connection], None]) -> list[Applied | None]:
        """Staged before the fence is held: a process that freezes inside a COPY is never timed out by the server.

        PostgreSQL refuses a NUL by itself, and then we look for it; here only in what it does not get to see."""
        firsts, repeated = _by_identity(batch, range(len(batch)))
        for index, _ in repeated:
            self._encoder.refuse_nul(batch[index])
        with self._session.transaction() as connection:
            self._stage(connection, batch, firsts)
            fence(connection)
            applied = self._merge(connection, batch, firsts, repeated, all_staged=True)
        return [applied[index] for index in range(len(batch))]

    def _in_pieces(self, batch: Batch, answers: Answers, fence: Callable[[Connection], None]) -> None:
        """Constraints that would wait for the commit are checked at once, so that each failure finds its record."""
        for index, delivered in enumerate(batch):
            try:
                self._encoder.refuse_nul(delivered)
            except NulInTextError as error:
                answers.fail(_nul_failure(index, error.path))
        if not answers.eligible(range(len(batch))):
            return
        with self._session.transaction() as connection:
            connection.execute("set constraints all immediate")
            self._halve(range(len(batch)), answers, lambda some: self._stage(connection, batch, some))
            # Thousands of small merges may follow; none of them shall read the whole stage.
            connection.execute(self._statements.index_stage)
            fence(connection)

            def merge(some: Sequence[int]) -> None:
                firsts, repeated = _by_identity(batch, some)
                answers.applied.update(self._merge(connection, batch, firsts, repeated, all_staged=False))

            self._halve(range(len(batch)), answers, merge)
            connection.execute(self._statements.drop_stage_index)

    def _halve(self, indexes: Sequence[int], answers: Answers, run: Callable[[Sequence[int]], None]) -> None:
        eligible = answers.eligible(indexes)
        if not eligible:
            return
        try:
            with self._session.transaction():
                run(eligible)
            return
        except RecordFault as fault:
            if len(eligible) == 1:
                answers.fail(fault.failure(eligible[0]))
                return
        except ConflictError as conflict:
            for index in answers.eligible(sorted(conflict.indexes)):
                answers.fail(_conflict_failure(index))
            self._halve(eligible, answers, run)
            return
        middle = len(eligible) // 2
        self._halve(eligible[:middle], answers, run)
        self._halve(eligible[middle:], answers, run)

    def _stage(self, connection: Connection, batch: Batch, indexes: Iterable[int]) -> None:
        rows_of = self._encoder.rows
        with connection.cursor() as cursor, cursor.copy(self._statements.copy) as copy:
            copy.set_types(self._statements.copy_types)
            write_row = copy.write_row
            for index in indexes:
                delivered = batch[index]
                for row in rows_of(_staged_index(index, delivered), delivered):
                    write_row(row)

    def _merge(
        self,
        connection: Connection,
        batch: Batch,
        firsts: Sequence[int],
        repeated: Sequence[tuple[int, int]],
        *,
        all_staged: bool,
    ) -> dict[int, Applied]:
        """Answers by index; nothing of it holds before the transaction commits. Raises `ConflictError`.

        Of one identity only the first in the batch takes part; the others (`repeated`, each with its first) are
        compared with it, or with the inbox where that knows the identity. `all_staged`: nothing but the firsts is."""
        applied = dict.fromkeys(firsts, _APPLIED)
        known = []
        for staged_index, seen in self._unwritten(connection, batch, firsts, all_staged=all_staged):
            index = _index_of(staged_index)
            applied[index] = _DUPLICATE if seen else _SUPERSEDED
            if seen:
                known.append(index)
        effects = self._effects(connection, batch, known) if known else {}
        conflicts = set()
        for index, first in [*((index, index) for index in effects), *repeated]:
            ours = self._effect(batch[index])
            effect = effects.get(first) or self._effect(batch[first])
            if effect.is_contradicted_by(ours):
                conflicts.add(index)
            applied[index] = _RECOVERED if effect.is_of_record(ours) else _DUPLICATE
        if conflicts:
            raise ConflictError(conflicts)
        return applied

    def _unwritten(
        self, connection: Connection, batch: Batch, firsts: Sequence[int], *, all_staged: bool
    ) -> Iterable[tuple[int, bool]]:
        """Runs the merge. Its answer: see merge_row.sql."""
        replayed = any(batch[index].replayed for index in firsts)
        parameters: dict[str, Any] = {**self._parameters, "count": len(firsts)}
        if all_staged and not replayed:
            return connection.execute(self._statements.merge_staged, parameters, binary=True)
        statement = self._statements.merge_replayed if replayed else self._statements.merge
        parameters["indexes"] = [_staged_index(index, batch[index]) for index in firsts]
        return connection.execute(statement, parameters, binary=True)

    def _effects(self, connection: Connection, batch: Batch, known: Sequence[int]) -> dict[int, Effect]:
        """What the inbox holds of these."""
        parameters = {**self._parameters, "indexes": [_staged_index(index, batch[index]) for index in known]}
        rows = connection.execute(self._statements.seen, parameters, binary=True)
        return {_index_of(staged_index): Effect(*effect) for staged_index, *effect in rows}

    def _effect(self, delivered: Delivered[Any]) -> Effect:
        record, event, body_hash, _, _ = delivered
        return Effect(self._topic, record.partition, record.offset, event.lineage.revision, body_hash)


def _by_identity(batch: Batch, indexes: Iterable[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """The first event of each identity; and the others, each with its first."""
    firsts: dict[Identity, int] = {}
    repeated = []
    for index in indexes:
        first = firsts.setdefault(batch[index].event.identity, index)
        if first != index:
            repeated.append((index, first))
    return list(firsts.values()), repeated


def _staged_index(index: int, delivered: Delivered[Any]) -> int:
    """See statements.py."""
    return ~index if delivered.replayed else index


def _index_of(staged_index: int) -> int:
    return staged_index if staged_index >= 0 else ~staged_index


def _nul_failure(index: int, path: str) -> Failure:
    return Failure(index, FailureClass.CONTRACT, "nul-in-text", path, "text holds a NUL, which PostgreSQL cannot store")


def _conflict_failure(index: int) -> Failure:
    message = "an event of the same identity and revision took effect with another body"
    return Failure(index, FailureClass.CONTRACT, "identity-conflict", "", message)
