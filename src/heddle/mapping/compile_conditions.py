"""Conditions as Python expressions."""

from __future__ import annotations

from functools import partial

from heddle.mapping.rules import AllOf, AnyOf, Compare, Condition, Not, OneOf, Present, typed
from heddle.mapping.writer import Place, Writer


class Conditions(Writer):
    """Writes conditions; what they compare may need statements of its own."""

    def condition(self, condition: Condition, place: Place) -> str:
        match condition:
            case Present(of):
                given = self.value(of, place)
                return f"({given} is not None)" if typed(of).nullable else "True"
            case Compare():
                return self._compare(condition, place)
            case OneOf(of, values):
                given = self.named(self.value(of, place))
                among = f"({', '.join([self.value(value, place) for value in values])},)" if values else "()"
                test = f"{given} in {among}"
                return f"({given} is not None and {test})" if typed(of).nullable else f"({test})"
            case AllOf(conditions):
                return self._sequence(conditions, "and", place)
            case AnyOf(conditions):
                return self._sequence(conditions, "or", place)
            case Not(inner):
                return f"(not {self.condition(inner, place)})"
        raise AssertionError(condition)

    def _compare(self, condition: Compare, place: Place) -> str:
        sides = [condition.left, condition.right]
        values = [self.value(side, place) for side in sides]
        nullable = [typed(side).nullable for side in sides]
        # Null equals nothing that is never null, so one comparison is the whole test.
        if any(nullable) and not (condition.relation == "==" and nullable != [True, True]):
            values = [self.named(v) if null else v for v, null in zip(values, nullable, strict=True)]
            tests = [f"{v} is not None" for v, null in zip(values, nullable, strict=True) if null]
            return f"({' and '.join(tests)} and {values[0]} {condition.relation} {values[1]})"
        return f"({values[0]} {condition.relation} {values[1]})"

    def _sequence(self, conditions: tuple[Condition, ...], word: str, place: Place) -> str:
        """Conditions one after the other, up to the first that decides."""
        if not conditions:
            return "True" if word == "and" else "False"
        said = self.condition(conditions[0], place)
        for condition in conditions[1:]:
            lines, test = self.aside(1, partial(self.condition, condition, place))
            if not lines:
                said = f"({said} {word} {test})"
                continue
            name = self.assign(self.fresh("t"), said)
            with self.block(f"if {name}:" if word == "and" else f"if not {name}:"):
                self.lines += lines
                self.line(f"{name} = {test}")
            said = name
        return said
