"""Random crossings: a source contract, writers that evolved apart from it, a target, and a mapping between them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st
from mapping_generating import Draw
from mapping_support import ORDER, array, decimal, null_or, schema, symbols
from wire_evolving import Older, readied
from wire_oracle import Crossing, contract_in_memory
from wire_targets import KINDS, Targets
from wire_values import encoded, value_of

from heddle.mapping.plan import plan_json

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from generating import Names, things


@dataclass(frozen=True)
class Drawn:
    """`odd`: by each writer's frame, what of its schema fastavro resolves otherwise than Heddle (`Older.odd`).
    `kept`: the share of drawn rules that the checker took."""

    crossing: Crossing
    odd: Mapping[bytes, set[str]]
    kept: float

    def record(self, dice: Random) -> bytes:
        """A record of one of the writers, in canonical bytes."""
        frame, node = dice.choice(list(self.crossing.nodes.items()))
        return frame + encoded(node, value_of(node, dice))

    def told(self) -> str:
        """What is needed to make the same crossing by hand."""
        source, target, writers = (self.crossing.source, self.crossing.target, self.crossing.writers)
        parts = {"source": source.source, "target": target.source, "writers": writers}
        parts["mapping"] = plan_json(self.crossing.plan)
        return "\n".join(f"{name}: {dumps(part)}" for name, part in parts.items())


AMOUNTS = schema(
    "Amounts",
    id="string",
    note=null_or("string"),
    stage=symbols("Stage", "NEW", "PAID", "LOST"),
    small="int",
    big="long",
    big_or_null=null_or("long"),
    units=decimal(5, 0),
    price=decimal(10, 2),
    cost=null_or(decimal(12, 4)),
    money={"type": "fixed", "name": "Money", "size": 9, "logicalType": "decimal", "precision": 18, "scale": 4},
    lines=array(schema("Line", quantity="int", price=decimal(10, 2), discount=null_or(decimal(8, 3)))),
)

SCHEMAS = things().map(lambda thing: thing[0]) | st.just(ORDER)
"""Any contract, and one on which rules find much to do."""


@st.composite
def ambiguous_schemas(draw: Draw) -> dict[str, Any]:
    """Unions in which one value fits several branches: a writer chooses one, and our encoder the first."""
    names = Names()

    def boxed(kind: Any) -> dict[str, Any]:
        return schema(names.fresh("Text"), text=kind)

    kinds: list[list[Any]] = [
        ["int", "long"],
        ["float", "double"],
        ["long", "double"],
        ["string", symbols("Word", "a", "red", "S0")],
        ["bytes", {"type": "fixed", "name": "Three", "size": 3}],
        [boxed("string"), boxed("string")],
        [boxed("string"), boxed(null_or("string")), "int"],
        [{"type": "map", "values": "string"}, boxed("string")],
    ]
    fields: dict[str, Any] = {"id": "string"}
    for number, branches in enumerate(draw(st.permutations(kinds))[:3]):
        node = draw(st.permutations([*branches, "null"] if draw(st.booleans()) else branches))
        fields[f"f{number}"] = draw(st.sampled_from([node, node, array(node), {"type": "map", "values": node}]))
    return schema("Thing", **fields)


@dataclass(frozen=True)
class Subject:
    """What is drawn of a mapping: `failing` says whether rules may refuse a record, `fields` how many the target has
    beside its key, `kinds` what they are made of, `asks` how often there is a `when`."""

    schemas: st.SearchStrategy[dict[str, Any]]
    failing: bool
    fields: int
    kinds: tuple[str, ...] = KINDS
    asks: float = 0.4


def draw_crossing(draw: Draw, dice: Random, subject: Subject) -> Drawn:
    reader = readied(draw(subject.schemas), dice)
    source = contract_in_memory("test.thing.v1", reader)
    older = [Older(dice) for _ in range(dice.randrange(3))]
    writers = (reader, *(one.record(reader) for one in older))
    targets = Targets(draw, dice, source.root, subject.failing, subject.kinds)
    out, rules, metadata = targets.contract(subject.fields)
    target = contract_in_memory("test.out.v1", out, **metadata)
    crossing = Crossing(source, target, targets.plan(target.root, rules, subject.asks), writers)
    for frame in crossing.nodes:
        crossing.reader.plan(frame)  # raises for a writer that the contract cannot read
    odd = [set[str](), *(one.odd for one in older)]
    return Drawn(crossing, dict(zip(crossing.nodes, odd, strict=True)), targets.kept / max(targets.drawn, 1))
