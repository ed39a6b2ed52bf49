"""A checked mapping, for what one writer wrote, as a plan over bytes: what engines run.

Every rule becomes instructions or, where there are none for it, a call of a Python function. What has no plan at all
is left to the object path. Schema evolution is settled here: the walk follows the writer's bytes, rules speak of the
contract's fields, and what the writer lacks is a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heddle.contracts import Contract
from heddle.contracts.limits import DEFAULT_LIMITS, Limits
from heddle.contracts.resolution import ReadRecord
from heddle.contracts.schema import Node
from heddle.mapping.document import rows_of
from heddle.mapping.lowering.calls import Calls
from heddle.mapping.lowering.conditions import condition_of
from heddle.mapping.lowering.keys import key_fields, key_of
from heddle.mapping.lowering.pieces import Piece, emits_of, merged
from heddle.mapping.lowering.registers import Renumbering
from heddle.mapping.lowering.slots import Registers, Slot, Unlowered, Unplanned, record_levels
from heddle.mapping.lowering.values import FALSE, TRUE, Levels, Made, Tree, Wire, fork
from heddle.mapping.lowering.ways import Way, way_of
from heddle.mapping.lowering.writes import Writes
from heddle.mapping.plan import inner_rules
from heddle.mapping.rules import Build, Condition, Constant, Each, Items, Plan, Rule, Take
from heddle.wire import plan as wire
from heddle.wire.engine import Function

_KEY = "record key"


@dataclass(frozen=True, slots=True)
class FieldPath:
    """How one target field is made, or beside the fields `when` and `record key`. `way`: `copied`, `constant`,
    `instructions` or `call`; `why` is a clause."""

    path: str
    way: str
    why: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """`functions` are those of the plan's calls. `reason` says why there is no plan, or is empty."""

    plan: wire.WirePlan | None
    functions: tuple[Function, ...]
    fields: tuple[FieldPath, ...]
    reason: str = ""


def lower(
    plan: Plan, digest: str, action: ReadRecord, source: Contract, target: Contract, limits: Limits = DEFAULT_LIMITS
) -> Lowered:
    """The plan for records that are read with `action`, or why there is none; `digest` is the mapping's own."""
    try:
        if record_levels(action) + _levels(plan.record) > limits.max_written_depth:
            raise Unplanned(f"records may lie inside records more than {limits.max_written_depth} deep")
        return _Lowering(action, source, target, limits).lowered(plan, digest)
    except Unplanned as unplanned:
        return Lowered(None, (), (), str(unplanned))


def _levels(rule: Rule) -> int:
    """How deep a mapping puts records, made or left to their defaults, inside records."""
    match rule:
        case Build(rules):
            return 1 + max((_levels(inner) for _, inner in rules), default=0)
        case Items(rules):
            return max(map(_levels, rules), default=0)
        case Each(_, inner):
            return _levels(inner)
        case Constant(value):
            return _levels_of_default(value)
    return 0


def _levels_of_default(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(_levels_of_default, value.values()), default=0)
        case list():
            return max(map(_levels_of_default, value), default=0)
    return 0


class _Lowering(Writes):
    """One mapping for one writer. Notes on the way how each target path is made."""

    def __init__(self, action: ReadRecord, source: Contract, target: Contract, limits: Limits) -> None:
        super().__init__(limits)
        self._target = target
        self._root = Slot(action, Registers())
        self._levels: Levels = (Wire(self._root),)
        self._calls = Calls(self._root, f"{source.name} to {target.name}", limits)
        self._ways: dict[str, Way] = {}
        self._unasked = ""

    def lowered(self, plan: Plan, digest: str) -> Lowered:
        when, asked = (None, []) if plan.when is None else self._when(plan.when)
        pieces = self.write(Made(plan.record, self._levels), self._target.root, "")
        key, keyed = self._key(plan.record)
        emits = emits_of(pieces)
        calls = tuple(self._calls.calls)
        walk = self._root.walk()
        assert isinstance(walk, wire.Record)
        registers = Renumbering(walk, (when, emits, key, calls))
        made = wire.WirePlan(
            mapping=digest,
            walk=registers.of(walk),
            when=registers.of(when),
            emits=registers.of(emits),
            key=registers.of(key),
            max_input_bytes=self.limits.max_bytes,
            max_output_bytes=self._target.metadata.topic.max_message_bytes,
            marks=registers.marks,
            numbers=registers.numbers,
            calls=registers.of(calls),
        )
        fields = [FieldPath(row.target, *self._way(row.target)) for row in rows_of(plan)]
        return Lowered(made, tuple(self._calls.functions), (*asked, *fields, keyed))

    def field(self, rule: Rule, node: Node, levels: Levels, path: str) -> tuple[Piece, ...]:
        calls = len(self._calls.calls)
        try:
            pieces = merged(self.write(self.tree(rule, levels), node, path))
        except Unlowered as unlowered:
            if len(levels) > 1:
                raise
            self._calls.forget(calls)
            self._ways = {at: way for at, way in self._ways.items() if not _is_inside(at, path)}
            self._ways[path] = Way("call", str(unlowered))
            return (wire.Spliced(self._calls.value(rule, node, path)),)
        self._ways[path] = way_of(pieces, reads=any(isinstance(inner, Take) for inner in inner_rules(rule)))
        return pieces

    def condition(self, condition: Condition, levels: Levels) -> Tree:
        calls = len(self._calls.calls)
        try:
            return self.asked(condition, levels)
        except Unlowered as unlowered:
            if len(levels) > 1:
                raise
            self._calls.forget(calls)
            self._unasked = str(unlowered)
            return fork(wire.Holds(self._calls.holds(condition)), TRUE, FALSE)

    def _when(self, condition: Condition) -> tuple[wire.Condition | None, list[FieldPath]]:
        tree = self.condition(condition, self._levels)
        found = condition_of(tree)
        if found is None:
            self._calls.forget(0)
            self._unasked = "it may refuse the record"
            found = wire.Holds(self._calls.holds(condition))
        way = Way("call", self._unasked) if self._calls.calls else Way("instructions", "asked of the bytes")
        return None if tree is TRUE else found, [FieldPath("when", *way)]

    def _key(self, record: Build) -> tuple[wire.Key, FieldPath]:
        calls, metadata = len(self._calls.calls), self._target.metadata
        try:
            made = key_of(metadata, record, lambda rule: self.tree(rule, self._levels))
        except Unlowered as unlowered:
            self._calls.forget(calls)
            call = self._calls.add(key_fields(metadata, record), _KEY, self._target.key_of)
            return wire.Key(call=call), FieldPath(_KEY, "call", str(unlowered))
        # Parts hold no calls; what was asked to find them is asked where the fields are made.
        self._calls.forget(calls)
        return made, FieldPath(_KEY, "instructions", "put together as text")

    def _way(self, path: str) -> Way:
        """How a target path is made: for itself, or as a part of what lies around it."""
        if path in self._ways:
            return self._ways[path]
        around = path.removesuffix("[]") if path.endswith("[]") else path[: max(path.rfind("."), path.rfind("["))]
        way, why = self._way(around)
        return Way(way, why if why.startswith("as a part of ") else f"as a part of {around}: {why}")


def _is_inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))
