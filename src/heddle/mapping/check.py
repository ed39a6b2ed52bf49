"""Holds a declared mapping to both contracts, and makes the plan of it.

`want` is the type that a rule must fit, or None where any type will do (an argument of another rule). Rules that
only arrange other rules hand `want` down, so that a constant or a rounding meets the type it is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from heddle.contracts.schema import MISSING, NULL, Array, Enum, Field, Node, Primitive, Record, Union
from heddle.contracts.values import default_value
from heddle.mapping import numbers
from heddle.mapping.fit import constant_type, fit, fit_constant
from heddle.mapping.functions import check_call
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
)
from heddle.mapping.scope import Level, Scope, item_of
from heddle.mapping.texts import is_text, joinable
from heddle.mapping.types import (
    LONG,
    MICROS,
    MILLIS,
    NEVER,
    STRING,
    Type,
    Unfit,
    closest,
    decimal,
    decimal_of,
    is_integer,
    logical_of,
    type_of,
)

_TOTAL_DIGITS = 9
"""A total may have this many digits more than its items: a thousand million of them."""


class Problem(Exception):
    """One thing that is wrong: where in the target (top field first), and what."""

    def __init__(self, target: str, message: str) -> None:
        super().__init__(f"{target}: {message}" if target else message)
        self.target = target


class Checker:
    """Checks one mapping; collects every problem instead of stopping at the first."""

    def __init__(self, source: Record, target: Record) -> None:
        self._root = Scope((Level(Type(source), ""),))
        self._target = target
        self.problems: list[Problem] = []

    def plan(self, source: str, target: str, when: Condition | None, fields: Build) -> Plan:
        """The plan; worth something only while `problems` is empty."""
        if when is not None:
            try:
                when = self._condition(when, self._root)
            except Unfit as unfit:
                self.problems.append(Problem("when", str(unfit)))
        return Plan(source, target, when, self._build(fields, self._root, Type(self._target)))

    def _check(self, rule: Rule, scope: Scope, want: Type | None) -> Rule:
        match rule:
            case Constant(value):
                return Constant(value, constant_type(value)) if want is None else fit_constant(value, want)
            case Fail():
                return replace(rule, type=Type(NEVER))
            case Default(of, fallback):
                return self._default(of, fallback, scope, want)
            case Choose():
                return self._choose(rule, scope, want)
            case Table():
                return self._table(rule, scope, want)
            case Build():
                return self._build(rule, scope, want)
            case Items(rules):
                return self._items(rules, scope, want)
            case Each(of, inner):
                return self._each(of, inner, scope, want)
            case Call():
                args = tuple(self._any(arg, scope) for arg in rule.args)
                return check_call(replace(rule, args=args), want)
        found = self._any(rule, scope)
        return found if want is None else fit(found, want)

    def _any(self, rule: Rule, scope: Scope) -> Rule:
        """A rule whose type is its own affair."""
        match rule:
            case Take():
                return scope.resolve(rule)
            case Join():
                return self._join(rule, scope)
            case Apply(operation, args, params):
                checked = tuple(self._any(arg, scope) for arg in args)
                types = tuple(typed(arg) for arg in checked)
                try:
                    result = operation.infer(tuple(t._replace(nullable=False) for t in types), dict(params))
                except Unfit as unfit:
                    raise Unfit(f"{operation.name}() {unfit}") from None
                return replace(rule, args=checked, type=result._replace(nullable=_any_null(types)))
            case Filter(of, where):
                of = self._any(of, scope)
                return Filter(of, self._condition(where, scope.inside(*item_of(of))), typed(of))
            case Total():
                return self._total(rule, scope)
            case First():
                of, inner = self._over(rule, scope)
                return First(of, inner, typed(inner)._replace(nullable=True))
            case _:
                return self._check(rule, scope, None)

    def _alternatives(self, rules: Sequence[Rule], scope: Scope, want: Type | None) -> tuple[list[Rule], Type]:
        """Rules of which one will give the value: they fit `want`, or else what holds them all."""
        if want is None:
            own = [rule for rule in rules if not isinstance(rule, Constant | Fail)] or rules
            want = _widest([typed(self._any(rule, scope)) for rule in own])
        checked = [self._check(rule, scope, want) for rule in rules]
        return checked, Type(want.node, _any_null(typed(rule) for rule in checked))

    def _default(self, of: Rule, fallback: Rule, scope: Scope, want: Type | None) -> Default:
        if want is None:
            (of, fallback), result = self._alternatives((of, fallback), scope, None)
        else:
            result = want
            of = self._check(of, scope, want._replace(nullable=True))
            fallback = self._check(fallback, scope, want)
        return Default(of, fallback, result._replace(nullable=typed(of).nullable and typed(fallback).nullable))

    def _choose(self, rule: Choose, scope: Scope, want: Type | None) -> Choose:
        if not all(isinstance(branch, Branch) for branch in rule.branches):
            raise Unfit("choose() takes when(condition, value) branches")
        conditions = [self._condition(branch.condition, scope) for branch in rule.branches]
        rules = (*(branch.then for branch in rule.branches), rule.otherwise)
        (*thens, otherwise), result = self._alternatives(rules, scope, want)
        return Choose(tuple(map(Branch, conditions, thens)), otherwise, result)

    def _table(self, rule: Table, scope: Scope, want: Type | None) -> Table:
        of = self._any(rule.of, scope)
        key = typed(of)._replace(nullable=False)
        if rule.exhaustive:
            _check_coverage(rule, key)
        keys = [_table_key(given, key) for given, _ in rule.rows]
        values = [value for _, value in rule.rows]
        rules = values if rule.otherwise is None else [*values, rule.otherwise]
        if not rules:
            raise Unfit("the table is empty")
        checked, result = self._alternatives(rules, scope, want)
        nullable = result.nullable or typed(of).nullable
        if want is not None and nullable and not want.nullable:
            raise Unfit(f"may be null where {want} is wanted; give default(…, value) or required(…) inside")
        otherwise = None if rule.otherwise is None else checked[-1]
        rows = tuple(zip(keys, checked[: len(keys)], strict=True))
        return Table(of, rows, otherwise, rule.exhaustive, result._replace(nullable=nullable))

    def _build(self, rule: Build, scope: Scope, want: Type | None) -> Build:
        if want is None or not isinstance(want.node, Record):
            raise Unfit(f"record() builds a nested record, not {want or 'an argument'}")
        given, fields = dict(rule.fields), {field.name: field for field in want.node.fields}
        for name in given.keys() - fields.keys():
            self._report(scope.making(name), f"{want.node.short_name} has no such field{closest(name, fields)}")
        made, omitted = [], []
        for name, field in fields.items():
            value = self._field(given.get(name), field, scope.making(name))
            made.append((name, value))
            if name not in given:
                omitted.append(name)
        return Build(tuple(made), tuple(omitted), Type(want.node))

    def _field(self, rule: Rule | None, field: Field, scope: Scope) -> Rule:
        want = type_of(field.type)
        try:
            if rule is not None:
                return self._check(rule, scope, want)
            if field.default is MISSING:
                raise Unfit(f"no rule makes this field, which is {want} and has no default")
            return Constant(default_value(field.type, field.default), want)
        except Unfit as unfit:
            self._report(scope, str(unfit))
            return Fail("unchecked", "", Type(NEVER))

    def _report(self, scope: Scope, message: str) -> None:
        self.problems.append(Problem(scope.target, message))

    def _items(self, rules: tuple[Rule, ...], scope: Scope, want: Type | None) -> Items:
        item = _item_wanted(want)
        if item is None:
            raise Unfit("items() builds a list for the target; it is no argument")
        made = [self._check(rule, scope.making(f"[{i}]"), item) for i, rule in enumerate(rules)]
        return Items(tuple(made), want and want._replace(nullable=False))

    def _each(self, of: Rule, rule: Rule, scope: Scope, want: Type | None) -> Each:
        item = _item_wanted(want)
        of = self._any(of, scope)
        if want is not None and typed(of).nullable and not want.nullable:
            raise Unfit(f"the list may be null where {want} is wanted; give default(…, []) inside")
        inner = self._check(rule, scope.inside(*item_of(of)).making("[]"), item)
        made = typed(inner)
        node: Node = Union((NULL, made.node)) if made.nullable else made.node
        return Each(of, inner, Type(want.node if want else Array(node), typed(of).nullable))

    def _over(self, rule: Total | First, scope: Scope) -> tuple[Rule, Rule]:
        """A list rule and the rule for its items, which may be one path through the list."""
        of, inner = rule.of, rule.rule
        if inner is None:
            of, inner = scope.split(of) if isinstance(of, Take) else (of, Take("."))
        of = self._any(of, scope)
        return of, self._any(inner, scope.inside(*item_of(of)))

    def _total(self, rule: Total, scope: Scope) -> Total:
        of, inner = self._over(rule, scope)
        given = typed(inner)
        whole, scale = numbers.digits_of(given)
        if given.nullable:
            raise Unfit("total_of() adds a value that may be null; say default(…, 0) or required(…) inside")
        if rule.rounding:
            numbers.check_rounding(rule.rounding)
        currency = rule.currency and self._any(rule.currency, scope.inside(*item_of(of)))
        if currency is not None and (not is_text(typed(currency).node) or typed(currency).nullable):
            raise Unfit(f"currency= is {typed(currency)}, not a text in every item")
        number = LONG if given.node in (LONG, Primitive("int")) else decimal(whole + scale + _TOTAL_DIGITS, scale)
        return Total(of, inner, currency, rule.rounding, Type(number, typed(of).nullable, rule.rounding, computed=True))

    def _join(self, rule: Join, scope: Scope) -> Join:
        parts = tuple(self._any(part, scope) for part in rule.parts)
        types = [typed(part) for part in parts]
        if not parts:
            raise Unfit("join() and text() need parts")
        for given in types:
            if not joinable(given.node):
                raise Unfit(f"{given} has no one obvious spelling as text")
        nulls = [given.nullable for given in types]
        return replace(rule, parts=parts, type=Type(STRING, all(nulls) if rule.skip_null else any(nulls)))

    def _condition(self, condition: Condition, scope: Scope) -> Condition:
        match condition:
            case Present(of):
                return Present(self._any(of, scope))
            case Compare(left, relation, right):
                left, (right,) = self._comparable(left, (right,), scope, ordered=relation != "==")
                return Compare(left, relation, right)
            case OneOf(of, values):
                return OneOf(*self._comparable(of, values, scope, ordered=False))
            case AllOf(conditions) | AnyOf(conditions):
                return type(condition)(tuple(self._condition(inner, scope) for inner in conditions))
            case Not(inner):
                return Not(self._condition(inner, scope))
            case _:
                raise Unfit(f"{type(condition).__name__} is no condition; see equals(), present(), one_of()")

    def _comparable(
        self, of: Rule, values: tuple[Rule, ...], scope: Scope, *, ordered: bool
    ) -> tuple[Rule, tuple[Rule, ...]]:
        of = self._any(of, scope)
        node = typed(of).node
        if ordered and not _has_order(node):
            raise Unfit(f"above() and below() compare numbers, dates and times, not {typed(of)}")
        if isinstance(node, Array | Record | Union):
            raise Unfit(f"{typed(of)} cannot be compared")
        return of, tuple(self._compared_to(value, node, scope) for value in values)

    def _compared_to(self, value: Rule, node: Node, scope: Scope) -> Rule:
        if isinstance(value, Constant):
            if value.value is None:
                raise Unfit("nothing equals null; say not_(present(…))")
            return fit_constant(value.value, Type(MICROS if node == MILLIS else node))
        right = self._any(value, scope)
        both_exact = decimal_of(node) is not None and decimal_of(typed(right).node) is not None
        return right if both_exact else fit(right, Type(node, nullable=True))


def _any_null(types: Iterable[Type]) -> bool:
    return any(given.nullable for given in types)


def _widest(types: list[Type]) -> Type:
    """What a choice between numbers of several sizes may be; otherwise the first type, which the others must fit."""
    types = [given for given in types if given.node != NEVER]
    exact = [logical for given in types if (logical := decimal_of(given.node))]
    if not types:
        return Type(NEVER)
    if len(exact) < len(types) or all(is_integer(given.node) for given in types):
        return Type(max((t.node for t in types), key=lambda node: node == LONG), nullable=True)
    scale = max(logical.scale for logical in exact)
    return Type(decimal(max(logical.precision - logical.scale for logical in exact) + scale, scale), nullable=True)


def _item_wanted(want: Type | None) -> Type | None:
    if want is None:
        return None
    if not isinstance(want.node, Array):
        raise Unfit(f"makes a list where {want} is wanted")
    return type_of(want.node.items)


def _has_order(node: Node) -> bool:
    moment = logical_of(node) == "date" or "timestamp" in logical_of(node) or logical_of(node).startswith("time-")
    return moment or decimal_of(node) is not None or node in (Primitive("float"), Primitive("double"))


def _check_coverage(rule: Table, key: Type) -> None:
    if not isinstance(key.node, Enum):
        raise Unfit(f"enum() maps an enum, not {key}; use lookup()")
    missing = [symbol for symbol in key.node.symbols if symbol not in dict(rule.rows)]
    if missing and rule.otherwise is None:
        raise Unfit(f"enum() does not cover {', '.join(missing)} of {key}; add them, or otherwise=")


def _table_key(given: object, key: Type) -> object:
    try:
        return fit_constant(given, key).value
    except Unfit as unfit:
        raise Unfit(f"table key: {unfit}") from None
