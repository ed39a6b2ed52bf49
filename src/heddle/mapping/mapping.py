"""A mapping from one contract to another: rules per target field, checked when declared."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, TypeVar

from heddle.contracts import AvroCodec, Contract, contract_of
from heddle.contracts.resolution import Action, ReadRecord
from heddle.mapping.batch import DictTranscoder
from heddle.mapping.check import Checker
from heddle.mapping.compile import Compiled, compile_plan
from heddle.mapping.declared import Declared, declared_here
from heddle.mapping.document import document
from heddle.mapping.language import RuleLike, as_rule
from heddle.mapping.lowering import Lowered, lower
from heddle.mapping.objects import from_native, to_native
from heddle.mapping.plan import digest_of
from heddle.mapping.refusals import MappingDeclarationError
from heddle.mapping.rules import Build, Condition, Plan
from heddle.mapping.transcoder import Transcoder
from heddle.mapping.wire_transcoder import WireTranscoder
from heddle.wire.engine import Engine

S = TypeVar("S")
T = TypeVar("T")


class Mapping(Generic[S, T]):
    """How a target event is made of a source event: `Mapping(Deal, Invoice, invoice_id=text("INV-", take("deal_id")))`.

    A keyword per target field; fields with a schema default may be left out. Records for which `when` does not hold
    give no output. Everything is checked here, against both contracts: raises `MappingDeclarationError` with every
    problem and its line. Contains no state, so one mapping serves any number of threads."""

    def __init__(
        self, source: type[S], target: type[T], /, *, when: Condition | None = None, **fields: RuleLike
    ) -> None:
        self.source = source
        self.target = target
        self._from = contract_of(source)
        self._to = contract_of(target)
        self.plan = _checked(self._from, self._to, when, fields, declared_here())

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical plan: the same in every process and Python version."""
        return digest_of(self.plan)

    @cached_property
    def compiled(self) -> Compiled:
        """The generated function over native dicts, and its source text."""
        return compile_plan(self.plan)

    def __call__(self, value: S) -> T | None:
        """The target value, or None where `when` does not hold. Raises `RuleError` with the target field's path."""
        output = self.compiled.function(to_native(self._from, value))
        return None if output is None else from_native(self._to, output)

    def lowered(self, action: Action) -> Lowered:
        """As a plan over the bytes of one writer, whose schema `action` reads as the source contract."""
        assert isinstance(action, ReadRecord)  # contracts are records, and so is what can be read as one
        return lower(self.plan, self.digest, action, self._from, self._to)

    def transcoder(self, reader: AvroCodec[S], writer: AvroCodec[T], engine: Engine | None = None) -> Transcoder:
        """Input bytes to output records, a batch at a time: with `engine`, which this one then has for itself, else
        value by value."""
        objects = DictTranscoder(self.compiled.function, reader, writer, self._to.key_of)
        if engine is None:
            return objects
        return WireTranscoder(engine, lambda frame: self.lowered(reader.plan(frame)), lambda: writer.frame, objects)

    def document(self, name: str) -> str:
        """The field-level mapping document of flow `name`, in Markdown."""
        return document(name, self.plan, self._from, self._to)

    def __repr__(self) -> str:
        return f"Mapping({self.source.__name__}, {self.target.__name__})"


def _checked(
    source: Contract, target: Contract, when: Condition | None, fields: dict[str, Any], place: Declared
) -> Plan:
    checker = Checker(source.root, target.root)
    rules = Build(tuple((name, as_rule(given)) for name, given in fields.items()))
    plan = checker.plan(source.name, target.name, when, rules)
    if checker.problems:
        listed = sorted((place.line_of(p.target), str(p)) for p in checker.problems)
        raise MappingDeclarationError(
            f"mapping {source.name} to {target.name}", [f"{place.short_file}:{line}: {text}" for line, text in listed]
        )
    return plan
