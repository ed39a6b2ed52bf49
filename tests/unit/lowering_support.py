"""One mapping between two contracts in memory, lowered for their writers: which way its fields go, and what an engine
makes of records, which must be what the object path makes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import fastavro
from mapping_support import LINE, ORDER, ORDER_VALUE, decimal, schema, symbols

from heddle.contracts import AvroCodec, Contract, MemoryRegistry
from heddle.contracts.metadata import Metadata
from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Record
from heddle.mapping.batch import DictTranscoder
from heddle.mapping.check import Checker
from heddle.mapping.compile import compile_plan
from heddle.mapping.language import as_rule
from heddle.mapping.lowering import Lowered, lower
from heddle.mapping.rules import Build, Condition, Plan
from heddle.wire import plan as wire
from heddle.wire.engine import Output
from heddle.wire.python_engine import PythonEngine

OTHER_WRITER = b"\0\0\0\0\x64"
"""The frame of a writer's schema that is not the contract's own."""

KIND = symbols("Kind", "LOST", "DONE", "PAID", "NEW")
MONEY = decimal(14, 4)
ITEM = schema("Item", article="string", pieces="int", price=decimal(10, 2))

VALUES: list[dict[str, Any]] = [
    ORDER_VALUE,
    ORDER_VALUE | {"note": "häßlich", "cost": None, "seen": None, "customer": None, "lines": [], "parts": None},
    ORDER_VALUE | {"stage": "NEW", "mood": None, "count": -5, "price": Decimal("-1.28"), "flag": False, "parts": []},
    ORDER_VALUE | {"stage": "LOST", "mood": "BAD", "count": 0, "big": -(2**63), "big_or_null": 2**63 - 1, "id": ""},
    ORDER_VALUE | {"customer": {"first": "Ada", "last": "L", "address": None}, "day_or_null": date(1, 1, 1)},
    ORDER_VALUE | {"lines": [LINE | {"quantity": -1, "tags": []}, LINE | {"discount": Decimal("1.00")}] * 2},
    ORDER_VALUE | {"price": Decimal("0.00"), "note": "O-1", "at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)},
]  # fmt: skip


class _Registry(MemoryRegistry):
    """Knows one more writer."""

    def __init__(self, contracts: Sequence[Contract], writer: dict[str, Any] | None) -> None:
        super().__init__(contracts)
        self._writer = writer

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self._writer if schema_id == 100 and self._writer else super().schema(schema_id)


@dataclass(frozen=True)
class Between:
    """A checked mapping between two contracts, and the schema of one more writer."""

    source: Contract
    target: Contract
    plan: Plan
    other: dict[str, Any] | None = None

    @cached_property
    def _registry(self) -> _Registry:
        return _Registry([self.source, self.target], self.other)

    @cached_property
    def reader(self) -> AvroCodec[Any]:
        return AvroCodec(self.source, self._registry)

    @cached_property
    def writer(self) -> AvroCodec[Any]:
        return AvroCodec(self.target, self._registry)

    @cached_property
    def objects(self) -> DictTranscoder:
        return DictTranscoder(compile_plan(self.plan).function, self.reader, self.writer, self.target.key_of)

    def lowered(self, frame: bytes | None = None) -> Lowered:
        """For the writer of a frame; without one for the contract itself."""
        action: Any = self.reader.plan(frame or self.reader.frame)
        return lower(self.plan, "0" * 64, action, self.source, self.target)

    def wire_plan(self, frame: bytes | None = None) -> wire.WirePlan:
        found = self.lowered(frame)
        assert found.plan is not None, found.reason
        return found.plan

    def way(self, path: str = "out", frame: bytes | None = None) -> str:
        return next(field.way for field in self.lowered(frame).fields if field.path == path)

    def why(self, path: str = "out") -> str:
        return next(field.why for field in self.lowered().fields if field.path == path)

    def written(self, *values: dict[str, Any]) -> list[bytes]:
        """Records as the contract's own writer writes them."""
        return [self.reader.encode_dict(value) for value in values]

    def agree(self, values: Sequence[bytes]) -> list[Output | None]:
        """What comes out on the engine, which is what comes out on the object path; and both refuse the same."""
        engine = PythonEngine()
        for frame in {value[:5] for value in values}:
            engine.add(frame, self.wire_plan(frame), self.lowered(frame).functions, self.writer.frame)
        outputs, refused = engine.transcode(values)
        expected, failures = self.objects.transcode(values)
        assert refused == [failure.index for failure in failures]
        assert list(outputs) == list(expected)
        return list(outputs)


def between(
    target: dict[str, Any], condition: Condition | None = None, *, source: dict[str, Any] = ORDER,
    other: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **rules: Any,
) -> Between:  # fmt: skip
    """`other`: one more writer's schema. `metadata`: of the target; its key is `id` where that says nothing."""
    contracts = _contract("test.source.v1", source, {}), _contract("test.target.v1", target, metadata or {})
    checker = Checker(contracts[0].root, contracts[1].root)
    build = Build(tuple((name, as_rule(rule)) for name, rule in rules.items()))
    plan = checker.plan("test.source.v1", "test.target.v1", condition, build)
    assert [str(problem) for problem in checker.problems] == []
    return Between(*contracts, plan, other)


def one_field(node: Any, rule: Any, condition: Condition | None = None, **more: Any) -> Between:
    """A target of an id, and of a field `out` that one rule makes."""
    return between(schema("Target", id="string", out=node), condition, id="id", out=rule, **more)


def _contract(name: str, source: dict[str, Any], metadata: dict[str, Any]) -> Contract:
    root, text = parse_schema(source), json.dumps(source)
    assert isinstance(root, Record)
    more = Metadata(**({"owner": "testers", "description": "For tests.", "key": ("id",)} | metadata))
    parsed: Any = fastavro.parse_schema(json.loads(text))
    return Contract(name, text, Path(name), text, source, parsed, root, more)


def shout(value: str | None) -> str | None:
    return None if value is None else value + "!"
