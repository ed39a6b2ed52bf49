"""Python text that is being written: lines, depth, names, and what the names stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from heddle.errors import HeddleError
from heddle.mapping.refusals import CallError, Refused, RuleError
from heddle.mapping.rules import Fail, Rule

T = TypeVar("T")


class Place(NamedTuple):
    """Names of the enclosing values, the innermost last, and the target path as Python expressions to be joined."""

    levels: tuple[str, ...]
    path: tuple[str, ...] = ()

    def making(self, step: str) -> Place:
        dot = "." if self.path and not step.startswith("[") else ""
        return self._replace(path=(*self.path, repr(f"{dot}{step}")))

    def item(self, name: str) -> Place:
        return self._replace(levels=(*self.levels, name))

    def indexed(self, made: str) -> Place:
        """Inside the list that is being made under the name `made`."""
        return self._replace(path=(*self.path, "'['", f"str(len({made}))", "']'"))

    @property
    def at(self) -> str:
        return " + ".join(_merged(self.path)) or "''"


def _merged(path: tuple[str, ...]) -> list[str]:
    parts: list[str] = []
    for part in path:
        if parts and part.startswith("'") and parts[-1].startswith("'"):
            parts[-1] = f"{parts[-1][:-1]}{part[1:]}"
        else:
            parts.append(part)
    return parts


class Writer(ABC):
    """Writes statements, keeps names.

    Expressions that `value` returns are pure and cannot fail, so they may be used later, or not at all; whatever can
    fail is written as a statement, in the order in which the reference interpreter evaluates."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {
            "RuleError": RuleError, "CallError": CallError, "Refused": Refused, "HeddleError": HeddleError,
        }  # fmt: skip
        self.constants: dict[str, Any] = {}
        self.depth = 1
        self._count = 0

    def line(self, text: str) -> None:
        self.lines.append(f"{'    ' * self.depth}{text}")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.depth += 1
        yield
        self.depth -= 1

    def fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def bind(self, kind: str, value: Any) -> str:
        """A name for something that has no literal; the same thing keeps its name."""
        for name, known in self.bound.items():
            if known is value:
                return name
        name = self.fresh(kind)
        self.bound[name] = value
        if not callable(value):
            self.constants[name] = value
        return name

    def named(self, expression: str) -> str:
        """The expression under a name, to be used more than once."""
        return expression if expression.isidentifier() else self.assign(self.fresh("t"), expression)

    def assign(self, name: str, expression: str) -> str:
        if name != expression:
            self.line(f"{name} = {expression}")
        return name

    def aside(self, depth: int, write: Callable[[], T]) -> tuple[list[str], T]:
        """What `write` would write, `depth` deeper, without writing it yet."""
        before, self.lines = self.lines, []
        self.depth += depth
        expression = write()
        self.depth -= depth
        lines, self.lines = self.lines, before
        return lines, expression

    def refuse(self, code: str, at: str, reason: str) -> None:
        self.line(f"raise RuleError({code!r}, {at}, {reason!r})")

    def guarded(self, expression: str, place: Place) -> str:
        name = self.fresh("t")
        with self.block("try:"):
            self.assign(name, expression)
        with self.block("except Refused as refused:"):
            self.line(f"raise RuleError(refused.code, {place.at}, refused.reason) from None")
        return name

    def give(self, name: str, rule: Rule, place: Place) -> None:
        """The rule's value under a name; a rule that only fails gives none."""
        expression = self.value(rule, place)
        if not isinstance(rule, Fail):
            self.line(f"{name} = {expression}")

    @abstractmethod
    def value(self, rule: Rule, place: Place) -> str:
        """The expression of a checked rule."""
