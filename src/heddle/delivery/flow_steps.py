"""Steps of flows and of a source's conversion: mapping, function, converter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from heddle.broker.log import Record
from heddle.contracts import Codec
from heddle.delivery.attempts import Attempts
from heddle.delivery.classify import Classifier, interruption
from heddle.delivery.doubts import Doubts
from heddle.delivery.drafts import Drafts
from heddle.delivery.steps import Budget, Emitter, NoFence, Result, Run, listed, parsed_headers, run_in_order
from heddle.event import Event
from heddle.integration import Flow, Source
from heddle.mapping.transcoder import Transcoder
from heddle.on_failure import holds_keys


class MappingStep(NoFence):
    """Whole batches through the transcoder: no object per record, and no second try of what is a function of its
    input."""

    def __init__(self, transcoder: Transcoder, emitter: Emitter, digest: str, classifier: Classifier) -> None:
        self.digest = digest
        self._transcoder = transcoder
        self._emitter = emitter
        self._classifier = classifier

    def run(self, records: Sequence[Record], budget: Budget) -> Run:  # noqa: ARG002 - a batch of mappings is far shorter
        outputs, failures = self._transcoder.transcode([record.value for record in records])
        batch, carries = self._emitter.batch(records, outputs)
        results: list[Result] = [*range(len(records))]
        for failure in map(self._classifier.reviewed, failures):
            if (interrupted := interruption(failure)) is not None:
                return Run(results[: failure.index], interrupted, batch, carries)
            results[failure.index] = failure
        return Run(results, None, batch, carries)


class FunctionStep(NoFence):
    """A plain function, record by record, in log order."""

    def __init__(
        self, flow: Flow[Any, Any], reader: Codec[Any], writer: Codec[Any], key_of: Callable[[Any], bytes],
        emitter: Emitter, digest: str,
    ) -> None:  # fmt: skip
        self.digest = digest
        self.longest_call_s = flow.deadline_s
        self._call = caller(flow)
        self._writes = flow.writes
        self._reader = reader
        self._writer = writer
        self._key_of = key_of
        self._emitter = emitter
        self._by_key = holds_keys(flow.order)
        self._attempts = Attempts.of(flow.on_failure, flow.deadline_s)
        self._doubts = Doubts()

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        values, failures = self._reader.decode_batch([record.value for record in records])
        undecodable = {failure.index: failure for failure in failures}

        def one(index: int, record: Record) -> Result:
            known = undecodable.get(index) or self._doubts.about(index, record)
            return known or self._one(record, values[index])

        return run_in_order(records, budget, self._by_key, one, self._attempts)

    def release(self, partitions: Iterable[int]) -> None:
        self._doubts.forget(frozenset(partitions))

    def _one(self, record: Record, value: Any) -> Result:
        try:
            return self._emitted(record, value)
        except Exception as error:
            self._doubts.note(record, self._attempts.classifier.failure_of(0, error))
            raise

    def _emitted(self, record: Record, value: Any) -> Result:
        encode, key_of = self._writer.encode, self._key_of
        outputs = listed(self._call(record, value), self._writes)
        return self._emitter.outputs(record, [(key_of(output), encode(output)) for output in outputs])


class ConvertStep(NoFence):
    """A source's raw records to contract events, whose identity is the vendor's."""

    def __init__(self, source: Source, drafts: Drafts, digest: str) -> None:
        self.digest = digest
        self._source = source
        self._drafts = drafts
        self._by_key = holds_keys(source.order)
        self._attempts = Attempts.of(source.on_failure, self.longest_call_s)

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        return run_in_order(records, budget, self._by_key, lambda _, record: self._one(record), self._attempts)

    def _one(self, record: Record) -> Result:
        traceparent = parsed_headers(record).traceparent
        return [self._drafts.event(draft, traceparent) for draft in self._source.convert_record(record)]


def caller(flow: Flow[Any, Any]) -> Callable[[Record, Any], Any]:
    """The handler as (record, value): a second parameter asks for the `Event` too."""
    function: Any = flow.do
    if flow.takes_event:
        return lambda record, value: function(value, event_of(record, value))
    return lambda _, value: function(value)


def event_of(record: Record, value: Any) -> Event[Any]:
    parsed = parsed_headers(record)
    return Event(
        value,
        parsed.identity,
        parsed.type.decode(errors="replace"),
        parsed.time.decode(errors="replace"),
        (record.key or b"").decode(errors="replace"),
        parsed.lineage,
        parsed.traceparent,
        parsed.extra,
    )
