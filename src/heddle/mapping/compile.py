"""A plan as one Python function over native dicts: no interpreter, no call that a value does not need.

Expressions that `_Writer.value` returns are pure and cannot fail, so they may be used later, or not at all; whatever can
fail is written as a statement, in the order in which the reference interpreter evaluates. No text of a mapping gets
into the source except as a Python literal made by `repr`; all other constants are bound by name.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from heddle.errors import HeddleError
from heddle.mapping.functions import caller, name_of
from heddle.mapping.numbers import EXACT, in_64_bits
from heddle.mapping.refusals import CallError, Refused, RuleError
from heddle.mapping.rules import (
    AllOf,
    AnyOf,
    Apply,
    Branch,
    Build,
    Call,
    Choose,
    Compare,
    Condition,
    Constant,
    Default,
    Each,
    Fail,
    Filter,
    First,
    Items,
    Join,
    Not,
    OneOf,
    Plan,
    Present,
    Rule,
    Table,
    Take,
    Total,
    typed,
)  # fmt: skip
from heddle.mapping.texts import as_text, is_text
from heddle.mapping.types import is_integer
from heddle.mapping.wording import CURRENCY_REASON, table_refusal

Native = dict[str, Any]


class Compiled(NamedTuple):
    """`function` maps a native dict to a native dict or None; `source` is its text, with what its names stand for."""

    function: Callable[[Native], Native | None]
    source: str


class _Place(NamedTuple):
    """Names of the enclosing values, the innermost last, and the target path as Python expressions to be joined."""

    levels: tuple[str, ...]
    path: tuple[str, ...] = ()

    def making(self, step: str) -> _Place:
        dot = "." if self.path and not step.startswith("[") else ""
        return self._replace(path=(*self.path, repr(f"{dot}{step}")))

    def item(self, name: str) -> _Place:
        return self._replace(levels=(*self.levels, name))

    def indexed(self, made: str) -> _Place:
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


def compile_plan(plan: Plan) -> Compiled:
    """Writes the function once; calling it is all that is left for the hot path."""
    writer = _Writer()
    place = _Place(("source",))
    if plan.when is not None:
        with writer.block(f"if not {writer.condition(plan.when, place)}:"):
            writer.line("return None")
    writer.result(plan.record, place)
    body = "\n".join(("def mapped(source):", *writer.lines))
    file = f"<mapping {plan.source} to {plan.target}>"
    # Tracebacks out of the function show its lines.
    linecache.cache[file] = (len(body), None, body.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": "heddle.mapping.compiled", **writer.bound}
    exec(compile(body, file, "exec"), names)  # noqa: S102 - our own text, see above
    bound = "".join(f"# {name} = {value!r}\n" for name, value in writer.constants.items())
    return Compiled(names["mapped"], f"{bound}{body}\n")


class _Writer:
    """Writes statements, keeps names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {
            "RuleError": RuleError, "CallError": CallError, "Refused": Refused, "HeddleError": HeddleError,
        }  # fmt: skip
        self.constants: dict[str, Any] = {}
        self._depth = 1
        self._count = 0

    def line(self, text: str) -> None:
        self.lines.append(f"{'    ' * self._depth}{text}")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

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

    def aside(self, depth: int, write: Callable[[], str]) -> tuple[list[str], str]:
        """What `write` would write, `depth` deeper, without writing it yet."""
        before, self.lines = self.lines, []
        self._depth += depth
        expression = write()
        self._depth -= depth
        lines, self.lines = self.lines, before
        return lines, expression

    def refuse(self, code: str, at: str, reason: str) -> None:
        self.line(f"raise RuleError({code!r}, {at}, {reason!r}) from None")

    def guarded(self, expression: str, place: _Place) -> str:
        name = self.fresh("t")
        with self.block("try:"):
            self.assign(name, expression)
        with self.block("except Refused as refused:"):
            self.line(f"raise RuleError(refused.code, {place.at}, refused.reason) from None")
        return name

    def result(self, record: Build, place: _Place) -> None:
        fields = [(name, self.value(rule, place.making(name))) for name, rule in record.fields]
        with self.block("return {"):
            for name, expression in fields:
                self.line(f"{name!r}: {expression},")
        self.line("}")

    def value(self, rule: Rule, place: _Place) -> str:
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
                return self._each(of, inner, place)
            case Filter(of, where):
                return self._filter(of, where, place)
            case Total():
                return self._total(rule, place)
            case First(of, inner):
                return self._first(of, inner, place)
            case Call():
                return self._call(rule, place)
        raise AssertionError(rule)

    def _constant(self, value: Any) -> str:
        return repr(value) if value is None or type(value) in (str, int, bool) else self.bind("constant", value)

    def _take(self, rule: Take, place: _Place) -> str:
        expression = place.levels[-1 - rule.up]
        for step in rule.steps:
            read = f".get({step.name!r})" if step.optional else f"[{step.name!r}]"
            if step.of_null:
                name = self.named(expression)
                expression = f"(None if {name} is None else {name}{read})"
            else:
                expression = f"{expression}{read}"
        return expression

    def _default(self, of: Rule, fallback: Rule, place: _Place) -> str:
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

    def _join(self, rule: Join, place: _Place) -> str:
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

    def _apply(self, rule: Apply, place: _Place) -> str:
        types = tuple(typed(arg) for arg in rule.args)
        function = self.bind(rule.operation.name, rule.operation.make(types, dict(rule.params)))
        values = [self.value(arg, place) for arg in rule.args]
        values = [self.named(v) if t.nullable else v for v, t in zip(values, types, strict=True)]
        test = " or ".join(f"{v} is None" for v, t in zip(values, types, strict=True) if t.nullable)
        call = f"{function}({', '.join(values)})"
        expression = f"(None if {test} else {call})" if test else call
        return self.guarded(expression, place) if rule.operation.fallible else expression

    def _table(self, rule: Table, place: _Place) -> str:
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
                self._give(name, row, place)
        with self.block("else:"):
            if rule.otherwise is None:
                code, _, reason = table_refusal(rule, "")
                self.refuse(code, place.at, reason)
            else:
                self._give(name, rule.otherwise, place)
        return name

    def _give(self, name: str, rule: Rule, place: _Place) -> None:
        expression = self.value(rule, place)
        if not isinstance(rule, Fail):
            self.line(f"{name} = {expression}")

    def _choose(self, branches: tuple[Branch, ...], otherwise: Rule, place: _Place) -> str:
        name, depth = self.fresh("t"), self._depth
        word = "if"
        for condition, then in branches:
            deeper = 1 if word == "elif" else 0
            lines, test = self.aside(deeper, lambda c=condition: self.condition(c, place))  # type: ignore[misc]
            if lines and deeper:
                self.line("else:")
                self._depth += 1
                word = "if"
            self.lines += lines
            with self.block(f"{word} {test}:"):
                self._give(name, then, place)
            word = "elif"
        if not branches:
            self._give(name, otherwise, place)
        else:
            with self.block("else:"):
                self._give(name, otherwise, place)
        self._depth = depth
        return name

    def _each(self, of: Rule, inner: Rule, place: _Place) -> str:
        given = self.value(of, place)
        nullable = typed(of).nullable
        if nullable:
            given = self.named(given)
        made, item = self.fresh("made"), self.fresh("item")
        depth = 2 if nullable else 1
        lines, expression = self.aside(depth, lambda: self.value(inner, place.item(item).indexed(made)))
        if not lines:
            listed = f"[{expression} for {item} in {given}]"
            return f"(None if {given} is None else {listed})" if nullable else listed
        return self._loop(
            given, nullable, made, item, [*lines, f"{'    ' * (self._depth + depth)}{made}.append({expression})"]
        )

    def _filter(self, of: Rule, where: Condition, place: _Place) -> str:
        given = self.value(of, place)
        nullable = typed(of).nullable
        if nullable:
            given = self.named(given)
        made, item = self.fresh("made"), self.fresh("item")
        depth = 2 if nullable else 1
        lines, test = self.aside(depth, lambda: self.condition(where, place.item(item)))
        if not lines:
            listed = f"[{item} for {item} in {given} if {test}]"
            return f"(None if {given} is None else {listed})" if nullable else listed
        pad = "    " * (self._depth + depth)
        return self._loop(given, nullable, made, item, [*lines, f"{pad}if {test}:", f"{pad}    {made}.append({item})"])

    def _loop(self, given: str, nullable: bool, made: str, item: str, body: list[str]) -> str:
        """`body` is written for one level of depth more where the list may be null."""
        if not nullable:
            self.line(f"{made} = []")
            with self.block(f"for {item} in {given}:"):
                self.lines += body
            return made
        self.line(f"{made} = None")
        with self.block(f"if {given} is not None:"):
            self.line(f"{made} = []")
            with self.block(f"for {item} in {given}:"):
                self.lines += body
        return made

    def _total(self, rule: Total, place: _Place) -> str:
        assert rule.rule is not None
        given = self.value(rule.of, place)
        whole, nullable = is_integer(typed(rule).node), typed(rule.of).nullable
        total, item = self.fresh("total"), self.fresh("item")
        if nullable:
            given = self.named(given)
        self.line(f"{total} = {'0' if whole else self.bind('zero', EXACT.create_decimal(0))}")
        currency = self.assign(self.fresh("currency"), "None") if rule.currency else ""
        with self.block(f"for {item} in {given}{' or ()' if nullable else ''}:"):
            inside = place.item(item)
            amount = self.value(rule.rule, inside)
            if rule.currency is not None:
                self._same_currency(currency, self.value(rule.currency, inside), place)
            self.line(
                f"{total} = {total} + {amount}"
                if whole
                else f"{total} = {self.bind('add', EXACT.add)}({total}, {amount})"
            )
        if whole:
            total = self.guarded(f"{self.bind('in_64_bits', in_64_bits)}({total})", place)
        return f"(None if {given} is None else {total})" if nullable else total

    def _same_currency(self, known: str, expression: str, place: _Place) -> None:
        with self.block(f"if {known} is None:"):
            self.line(f"{known} = {expression}")
        with self.block(f"elif {known} != {expression}:"):
            self.refuse("currency", place.at, CURRENCY_REASON)

    def _first(self, of: Rule, inner: Rule | None, place: _Place) -> str:
        assert inner is not None
        given = self.named(self.value(of, place))
        name, item = self.fresh("t"), self.fresh("item")
        self.line(f"{name} = None")
        with self.block(f"if {given}:"):
            self.line(f"{item} = {given}[0]")
            self._give(name, inner, place.item(item))
        return name

    def _call(self, rule: Call, place: _Place) -> str:
        values = ", ".join([self.value(arg, place) for arg in rule.args])
        function = self.bind(rule.function.__name__.strip("<>"), caller(rule))
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

    def condition(self, condition: Condition, place: _Place) -> str:
        match condition:
            case Present(of):
                return f"({self.value(of, place)} is not None)"
            case Compare():
                return self._compare(condition, place)
            case OneOf(of, values):
                given = self.named(self.value(of, place))
                among = f"({', '.join([self.value(value, place) for value in values])},)" if values else "()"
                return f"({given} is not None and {given} in {among})"
            case AllOf(conditions):
                return self._sequence(conditions, "and", place)
            case AnyOf(conditions):
                return self._sequence(conditions, "or", place)
            case Not(inner):
                return f"(not {self.condition(inner, place)})"
        raise AssertionError(condition)

    def _compare(self, condition: Compare, place: _Place) -> str:
        sides = [condition.left, condition.right]
        values = [self.value(side, place) for side in sides]
        nullable = [typed(side).nullable for side in sides]
        # Null equals nothing that is never null, so one comparison is the whole test.
        if any(nullable) and not (condition.relation == "==" and nullable != [True, True]):
            values = [self.named(v) if null else v for v, null in zip(values, nullable, strict=True)]
            tests = [f"{v} is not None" for v, null in zip(values, nullable, strict=True) if null]
            return f"({' and '.join(tests)} and {values[0]} {condition.relation} {values[1]})"
        return f"({values[0]} {condition.relation} {values[1]})"

    def _sequence(self, conditions: tuple[Condition, ...], word: str, place: _Place) -> str:
        """Conditions one after the other, up to the first that decides."""
        if not conditions:
            return "True" if word == "and" else "False"
        said = self.condition(conditions[0], place)
        for condition in conditions[1:]:
            lines, test = self.aside(1, lambda c=condition: self.condition(c, place))  # type: ignore[misc]
            if not lines:
                said = f"({said} {word} {test})"
                continue
            name = self.assign(self.fresh("t"), said)
            with self.block(f"if {name}:" if word == "and" else f"if not {name}:"):
                self.lines += lines
                self.line(f"{name} = {test}")
            said = name
        return said
