"""Random target schemas, together with the rules that make them of a source."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from mapping_generating import ROUNDINGS, Draw, Paths, Rules, paths_of
from mapping_support import DATE, MICROS, decimal, null_or
from wire_evolving import default_of

from heddle.contracts.metadata import TopicSettings
from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Array, Enum, Fixed, Map, Node, Primitive, Record, Union
from heddle.contracts.values import default_value
from heddle.mapping import (
    add,
    call,
    choose,
    constant,
    default,
    each,
    enum,
    items,
    join,
    multiply,
    record,
    required,
    subtract,
    take,
    text,
    to_decimal,
    to_integer,
    upper,
    when,
)
from heddle.mapping.check import Checker
from heddle.mapping.language import as_rule
from heddle.mapping.rules import Build, Plan, Take, typed
from heddle.mapping.scope import Level, Scope, item_of
from heddle.mapping.types import Type, logical_of

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from generating import Names


def told(*values: Any) -> str:
    """What a function of a mapping sees of its arguments."""
    return repr(values)


def schema_of(node: Node, dice: Random, names: Names) -> Any:
    """A type for which every value of `node` is fit as it stands: named anew, rearranged, now and then wider."""
    match node:
        case Primitive(logical=None):
            return node.kind
        case Primitive() | Fixed():
            return _plain(node, names)
        case Enum():
            symbols = [*node.symbols, *(["MORE"] if dice.random() < 0.4 else [])]
            dice.shuffle(symbols)
            return {"type": "enum", "name": names.fresh("OutEnum"), "symbols": symbols}
        case Array():
            return {"type": "array", "items": schema_of(node.items, dice, names)}
        case Map():
            return {"type": "map", "values": schema_of(node.values, dice, names)}
        case Union():
            branches = [schema_of(branch, dice, names) for branch in node.branches]
            if not any(isinstance(b, Primitive) and b.kind == "boolean" for b in node.branches):
                branches += ["boolean"] if dice.random() < 0.3 else []
            dice.shuffle(branches)
            return branches
        case Record():
            fields = [{"name": f.name, "type": schema_of(f.type, dice, names), "doc": "."} for f in node.fields]
            if dice.random() < 0.3:
                dice.shuffle(fields)
            return {"type": "record", "name": names.fresh("OutRecord"), "doc": ".", "fields": fields}


def _plain(node: Primitive | Fixed, names: Names) -> dict[str, Any]:
    base: dict[str, Any] = (
        {"type": "fixed", "name": names.fresh("OutFixed"), "size": node.size}
        if isinstance(node, Fixed)
        else {"type": node.kind}
    )
    if node.logical is not None:
        base["logicalType"] = node.logical.name
        if node.logical.name == "decimal":
            base |= {"precision": node.logical.precision, "scale": node.logical.scale}
    return base


NESTED = ("each", "record")
KINDS = (*["take"] * 4, "text", "number", "whole", "day", "moment", "enum", "items", "call", "omit", "each", *NESTED)
NUMBERS = ("number", "whole", "spelt", "sum", "sum")
"""What a target field may be made of; the more often named, the more often drawn."""


@dataclass
class Place:
    """Where a rule stands: its paths with their types, and the same paths by kind."""

    scope: Scope
    levels: tuple[Paths, ...]


class Targets:
    """Draws a target schema field by field together with the rules that make it."""

    def __init__(self, draw: Draw, dice: Random, source: Record, failing: bool, kinds: tuple[str, ...] = KINDS) -> None:
        self.draw, self.dice, self.source, self.failing, self.kinds = draw, dice, source, failing, kinds
        self.names = Names()
        self.drawn = self.kept = 0

    def root(self) -> Place:
        return Place(Scope((Level(Type(self.source), ""),)), (paths_of(self.source),))

    def rules(self, place: Place, depth: int) -> Rules:
        return Rules(self.draw, place.levels, depth, self.failing)

    def contract(self, count: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """A schema, its rules, and what its metadata says of the record key and of the topic."""
        place = self.root()
        key: dict[str, Any] = {"key": ["id"]}
        fields = [("id", "string", self.dice.choice(["id", text("X-", "/", upper("id"))]))]
        more = [path for path in place.levels[0].everything if self._can_be_key(place, path)]
        if more and self.dice.random() < 0.6:
            path = self.dice.choice(more)
            fields.append(("more", schema_of(self._type(place, path).node, self.dice, self.names), path))
            key["key"] = ["id", "more"] if self.dice.random() < 0.5 else ["more"]
        if self.dice.random() < 0.3:
            fields.append(("tenant", "string", self.rules(place, 0).text()))
            key["tenant"] = "tenant"
        if self.dice.random() < 0.3:
            key["topic"] = TopicSettings(max_message_bytes=1024)
        schemas = [{"name": name, "type": node, "doc": "."} for name, node, _ in fields]
        rules = {name: rule for name, _, rule in fields}
        if not self._sound("string", rules.get("tenant", "id")):
            rules["tenant"] = "id"
        others, made = self.fields(place, 2, count)
        for field in others:
            if field["name"] in made and not self._sound(field["type"], made[field["name"]]):
                field["type"], field["default"] = ["null", "string"], None
                del made[field["name"]]
        schema = {"type": "record", "name": "Out", "namespace": "test.v1", "doc": ".", "fields": [*schemas, *others]}
        return schema, rules | made, key

    def plan(self, target: Record, rules: dict[str, Any], asks: float) -> Plan:
        """The checked mapping, with a condition where one can be had, as often as `asks`."""
        when = self.rules(self.root(), 3).condition() if self.dice.random() < asks else None
        build = Build(tuple((name, as_rule(rule)) for name, rule in rules.items()))
        for condition in (when, None):
            checker = Checker(self.source, target)
            plan = checker.plan("test.thing.v1", "test.out.v1", condition, build)
            if not checker.problems:
                return plan
        raise AssertionError(checker.problems)

    def _can_be_key(self, place: Place, path: str) -> bool:
        given = self._type(place, path)
        plain = given.node in (Primitive("string"), Primitive("int"), Primitive("long"))
        return not given.nullable and (
            plain or logical_of(given.node) in ("date", "uuid") or isinstance(given.node, Enum)
        )

    def fields(self, place: Place, depth: int, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Field schemas, and their rules by name."""
        schemas, rules = [], {}
        for number in range(count):
            name = f"t{number}"
            node, rule = self._field(place, depth)
            schemas.append({"name": name, "type": node, "doc": "."})
            if rule is None:
                schemas[-1]["default"] = default_of(parse_schema(node))
            else:
                rules[name] = rule
        return schemas, rules

    def _sound(self, node: Any, rule: Any) -> bool:
        """Whether the checker takes a rule for a type."""
        self.drawn += 1
        target = parse_schema({"type": "record", "name": "One", "fields": [{"name": "t", "type": node}]})
        assert isinstance(target, Record)
        checker = Checker(self.source, target)
        checker.plan("test.thing.v1", "test.out.v1", None, Build((("t", as_rule(rule)),)))
        self.kept += not checker.problems
        return not checker.problems

    def _field(self, place: Place, depth: int) -> tuple[Any, Any]:
        """A type and its rule; no rule where the default is to be taken."""
        rules = self.rules(place, 3)
        match self.dice.choice([kind for kind in self.kinds if depth or kind not in NESTED]):
            case "take":
                return self._taken(place)
            case "text":
                joined = join(*(rules.path("texts") for _ in range(3)), by=self.dice.choice(["", ", "]))
                rule = self.dice.choice([rules.text(), joined])
                return self.dice.choice([(null_or("string"), rule), ("string", default(rule, "none"))])
            case "asked":
                return "string", choose(when(rules.condition(), "yes"), otherwise="no")
            case "number":
                scale = self.dice.choice([0, 2, 6])
                number = to_decimal(rules.number(), scale=scale, rounding=rules.among(*ROUNDINGS))
                return null_or(self._decimal(scale)), number
            case "spelt":
                paths = [take(rules.path("numbers")) for _ in range(3)]
                number = self.dice.choice([rules.number(), paths[0], multiply(*paths[1:]), constant(Decimal("-0.0"))])
                return null_or("string"), text(self.dice.choice(["", "n"]), number)
            case "sum":
                return self._sum(rules)
            case "whole":
                return null_or(self.dice.choice(["int", "long"])), to_integer(rules.number(), rounding="down")
            case "day":
                return null_or(DATE), rules.day()
            case "moment":
                return null_or(MICROS), rules.moment()
            case "enum":
                return self._symbol(rules)
            case "items":
                inner = self.dice.choice([rules.text, rules.cell])
                return {"type": "array", "items": null_or("string")}, items(*(inner() for _ in range(2)))
            case "call":
                paths = [rules.path("everything") for _ in range(self.dice.randrange(1, 4))]
                return "string", call(told, *(path for path in paths if path))
            case "each":
                return self._each(place, rules, depth)
            case "record":
                schemas, made = self.fields(place, depth - 1, self.dice.randrange(1, 4))
                return self._record(schemas), record(made)
            case _:
                node = self._any_type(place)
                return node, None

    def _sum(self, rules: Rules) -> tuple[Any, Any]:
        """Two values of the source, so that bounds are met which deeper rules seldom reach."""
        kind = self.dice.choice(["numbers", "longs"])
        one, other = rules.path(kind), rules.path(kind)
        made = self.dice.choice([add, subtract, multiply])(one, other)
        wide = null_or(decimal(60, 8)), to_decimal(made, scale=8, rounding="up")
        return self.dice.choice([wide, (null_or("long"), made), (null_or("int"), made), (null_or(decimal(9, 4)), made)])

    def _decimal(self, scale: int) -> dict[str, Any]:
        digits = scale + self.dice.choice([3, 8, 12, 30])
        if digits > 18 or self.dice.random() < 0.6:
            return decimal(digits, scale)
        return decimal(digits, scale) | {"type": "fixed", "name": self.names.fresh("OutFixed"), "size": 8}

    def _any_type(self, place: Place) -> Any:
        path = self.rules(place, 0).path("everything")
        return schema_of(self._type(place, path).node, self.dice, self.names)

    def _record(self, fields: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "record", "name": self.names.fresh("Made"), "doc": ".", "fields": fields}

    def _type(self, place: Place, path: str) -> Type:
        return typed(place.scope.resolve(Take(path)))

    def _taken(self, place: Place) -> tuple[Any, Any]:
        """A value as it stands, under a type of its own or a wider one; null made something else at times."""
        path = self.rules(place, 0).path("everything")
        given = self._type(place, path)
        bare = schema_of(given.node, self.dice, self.names)
        rule: Any = path
        if given.nullable and self.dice.random() < 0.5:
            choice = self.dice.choice(["default", "other", *(["required"] if self.failing else [])])
            if choice == "required":
                return bare, required(path)
            other = (
                constant(default_value(given.node, default_of(given.node)))
                if choice == "default"
                else self.rules(place, 0).path("everything")
            )
            rule = default(path, other)
        elif not given.nullable and self.dice.random() < 0.7:
            return self._wider(given.node, bare), rule
        if isinstance(bare, list):
            return [*bare, "null"] if "null" not in bare else bare, rule
        return self.dice.choice([["null", bare], [bare, "null"]]), rule

    def _wider(self, node: Node, bare: Any) -> Any:
        match node:
            case Primitive("int", None):
                return self.dice.choice(["int", "long", "double", decimal(12, 2)])
            case Primitive("long", logical) if logical is not None and logical.name == "timestamp-millis":
                return self.dice.choice([bare, MICROS])
            case Primitive("bytes", logical) if logical is not None:
                more = self.dice.randrange(3)
                return decimal(logical.precision + more + self.dice.randrange(2), logical.scale + more)
            case Enum():
                return self.dice.choice([bare, "string"])
        return bare

    def _symbol(self, rules: Rules) -> tuple[Any, Any]:
        path = rules.path("enums")
        if path is None:
            return null_or("string"), constant("no enum")
        symbols = rules.levels[-1 - path.count("^")].enums[path.lstrip("^")]
        made = [f"T{number}" for number in range(self.dice.randrange(1, 4))]
        node = {"type": "enum", "name": self.names.fresh("OutEnum"), "symbols": made}
        covered = symbols if self.dice.random() < 0.5 else symbols[:1]
        table = enum(path, {symbol: self.dice.choice(made) for symbol in covered}, otherwise=made[0])
        return null_or(node), table

    def _each(self, place: Place, rules: Rules, depth: int) -> tuple[Any, Any]:
        found = rules.list_path()
        if found is None:
            return null_or("string"), constant("no list")
        path, item = found
        given = place.scope.resolve(Take(path))
        inside = Place(place.scope.inside(*item_of(given)), (*place.levels, item))
        match self.dice.randrange(3):
            case 0:
                node, rule = self._taken(inside)
            case 1:
                node, rule = null_or("string"), self.rules(inside, 2).text()
            case _:
                schemas, made = self.fields(inside, depth - 1, self.dice.randrange(1, 4))
                node, rule = self._record(schemas), record(made)
        made_of = {"type": "array", "items": node}
        return null_or(made_of) if typed(given).nullable else made_of, each(rules.narrowed(path, item), rule)
