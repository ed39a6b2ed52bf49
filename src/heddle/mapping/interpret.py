"""The reference meaning of a plan, rule by rule. Slow and obvious on purpose: the compiled function is held to it."""

from __future__ import annotations

from typing import Any

from heddle.errors import HeddleError
from heddle.mapping.functions import caller, name_of
from heddle.mapping.numbers import EXACT, ZERO, in_64_bits
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
)
from heddle.mapping.texts import as_text
from heddle.mapping.types import is_integer
from heddle.mapping.wording import CURRENCY_REASON, table_refusal

Levels = tuple[Any, ...]


def interpret(plan: Plan, value: dict[str, Any]) -> dict[str, Any] | None:
    """The target's native dict, or None where the plan's condition leaves the record out.

    Raises `RuleError`, `CallError`, and whatever `HeddleError` a function of the mapping raises."""
    if plan.when is not None and not _holds(plan.when, (value,), ""):
        return None
    return _value(plan.record, (value,), "")  # type: ignore[no-any-return]


def _value(rule: Rule, levels: Levels, at: str) -> Any:
    match rule:
        case Take():
            return _taken(rule, levels)
        case Constant(value):
            return value
        case Fail(code, reason):
            raise RuleError(code, at, reason)
        case Default(of, fallback):
            value = _value(of, levels, at)
            return _value(fallback, levels, at) if value is None else value
        case Join():
            return _joined(rule, levels, at)
        case Apply():
            return _applied(rule, levels, at)
        case Table():
            return _looked_up(rule, levels, at)
        case Choose(branches, otherwise):
            return _value(_chosen(branches, otherwise, levels, at), levels, at)
        case Build(fields):
            return {name: _value(field, levels, f"{at}.{name}" if at else name) for name, field in fields}
        case Items(rules):
            return [_value(item, levels, f"{at}[{i}]") for i, item in enumerate(rules)]
        case Each(of, inner):
            given = _value(of, levels, at)
            return None if given is None else [_value(inner, (*levels, x), f"{at}[{i}]") for i, x in enumerate(given)]
        case Filter(of, where):
            given = _value(of, levels, at)
            return None if given is None else [item for item in given if _holds(where, (*levels, item), at)]
        case Total():
            return _totalled(rule, levels, at)
        case First(of, inner):
            given = _value(of, levels, at)
            return _value(inner, (*levels, given[0]), at) if given and inner else None
        case Call():
            return _called(rule, [_value(arg, levels, at) for arg in rule.args], at)
    raise AssertionError(rule)


def _taken(rule: Take, levels: Levels) -> Any:
    value = levels[-1 - rule.up]
    for step in rule.steps:
        if value is None:
            return None
        value = value.get(step.name) if step.optional else value[step.name]
    return value


def _joined(rule: Join, levels: Levels, at: str) -> str | None:
    parts = [_value(part, levels, at) for part in rule.parts]
    there = [part for part in parts if part is not None]
    if not there or (len(there) < len(parts) and not rule.skip_null):
        return None
    return rule.by.join(map(as_text, there))


def _applied(rule: Apply, levels: Levels, at: str) -> Any:
    values = [_value(arg, levels, at) for arg in rule.args]
    if any(value is None for value in values):
        return None
    function = rule.operation.make(tuple(typed(arg) for arg in rule.args), dict(rule.params))
    try:
        return function(*values)
    except Refused as refused:
        raise RuleError(refused.code, at, refused.reason) from None


def _looked_up(rule: Table, levels: Levels, at: str) -> Any:
    key = _value(rule.of, levels, at)
    if key is None:
        return None
    for known, row in rule.rows:
        if known == key:
            return _value(row, levels, at)
    if rule.otherwise is None:
        raise RuleError(*table_refusal(rule, at))
    return _value(rule.otherwise, levels, at)


def _chosen(branches: tuple[Branch, ...], otherwise: Rule, levels: Levels, at: str) -> Rule:
    return next((then for condition, then in branches if _holds(condition, levels, at)), otherwise)


def _totalled(rule: Total, levels: Levels, at: str) -> Any:
    given = _value(rule.of, levels, at)
    if given is None or rule.rule is None:
        return None
    whole, currencies = is_integer(typed(rule).node), set()
    total: Any = 0 if whole else ZERO
    for item in given:
        inside = (*levels, item)
        amount = _value(rule.rule, inside, at)
        if rule.currency is not None:
            currencies.add(_value(rule.currency, inside, at))
            if len(currencies) > 1:
                raise RuleError("currency", at, CURRENCY_REASON)
        total = total + amount if whole else EXACT.add(total, amount)
    try:
        return in_64_bits(total) if whole else total
    except Refused as refused:
        raise RuleError(refused.code, at, refused.reason) from None


def _called(rule: Call, values: list[Any], at: str) -> Any:
    try:
        return caller(rule)(*values)
    except Refused as refused:
        raise RuleError(refused.code, at, refused.reason) from None
    except HeddleError:
        raise
    except Exception as error:
        raise CallError(at, name_of(rule.function), error) from error


def _holds(condition: Condition, levels: Levels, at: str) -> bool:
    match condition:
        case Present(of):
            return _value(of, levels, at) is not None
        case Compare(left, relation, right):
            return _compares(_value(left, levels, at), relation, _value(right, levels, at))
        case OneOf(of, values):
            given = _value(of, levels, at)
            others = [_value(value, levels, at) for value in values]
            return given is not None and given in others
        case AllOf(conditions):
            return all(_holds(inner, levels, at) for inner in conditions)
        case AnyOf(conditions):
            return any(_holds(inner, levels, at) for inner in conditions)
        case Not(inner):
            return not _holds(inner, levels, at)
    raise AssertionError(condition)


def _compares(left: Any, relation: str, right: Any) -> bool:
    if left is None or right is None:
        return False
    if relation == "==":
        return bool(left == right)
    return bool(left < right) if relation == "<" else bool(left > right)
