"""A plan as one Python function over native dicts: no interpreter, no call that a value does not need.

No text of a mapping gets into the source except as a Python literal made by `repr`; all other constants are bound
by name.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from heddle.mapping.compile_lists import Lists
from heddle.mapping.functions import caller, name_of
from heddle.mapping.rules import (
    Apply,
    Branch,
    Build,
    Call,
    Choose,
    Condition,
    Constant,
    Default,
    Each,
    Fail,
    Filter,
    First,
    Items,
    Join,
    Plan,
    Rule,
    Table,
    Take,
    Total,
    typed,
)
from heddle.mapping.texts import as_text, is_text
from heddle.mapping.wording import table_refusal
from heddle.mapping.writer import Place

Native = dict[str, Any]


class Compiled(NamedTuple):
    """`function` maps a native dict to a native dict or None; `source` is its text, with what its names stand for."""

    function: Callable[[Native], Native | None]
    source: str


def compile_plan(plan: Plan) -> Compiled:
    """Writes the function once; calling it is all that is left for the hot path."""
    writer = _Composer()
    place = Place(("source",))
    if plan.when is not None:
        with writer.block(f"if not {writer.condition(plan.when, place)}:"):
            writer.line("return None")
    writer.result(plan.record, place)
    return _compiled(writer, f"<mapping {plan.source} to {plan.target}>")


def compile_part(part: Rule | Condition, target: str, label: str) -> Callable[[Native], Any]:
    """A function for one rule, which makes the target path `target`, or for a condition, where that is empty."""
    writer = _Composer()
    place = Place(("source",))
    value = writer.value(part, place.making(target)) if isinstance(part, Rule) else writer.condition(part, place)
    writer.line(f"return {value}")
    return _compiled(writer, f"<mapping {label}, {target or 'when'}>").function


def _compiled(writer: _Composer, file: str) -> Compiled:
    body = "\n".join(("def mapped(source):", *writer.lines))
    # Tracebacks out of the function show its lines.
    linecache.cache[file] = (len(body), None, body.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": "heddle.mapping.compiled", **writer.bound}
    exec(compile(body, file, "exec"), names)  # noqa: S102 - our own text, see above
    bound = "".join(f"# {name} = {value!r}\n" for name, value in writer.constants.items())
    return Compiled(names["mapped"], f"{bound}{body}\n")


class _Composer(Lists):
    """Writes every kind of rule."""

    def result(self, record: Build, place: Place) -> None:
        fields = [(name, self.value(rule, place.making(name))) for name, rule in record.fields]
        with self.block("return {"):
            for name, expression in fields:
                self.line(f"{name!r}: {expression},")
        self.line("}")

    def value(self, rule: Rule, place: Place) -> str:
        match rule:
            case Take():
                return self._take(rule, place)
            case Constant(value):
                return self._constant(value)
            case Fail(code, reason):
                self.refuse(code, place.at, reason)
                return "None"
            case Default(of, fallback):
                return self._default(of, fallback, place)
            case Join():
                return self._join(rule, place)
            case Apply():
                return self._apply(rule, place)
            case Table():
                return self._table(rule, place)
            case Choose(branches, otherwise):
                return self._choose(branches, otherwise, place)
            case Build(fields):
                made = [f"{name!r}: {self.value(field, place.making(name))}" for name, field in fields]
                return f"{{{', '.join(made)}}}"
            case Items(rules):
                return f"[{', '.join(self.value(r, place.making(f'[{i}]')) for i, r in enumerate(rules))}]"
            case Each(of, inner):
                return self.each(of, inner, place)
            case Filter(of, where):
                return self.filter(of, where, place)
            case Total():
                return self.total(rule, place)
            case First(of, inner):
                return self.first(of, inner, place)
            case Call():
                return self._call(rule, place)
        raise AssertionError(rule)

    def _constant(self, value: Any) -> str:
        return repr(value) if value is None or type(value) in (str, int, bool) else self.bind("constant", value)

    def _take(self, rule: Take, place: Place) -> str:
        expression = place.levels[-1 - rule.up]
        for step in rule.steps:
            read = f".get({step.name!r})" if step.optional else f"[{step.name!r}]"
            if step.of_null:
                name = self.named(expression)
                expression = f"(None if {name} is None else {name}{read})"
            else:
                expression = f"{expression}{read}"
        return expression

    def _default(self, of: Rule, fallback: Rule, place: Place) -> str:
        given = self.value(of, place)
        if not typed(of).nullable:
            return given
        lines, expression = self.aside(1, lambda: self.value(fallback, place))
        if not lines:
            name = self.named(given)
            return f"({expression} if {name} is None else {name})"
        name = self.assign(self.fresh("t"), given)
        with self.block(f"if {name} is None:"):
            self.lines += lines
            if not isinstance(fallback, Fail):
                self.assign(name, expression)
        return name

    def _join(self, rule: Join, place: Place) -> str:
        parts = [self.value(part, place) for part in rule.parts]
        nullable = [typed(part).nullable for part in rule.parts]
        if any(nullable):
            parts = [self.named(part) if null else part for part, null in zip(parts, nullable, strict=True)]
        said = [self._said(part, expression) for part, expression in zip(rule.parts, parts, strict=True)]
        nulls = [part for part, null in zip(parts, nullable, strict=True) if null]
        if rule.skip_null and nulls:
            texts = ", ".join(
                f"(None if {v} is None else {t})" if null and v != t else t
                for v, t, null in zip(parts, said, nullable, strict=True)
            )
            there = self.named(f"[text for text in ({texts},) if text is not None]")
            joined = f"{rule.by!r}.join({there})"
            return f"({joined} if {there} else None)" if typed(rule).nullable else joined
        joined = f"{rule.by!r}.join(({', '.join(said)},))" if len(said) > 1 else said[0]
        test = " or ".join(f"{part} is None" for part in nulls)
        return f"(None if {test} else {joined})" if nulls else joined

    def _said(self, part: Rule, expression: str) -> str:
        return expression if is_text(typed(part).node) else f"{self.bind('as_text', as_text)}({expression})"

    def _apply(self, rule: Apply, place: Place) -> str:
        types = tuple(typed(arg) for arg in rule.args)
        function = self.bind(rule.operation.name, rule.operation.make(types, dict(rule.params)))
        values = [self.value(arg, place) for arg in rule.args]
        values = [self.named(v) if t.nullable else v for v, t in zip(values, types, strict=True)]
        test = " or ".join(f"{v} is None" for v, t in zip(values, types, strict=True) if t.nullable)
        call = f"{function}({', '.join(values)})"
        expression = f"(None if {test} else {call})" if test else call
        return self.guarded(expression, place) if rule.operation.fallible else expression

    def _table(self, rule: Table, place: Place) -> str:
        key = self.value(rule.of, place)
        fixed = {known: row.value for known, row in rule.rows if isinstance(row, Constant)}
        if typed(rule.of).nullable:
            fixed[None] = None
        table = self.bind("table", fixed)
        ruled = [(known, row) for known, row in rule.rows if not isinstance(row, Constant)]
        if not ruled and isinstance(rule.otherwise, Constant):
            return f"{table}.get({key}, {self._constant(rule.otherwise.value)})"
        name, key = self.fresh("t"), self.named(key)
        with self.block(f"if {key} in {table}:"):
            self.line(f"{name} = {table}[{key}]")
        for known, row in ruled:
            with self.block(f"elif {key} == {self._constant(known)}:"):
                self.give(name, row, place)
        with self.block("else:"):
            if rule.otherwise is None:
                code, _, reason = table_refusal(rule, "")
                self.refuse(code, place.at, reason)
            else:
                self.give(name, rule.otherwise, place)
        return name

    def _choose(self, branches: tuple[Branch, ...], otherwise: Rule, place: Place) -> str:
        name, depth = self.fresh("t"), self.depth
        word = "if"
        for condition, then in branches:
            deeper = 1 if word == "elif" else 0
            lines, test = self.aside(deeper, partial(self.condition, condition, place))
            if lines and deeper:
                self.line("else:")
                self.depth += 1
                word = "if"
            self.lines += lines
            with self.block(f"{word} {test}:"):
                self.give(name, then, place)
            word = "elif"
        if not branches:
            self.give(name, otherwise, place)
        else:
            with self.block("else:"):
                self.give(name, otherwise, place)
        self.depth = depth
        return name

    def _call(self, rule: Call, place: Place) -> str:
        values = ", ".join([self.value(arg, place) for arg in rule.args])
        function = self.bind("function", caller(rule))
        name = self.fresh("t")
        with self.block("try:"):
            self.line(f"{name} = {function}({values})")
        with self.block("except Refused as refused:"):
            self.line(f"raise RuleError(refused.code, {place.at}, refused.reason) from None")
        with self.block("except HeddleError:"):
            self.line("raise")
        with self.block("except Exception as error:"):
            self.line(f"raise CallError({place.at}, {name_of(rule.function)!r}, error) from error")
        return name
