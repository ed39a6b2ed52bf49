"""Where a rule stands: which paths it can see."""

from __future__ import annotations

from typing import NamedTuple

from heddle.contracts.schema import Array, Map, Record
from heddle.mapping.rules import First, Rule, Step, Take, Total, typed
from heddle.mapping.types import Type, Unfit, closest, type_of


class Level(NamedTuple):
    """One enclosing value: the source record, or an item of a list. `source` is its path from the root."""

    type: Type
    source: str


class Scope(NamedTuple):
    """The enclosing values, the innermost last; `target` is the path of what is being made."""

    levels: tuple[Level, ...]
    target: str = ""

    def inside(self, item: Type, source: str) -> Scope:
        return Scope((*self.levels, Level(item, source)), self.target)

    def making(self, step: str) -> Scope:
        """`step` is a field name or an index in brackets."""
        dot = "." if self.target and not step.startswith("[") else ""
        return Scope(self.levels, f"{self.target}{dot}{step}")

    def resolve(self, take: Take) -> Take:
        """The path with its steps and type. Raises `Unfit` naming the part that is wrong."""
        path = take.path.lstrip("^")
        up = len(take.path) - len(path)
        if up >= len(self.levels):
            raise Unfit(f"path {take.path}: there is no list around it to climb out of")
        level = self.levels[-1 - up]
        if path == ".":
            return Take(take.path, (), up, level.source or ".", level.type)
        given, steps = level.type, []
        for name in path.split("."):
            step, given = _step(take.path, name, given)
            steps.append(step)
        source = f"{level.source}.{path}" if level.source else path
        return Take(take.path, tuple(steps), up, source, given)

    def split(self, take: Take) -> tuple[Take, Take]:
        """`lines.amount` as the list and the path in its item. Raises `Unfit` where no list is on the way."""
        names = take.path.split(".")
        for count in range(1, len(names)):
            head = self.resolve(Take(".".join(names[:count])))
            if isinstance(typed(head).node, Array):
                return head, Take(".".join(names[count:]))
        found = typed(self.resolve(take))
        if isinstance(found.node, Array):
            return take, Take(".")
        raise Unfit(f"path {take.path} goes through no list; it is {found}")


def _step(path: str, name: str, given: Type) -> tuple[Step, Type]:
    node = given.node
    match node:
        case Record():
            fields = {field.name: field.type for field in node.fields}
            if name not in fields:
                raise Unfit(f"path {path}: {node.short_name} has no field {name!r}{closest(name, fields)}")
            found = type_of(fields[name])
            return Step(name, given.nullable, False), found._replace(nullable=found.nullable or given.nullable)
        case Map():
            return Step(name, given.nullable, True), type_of(node.values)._replace(nullable=True)
        case Array():
            raise Unfit(f"path {path}: {name!r} is inside a list; use each(), total_of() or first_of()")
        case _:
            raise Unfit(f"path {path}: there is no {name!r} in {given}")


def item_of(of: Rule) -> tuple[Type, str]:
    """The items of a checked list rule: their type, and their path from the root."""
    given = typed(of)
    if not isinstance(given.node, Array):
        raise Unfit(f"works on a list, not on {given}")
    return type_of(given.node.items), f"{source_of(of)}[]"


def source_of(of: Rule) -> str:
    """The source path of a list, seen through filters; empty where it comes of no single path."""
    if isinstance(of, Take):
        return of.source
    inner = getattr(of, "of", None)
    return source_of(inner) if isinstance(inner, Rule) and not isinstance(of, Total | First) else ""
