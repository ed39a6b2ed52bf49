"""From a declaration to the step that a worker runs."""

from __future__ import annotations

from typing import Any

from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.delivery.async_step import AsyncStep
from heddle.delivery.classify import Classifier
from heddle.delivery.drafts import Drafts
from heddle.delivery.flow_steps import ConvertStep, FunctionStep, MappingStep
from heddle.delivery.native_headers import headers_for
from heddle.delivery.sink_step import SinkStep, Telling
from heddle.delivery.steps import Emitter, Step
from heddle.delivery.tombstones import TombstoneStep
from heddle.errors import UsageError
from heddle.integration import Component, Flow, Sink, Source
from heddle.mapping import Mapping
from heddle.settings import Settings
from heddle.wire.choice import chosen_engine


def open_step(component: Component, project: str, code_digest: str, registry: Registry, settings: Settings) -> Step:
    """`code_digest` names the application's code where no mapping names itself.

    Raises `DependencyDownError` (registry or target does not answer) and `UsageError` (schemas not applied)."""
    match component:
        case Source():
            return ConvertStep(component, Drafts(component, registry, code_digest), code_digest)
        case Flow():
            return _flow_step(component, project, code_digest, registry, settings)
        case Sink():
            return _sink_step(component, project, code_digest, registry, settings)
        case _:
            raise UsageError(f"{component.name} is neither source, flow nor sink")


def _sink_step(sink: Sink[Any], project: str, code_digest: str, registry: Registry, settings: Settings) -> Step:
    codec: AvroCodec[Any] = AvroCodec(contract_of(sink.reads), registry)
    telling = None
    if sink.emits is not None:
        contract = contract_of(sink.emits)
        emitter = Emitter(project, sink.name, contract.name, contract.topic, code_digest)
        telling = Telling(AvroCodec(contract, registry), contract.key_of, emitter)
    return SinkStep(sink, codec, code_digest, settings.session_timeout_s, telling)


def _flow_step(flow: Flow[Any, Any], project: str, code_digest: str, registry: Registry, settings: Settings) -> Step:
    target = contract_of(flow.writes)
    reader: AvroCodec[Any] = AvroCodec(contract_of(flow.reads), registry)
    writer: AvroCodec[Any] = AvroCodec(target, registry)
    digest = flow.do.digest if isinstance(flow.do, Mapping) else code_digest
    emitter = Emitter(project, flow.name, target.name, target.topic, digest, headers_for(settings.codec))
    step = _event_step(flow, reader, writer, emitter, digest, settings)
    if flow.on_tombstone == "park":
        return step
    key_of = flow.on_tombstone if callable(flow.on_tombstone) else None
    return TombstoneStep(step, reader.contract, target, key_of, emitter, Classifier(flow.on_failure.classes))


def _event_step(
    flow: Flow[Any, Any], reader: AvroCodec[Any], writer: AvroCodec[Any], emitter: Emitter, digest: str,
    settings: Settings,
) -> Step:  # fmt: skip
    key_of = writer.contract.key_of
    if isinstance(flow.do, Mapping):
        transcoder = flow.do.transcoder(reader, writer, chosen_engine(settings.codec))
        return MappingStep(transcoder, emitter, digest, Classifier(flow.on_failure.classes))
    if flow.is_async:
        concurrency, batch_deadline_s = settings.async_concurrency, settings.batch_deadline_s
        return AsyncStep(flow, reader, writer, key_of, emitter, digest, concurrency, batch_deadline_s)
    return FunctionStep(flow, reader, writer, key_of, emitter, digest)
