"""What a record must become: decoded, interpreted and encoded by the references, none of which shares code with an
engine; and the same by fastavro in place of both codecs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from json import dumps, loads
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastavro

from heddle.contracts import AvroCodec, Contract, MemoryRegistry
from heddle.contracts.codec import FRAME_BYTES
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.metadata import Metadata
from heddle.contracts.parser import parse_schema
from heddle.contracts.refusals import TombstoneError, TooLargeError
from heddle.contracts.resolution import ReadRecord
from heddle.contracts.schema import Node, Record
from heddle.contracts.shapes import DictShape
from heddle.errors import HeddleError
from heddle.mapping.batch import DictTranscoder
from heddle.mapping.check import Checker
from heddle.mapping.compile import compile_plan
from heddle.mapping.interpret import interpret
from heddle.mapping.language import as_rule
from heddle.mapping.lowering import Lowered, lower
from heddle.mapping.plan import digest_of
from heddle.mapping.rules import Build, Condition, Plan
from heddle.wire.engine import Output

_DICTS = DictShape()


@dataclass(frozen=True)
class Answer:
    """An output, or why there is none: left out by `when`, or refused with (code, path)."""

    output: Output | None = None
    refusal: tuple[str, str] | None = None


def contract_in_memory(name: str, schema: dict[str, Any], key: Sequence[str] = ("id",), **more: Any) -> Contract:
    """A contract without files. `more`: what else its metadata says."""
    root = parse_schema(schema)
    assert isinstance(root, Record)
    text = dumps(schema)
    metadata = Metadata(owner="testers", description="For tests.", key=tuple(key), **more)
    parsed: Any = fastavro.parse_schema(loads(text))
    return Contract(name, sha256(text.encode()).hexdigest(), Path(name), text, schema, parsed, root, metadata)


class Writers(MemoryRegistry):
    """A registry whose ids from 100 on are schemas that writers registered elsewhere."""

    def __init__(self, contracts: Sequence[Contract], writers: Sequence[dict[str, Any]]) -> None:
        super().__init__(contracts)
        self.written = dict(enumerate(writers, 100))

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self.written[schema_id] if schema_id in self.written else super().schema(schema_id)


@dataclass(frozen=True)
class Crossing:
    """One checked mapping between two contracts, and the writers whose records come to it."""

    source: Contract
    target: Contract
    plan: Plan
    writers: tuple[dict[str, Any], ...]

    @cached_property
    def registry(self) -> Writers:
        return Writers([self.source, self.target], self.writers)

    @cached_property
    def reader(self) -> AvroCodec[Any]:
        return AvroCodec(self.source, self.registry)

    @cached_property
    def writer(self) -> AvroCodec[Any]:
        return AvroCodec(self.target, self.registry)

    @cached_property
    def nodes(self) -> Mapping[bytes, Node]:
        """Each writer's schema by its frame."""
        return {bytes([0]) + i.to_bytes(4, "big"): parse_schema(s) for i, s in self.registry.written.items()}

    @cached_property
    def objects(self) -> DictTranscoder:
        """The object path: what does again whatever an engine refuses."""
        return DictTranscoder(compile_plan(self.plan).function, self.reader, self.writer, self.target.key_of)

    def lowered(self, frame: bytes) -> Lowered:
        """The plan for what one writer wrote."""
        action = self.reader.plan(frame)
        assert isinstance(action, ReadRecord)
        return lower(self.plan, digest_of(self.plan), action, self.source, self.target)

    def decoded(self, value: bytes) -> dict[str, Any]:
        """Raises a `HeddleError` for what the contract cannot read."""
        action = self.reader.plan(value[:FRAME_BYTES])
        return decode_reference(action, _DICTS, DEFAULT_LIMITS, value, FRAME_BYTES)  # type: ignore[no-any-return]

    def answer(self, value: bytes | None) -> Answer:
        """By the references."""
        try:
            if value is None:
                raise TombstoneError("null")
            output = interpret(self.plan, self.decoded(value))
            if output is None:
                return Answer()
            body = encode_reference(self.target.root, _DICTS, DEFAULT_LIMITS, output)
        except HeddleError as error:
            return Answer(refusal=(error.code, getattr(error, "path", "")))
        return self._answer(output, body)

    def _answer(self, output: dict[str, Any], body: bytes) -> Answer:
        framed = self.writer.frame + body
        if len(framed) > self.target.metadata.topic.max_message_bytes:
            return Answer(refusal=(TooLargeError.code, ""))
        return Answer((key_of(self.target, output), framed))

    def fastavro_answer(self, value: bytes) -> Answer:
        """The interpreted rules between fastavro's codecs. Raises whatever fastavro raises.

        Its writer has a known fault: a negative zero in a decimal of type `fixed` becomes -2, not 0 (seen in
        1.13.1). It is given zeros without a sign, which Avro cannot keep anyway; no other value is touched."""
        written = self.registry.schema(int.from_bytes(value[1:FRAME_BYTES], "big"))
        stream = io.BytesIO(value[FRAME_BYTES:])
        native = fastavro.schemaless_reader(stream, fastavro.parse_schema(loads(dumps(written))), self.source.schema)
        try:
            output = interpret(self.plan, native)  # type: ignore[arg-type]
        except HeddleError as error:
            return Answer(refusal=(error.code, getattr(error, "path", "")))
        if output is None:
            return Answer()
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self.target.schema, without_negative_zeros(output))
        return self._answer(output, out.getvalue())


def crossing_between(
    source: Contract, target: Contract, rules: Mapping[str, Any], writers: tuple[dict[str, Any], ...],
    when: Condition | None = None,
) -> Crossing:  # fmt: skip
    """The rules checked as a declared mapping's are."""
    checker = Checker(source.root, target.root)
    build = Build(tuple((name, as_rule(rule)) for name, rule in rules.items()))
    plan = checker.plan(source.name, target.name, when, build)
    assert not checker.problems, [str(problem) for problem in checker.problems]
    return Crossing(source, target, plan, writers)


def without_negative_zeros(value: Any) -> Any:
    """The value with 0 in place of a decimal's -0, of the same exponent, wherever it stands."""
    match value:
        case Decimal() if value.is_zero():
            return value.copy_abs()
        case dict():
            return {name: without_negative_zeros(each) for name, each in value.items()}
        case list():
            return [without_negative_zeros(each) for each in value]
        case tuple():
            return tuple(map(without_negative_zeros, value))
        case _:
            return value


def key_of(contract: Contract, value: dict[str, Any]) -> bytes:
    """The record key, spelt out. Key fields here are never missing and never null."""
    names = contract.metadata.key
    parts = [_spelt(_at(value, name)) for name in names]
    entity = parts[0] if len(parts) == 1 else "/".join(quote(part, safe="") for part in parts)
    tenant = contract.metadata.tenant
    first = "default" if tenant is None else _spelt(_at(value, tenant))
    return f"{quote(first, safe='')}/{quote(entity, safe='')}".encode()


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value


def _spelt(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
