"""Running records with effects discarded: a flow or a source in its own step, a sink by what it says it would write."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from heddle.broker.log import BEGINNING, Admin, Outgoing, Reader, Record
from heddle.broker.murmur2 import partition_of
from heddle.contracts import Registry
from heddle.delivery.steps import Budget, Step
from heddle.errors import Failure, HeddleError
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.documents import shown_document
from heddle.operations.dead_letters.dry_run import Answer, Effect
from heddle.operations.dead_letters.entries import text_of

LOOK_BACK: Final = 5_000
"""How many of the newest records of an output partition are searched for what a key's last event was."""

DEADLINE_S: Final = 60.0
TIMEOUT_S: Final = 30.0


class StepRunner:
    """A flow's or a source's step: what it emits is compared with the last event of the same key."""

    def __init__(self, step: Step, registry: Registry, last: LastEvents) -> None:
        self._step = step
        self._registry = registry
        self._last = last

    def run(self, records: Sequence[Record]) -> tuple[list[Answer], HeddleError | None]:
        if not records:
            return [], None
        done = self._step.run(records, Budget(DEADLINE_S, threading.Event()))
        outputs = [outgoing for result in done.results if isinstance(result, list) for outgoing in result]
        self._last.look_for(outputs)
        return [self._answer(result) for result in done.results], done.interrupted

    def _answer(self, result: Any) -> Answer:
        if isinstance(result, Failure):
            return result
        return tuple(self._effect(outgoing) for outgoing in result) if isinstance(result, list) else None

    def _effect(self, outgoing: Outgoing) -> Effect:
        was = self._last.of(outgoing)
        document = ABSENT if was is None else shown_document(was.value, self._registry)
        return Effect(outgoing.topic, text_of(outgoing.key), document, shown_document(outgoing.value, self._registry))


class LastEvents:
    """The last event of each key that is asked for, among the newest of its partition."""

    def __init__(self, admin: Admin, reader: Reader) -> None:
        self._admin = admin
        self._reader = reader
        self._partitions: dict[str, int] = {}
        self._found: dict[tuple[str, int], dict[bytes | None, Record]] = {}

    def look_for(self, outputs: Iterable[Outgoing]) -> None:
        for outgoing in outputs:
            where = self._where(outgoing)
            if where is not None and where not in self._found:
                self._found[where] = self._read(*where)

    def of(self, outgoing: Outgoing) -> Record | None:
        where = self._where(outgoing)
        return None if where is None else self._found.get(where, {}).get(outgoing.key)

    def _where(self, outgoing: Outgoing) -> tuple[str, int] | None:
        """None for a topic that does not exist."""
        topic = outgoing.topic
        if topic not in self._partitions:
            found = self._admin.topics([topic]).get(topic)
            self._partitions[topic] = found.partitions if found is not None else 0
        count = self._partitions[topic]
        return (topic, partition_of(outgoing.key, count)) if count and outgoing.key is not None else None

    def _read(self, topic: str, partition: int) -> dict[bytes | None, Record]:
        end = self._reader.last_stable_offset(topic, partition, TIMEOUT_S)
        start = max(end - LOOK_BACK, 0) or BEGINNING
        return {record.key: record for record in self._reader.scan(topic, partition, TIMEOUT_S, start)}
