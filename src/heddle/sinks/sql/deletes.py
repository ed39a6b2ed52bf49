"""Tombstones: the rows of an entity that is gone are deleted, once, in its place among the events of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from heddle.contracts import Contract
from heddle.errors import ContractError, Failure, FailureClass
from heddle.event import Identity
from heddle.integration import Applied, Delivered, Outcome
from heddle.sinks.sql.batch import BatchWriter
from heddle.sinks.sql.faults import RecordFault
from heddle.sinks.sql.layout import Layout
from heddle.sinks.sql.session import Connection, Session
from heddle.sinks.sql.statements import Deletion

Batch = Sequence[Delivered[Any]]
Fence = Callable[[Connection], None]
Answered = tuple[list[Applied | None], list[Failure]]

_APPLIED = Applied(Outcome.APPLIED)
_RECOVERED = Applied(Outcome.APPLIED, recovered=True)
_DUPLICATE = Applied(Outcome.DUPLICATE)


class Deleter:
    """Of one sink's session. Rows and inbox rows of some tombstones are one transaction."""

    def __init__(
        self, sink: str, topic: str, session: Session, deletion: Deletion, layout: Layout, contract: Contract
    ) -> None:
        self._parameters = {"sink": sink, "topic": topic}
        self._topic = topic
        self._session = session
        self._deletion = deletion
        self._paths = [column.path for column in layout.key]
        self._values_of = contract.key_values

    def apply(self, batch: Batch, fence: Fence) -> Answered:
        """Tombstones only. All or nothing, except for failed records."""
        answers: dict[int, Applied] = {}
        failures: list[Failure] = []
        keys: dict[int, list[Any]] = {}
        for index, delivered in enumerate(batch):
            found = self._key(index, delivered)
            if isinstance(found, Failure):
                failures.append(found)
            else:
                keys[index] = found
        with self._session.transaction() as connection:
            fence(connection)
            try:
                with self._session.transaction():
                    answers.update(self._deleted(connection, batch, keys))
            except RecordFault:
                connection.execute("set constraints all immediate")
                self._one_by_one(connection, batch, keys, answers, failures)
        return [answers.get(index) for index in range(len(batch))], sorted(failures)

    def _one_by_one(
        self, connection: Connection, batch: Batch, keys: dict[int, list[Any]], answers: dict[int, Applied],
        failures: list[Failure],
    ) -> None:  # fmt: skip
        for index, key in keys.items():
            try:
                with self._session.transaction():
                    answers.update(self._deleted(connection, batch, {index: key}))
            except RecordFault as fault:
                failures.append(fault.failure(index))

    def _key(self, index: int, delivered: Delivered[Any]) -> list[Any] | Failure:
        """What identifies the entity, in the order of the key's columns."""
        record, event = delivered.record, delivered.event
        if delivered.replayed:
            told = "a tombstone has no version: out of its key's order it could delete what came after it"
            return Failure(index, FailureClass.CONTRACT, "tombstone-out-of-order", "", told)
        try:
            values = self._values_of(record.key)
        except ContractError as error:
            return Failure(index, error.failure_class, error.code, "", str(error), error)
        key = [values[path] for path in self._paths]
        texts = [*event.identity, event.lineage.revision, *key]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            return Failure(index, FailureClass.CONTRACT, "nul-in-text", "", "PostgreSQL cannot store a NUL")
        return key

    def _deleted(self, connection: Connection, batch: Batch, keys: dict[int, list[Any]]) -> dict[int, Applied]:
        """Of one identity only the first is new."""
        firsts: dict[Identity, int] = {}
        for index in keys:
            firsts.setdefault(batch[index].event.identity, index)
        parameters = self._rows(batch, keys, firsts.values())
        fresh = {Identity(source, id) for id, source in connection.execute(self._deletion.delete, parameters)}
        known = {}
        if len(fresh) < len(firsts):
            for event_id, source, *place in connection.execute(self._deletion.seen, parameters):
                known[Identity(source, event_id)] = tuple(place)
        answers = {}
        for index in keys:
            record, identity = batch[index].record, batch[index].event.identity
            if identity in fresh and firsts[identity] == index:
                answers[index] = _APPLIED
            else:
                is_same = known.get(identity) == (self._topic, record.partition, record.offset)
                answers[index] = _RECOVERED if is_same else _DUPLICATE
        return answers

    def _rows(self, batch: Batch, keys: dict[int, list[Any]], indexes: Iterable[int]) -> dict[str, Any]:
        """The statement's arrays."""
        rows = [
            (e.identity.id, e.identity.source, r.partition, r.offset, e.lineage.revision, body_hash, *keys[index])
            for index in indexes
            for r, e, body_hash, *_ in [batch[index]]
        ]
        names = ["ids", "sources", "partitions", "offsets", "revisions", "body_hashes"]
        names += [f"k{number}" for number in range(len(self._paths))]
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return {**self._parameters, **{name: list(column) for name, column in zip(names, columns, strict=True)}}


class Segments:
    """Applies batches in which there are tombstones: events together, tombstones together, as far as no event of a key
    follows a tombstone of it. Each part is a transaction of its own; the inbox says what took effect."""

    def __init__(self, batches: BatchWriter, deleter: Deleter, *, by_key: bool) -> None:
        self._batches = batches
        self._deleter = deleter
        self._by_key = by_key

    def apply(self, batch: Batch, fence: Fence) -> Answered:
        answers: list[Applied | None] = [None] * len(batch)
        failures: list[Failure] = []
        held: set[tuple[int, bytes]] = set()
        for indexes, are_gone in _segments(batch):
            meant = [index for index in indexes if _lane(batch[index]) not in held]
            if not meant:
                continue
            apply = self._deleter.apply if are_gone else self._batches.apply
            found, failed = apply([batch[index] for index in meant], fence)
            for index, answer in zip(meant, found, strict=True):
                answers[index] = answer
            for failure in failed:
                index = meant[failure.index]
                failures.append(failure._replace(index=index))
                lane = _lane(batch[index])
                if self._by_key and lane is not None:
                    held.add(lane)
        return answers, sorted(failures)


def _lane(delivered: Delivered[Any]) -> tuple[int, bytes] | None:
    record = delivered.record
    return None if record.key is None else (record.partition, record.key)


def _segments(batch: Batch) -> Iterator[tuple[list[int], bool]]:
    """Indexes of events, then of tombstones, and so on."""
    events: list[int] = []
    gone: list[int] = []
    keys: set[bytes | None] = set()
    for index, delivered in enumerate(batch):
        if delivered.event.value is None:
            gone.append(index)
            keys.add(delivered.record.key)
            continue
        if delivered.record.key in keys:
            yield from ((events, False), (gone, True))
            events, gone, keys = [], [], set()
        events.append(index)
    yield from ((events, False), (gone, True))
