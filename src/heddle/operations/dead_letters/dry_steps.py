"""Running records with effects discarded: a flow or a source in its own step, a sink by what it says it would write."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

from heddle.broker.log import BEGINNING, Admin, Outgoing, Reader, Record
from heddle.broker.murmur2 import partition_of
from heddle.contracts import AvroCodec, Codec, Registry, contract_of
from heddle.contracts.json_form import scalar_to_json
from heddle.delivery.build import open_step
from heddle.delivery.sink_step import delivered
from heddle.delivery.steps import Budget, FailedKeys, Step
from heddle.errors import AuthError, DependencyDownError, Failure, HeddleError
from heddle.integration import Component, Outcome, Sink
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.documents import shown_document
from heddle.operations.dead_letters.dry_run import Answer, Done, Effect, Runner
from heddle.operations.dead_letters.entries import text_of
from heddle.preview import Preview, PreviewableSink, Rows
from heddle.project import Project, sources_digest
from heddle.settings import Settings

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
        results = [done.listed(result) for result in done.results]
        self._last.look_for([outgoing for result in results if isinstance(result, list) for outgoing in result])
        return [self._answer(result) for result in results], done.interrupted

    def _answer(self, result: Any) -> Answer:
        if isinstance(result, Failure):
            return result
        if not isinstance(result, list):
            return None
        return Done("emitted", tuple(self._effect(outgoing) for outgoing in result))

    def _effect(self, outgoing: Outgoing) -> Effect:
        was = self._last.of(outgoing)
        document = ABSENT if was is None else shown_document(was.value, self._registry)
        return Effect(outgoing.topic, text_of(outgoing.key), document, shown_document(outgoing.value, self._registry))


class SinkRunner:
    """A sink that can tell what it would do is asked; of any other the events are read, and shown."""

    def __init__(self, sink: Sink[Any], codec: Codec[Any], registry: Registry) -> None:
        self._sink = sink
        self._codec = codec
        self._registry = registry

    def run(self, records: Sequence[Record]) -> tuple[list[Answer], HeddleError | None]:
        values, undecodable = self._codec.decode_batch([record.value for record in records])
        answers: list[Answer] = [None] * len(records)
        failed = FailedKeys(by_key=self._sink.order == "park")
        for failure in undecodable:
            answers[failure.index] = self._undecodable(records[failure.index], failure)
        eligible = []
        for index, record in enumerate(records):
            if isinstance(answers[index], Failure):
                failed.add(record)
            elif failed.head_of(record) is not None:
                answers[index] = None
            elif answers[index] is None:
                eligible.append(index)
        try:
            told = self._told([(records[i], values[i]) for i in eligible])
        except (DependencyDownError, AuthError) as error:
            return [], error
        for index, answer in zip(eligible, told, strict=True):
            answers[index] = answer
        return answers, None

    def _undecodable(self, record: Record, failure: Failure) -> Answer:
        """A tombstone is one of these for the codec; a sink may have declared what becomes of it."""
        if record.value is not None or self._sink.on_tombstone == "park":
            return failure
        if self._sink.on_tombstone == "ignore":
            return Done(str(Outcome.APPLIED))
        return Done("unclear", obstacle="a tombstone: what it deletes is not tried beforehand")

    def _told(self, events: Sequence[tuple[Record, Any]]) -> list[Answer]:
        if not isinstance(self._sink, PreviewableSink):
            return [Done("readable", (self._event(record),)) for record, _ in events]
        batch = [delivered(record, value) for record, value in events]
        previews = self._sink.preview(batch) if batch else []
        return [self._answer(preview, record) for preview, (record, _) in zip(previews, events, strict=True)]

    def _answer(self, preview: Preview, record: Record) -> Answer:
        if isinstance(preview.answer, Failure):
            return preview.answer
        if preview.answer is None:
            return Done("unclear", obstacle=preview.obstacle) if preview.obstacle else None
        effects: tuple[Effect, ...] = ()
        if preview.now is not None and preview.then is not None and preview.now != preview.then:
            effects = (Effect(self._sink.name, text_of(record.key), _rows(preview.now), _rows(preview.then)),)
        recovered = preview.answer.outcome is Outcome.APPLIED and preview.answer.recovered
        return Done("duplicate" if recovered else str(preview.answer.outcome), effects)

    def _event(self, record: Record) -> Effect:
        return Effect(self._sink.name, text_of(record.key), ABSENT, shown_document(record.value, self._registry))


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


@contextmanager
def open_runner(
    component: Component, project: Project, registry: Registry, settings: Settings, admin: Admin, reader: Reader
) -> Iterator[Runner]:
    """The present code of a component. Raises `DependencyDownError` and `UsageError` (schemas not applied)."""
    if isinstance(component, Sink):
        yield SinkRunner(component, AvroCodec(contract_of(component.reads), registry), registry)
        return
    step = open_step(component, project.name, sources_digest(project.root), registry, settings)
    with closing(step):
        yield StepRunner(step, registry, LastEvents(admin, reader))


def _rows(rows: Rows) -> Any:
    """An entity's rows as a document; `ABSENT` for none."""
    if not rows.count:
        return ABSENT
    documents = [{name: _json(value) for name, value in row.items()} for row in rows.shown]
    if rows.count > len(documents):
        documents.append({"…": f"{rows.count - len(documents)} more rows"})
    return documents[0] if rows.count == 1 else documents


def _json(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _json(part) for name, part in value.items()}
        case list() | tuple():
            return [_json(part) for part in value]
        case None | bool() | int() | float() | str():
            return scalar_to_json(value)
        case _:
            told = scalar_to_json(value)
            return told if isinstance(told, str) else str(value)
