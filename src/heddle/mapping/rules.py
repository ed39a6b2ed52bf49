"""The mapping language as frozen data. People write it with the functions of `heddle.mapping.language`.

A rule is declared without types; `check` returns the same tree with `type` filled in everywhere, sugar expanded and
conversions inserted. That checked tree is the plan: interpreted, compiled, printed and digested.

Null goes in, null comes out: a rule over several values yields null when one of them is null. Exceptions say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from heddle.mapping.types import Type, Unfit


class Rule:
    """How one value is made of the source."""

    __slots__ = ()
    type: Type | None


class Condition:
    """A question about the source. Comparisons with null are false."""

    __slots__ = ()


class Step(NamedTuple):
    """One name of a path. `of_null`: what it is read from may be null. `optional`: a map may lack the key."""

    name: str
    of_null: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class Take(Rule):
    """The value at a path. Null where anything on the way is null. `up` counts enclosing lists to climb out of;
    `source` is the path from the root with lists as `lines[]`."""

    path: str
    steps: tuple[Step, ...] = ()
    up: int = 0
    source: str = ""
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Constant(Rule):
    value: Any
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Fail(Rule):
    """Refuses the record: code and reason are the author's."""

    code: str
    reason: str
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Default(Rule):
    """`of`, or `fallback` where that is null."""

    of: Rule
    fallback: Rule
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Join(Rule):
    """Texts one after the other. With `skip_null` a null part is left out with its separator, and the whole is null
    only where every part is."""

    parts: tuple[Rule, ...]
    by: str
    skip_null: bool
    type: Type | None = None


@dataclass(frozen=True)
class Operation:
    """A built-in function. `infer` gives the result type of non-null arguments or raises `Unfit`; `make` gives the
    function over native values, which may raise `Refused` if `fallible`. `loses` says what is lost, or is empty.
    `internal` ones are put in by the checker."""

    name: str
    infer: Callable[[tuple[Type, ...], dict[str, Any]], Type]
    make: Callable[[tuple[Type, ...], dict[str, Any]], Callable[..., Any]]
    fallible: bool = False
    loses: str | Callable[[tuple[Type, ...], dict[str, Any]], str] = ""
    internal: bool = False

    def loss(self, types: tuple[Type, ...], params: dict[str, Any]) -> str:
        return self.loses if isinstance(self.loses, str) else self.loses(types, params)


@dataclass(frozen=True, slots=True)
class Apply(Rule):
    """A built-in function over values."""

    operation: Operation
    args: tuple[Rule, ...]
    params: tuple[tuple[str, Any], ...] = ()
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Table(Rule):
    """A value looked up by another. `exhaustive`: the key is an enum, of which every symbol must be covered."""

    of: Rule
    rows: tuple[tuple[Any, Rule], ...]
    otherwise: Rule | None
    exhaustive: bool
    type: Type | None = None


class Branch(NamedTuple):
    condition: Condition
    then: Rule


@dataclass(frozen=True, slots=True)
class Choose(Rule):
    """The first branch whose condition holds."""

    branches: tuple[Branch, ...]
    otherwise: Rule
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Build(Rule):
    """A nested record. `omitted` (checked): fields left to their schema defaults."""

    fields: tuple[tuple[str, Rule], ...]
    omitted: tuple[str, ...] = ()
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Items(Rule):
    """A list of as many values as there are rules."""

    rules: tuple[Rule, ...]
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Each(Rule):
    """One value per item of a list; paths in `rule` begin at the item."""

    of: Rule
    rule: Rule
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Filter(Rule):
    """The items for which `where` holds; paths in it begin at the item."""

    of: Rule
    where: Condition
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Total(Rule):
    """The exact sum of `rule` over a list. `currency`, where given, must be the same for every item.
    Declared without `rule`, the path of `of` goes through the list."""

    of: Rule
    rule: Rule | None
    currency: Rule | None
    rounding: str
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class First(Rule):
    """`rule` of the first item, null for an empty list. Without `rule` as in `Total`."""

    of: Rule
    rule: Rule | None
    type: Type | None = None


class Returned(NamedTuple):
    """What a function promised to return."""

    type: type
    nullable: bool


@dataclass(frozen=True, slots=True)
class Call(Rule):
    """A Python function over native values, the way out; null is handed to it. Checked: `returns` is a `Returned`,
    `digest` the SHA-256 of the function's source file."""

    function: Callable[..., Any]
    args: tuple[Rule, ...]
    returns: Any
    digest: str = ""
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Present(Condition):
    of: Rule


@dataclass(frozen=True, slots=True)
class Compare(Condition):
    """`relation` is one of `==`, `<`, `>`."""

    left: Rule
    relation: str
    right: Rule


@dataclass(frozen=True, slots=True)
class OneOf(Condition):
    of: Rule
    values: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class AllOf(Condition):
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Condition):
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not(Condition):
    condition: Condition


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked mapping: what everything else reads. `source` and `target` are contract names."""

    source: str
    target: str
    when: Condition | None
    record: Build


def typed(rule: Rule) -> Type:
    """The type of a checked rule."""
    if rule.type is None:
        raise Unfit(f"{type(rule).__name__} was not checked")
    return rule.type
