"""How rules and conditions are said in words: in the mapping document, and in the reasons of refusals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from heddle.mapping.functions import name_of
from heddle.mapping.rules import (
    AllOf,
    AnyOf,
    Apply,
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
    Present,
    Rule,
    Table,
    Take,
    Total,
)

CURRENCY_REASON = "the items are in different currencies"
_RELATIONS = {"==": "is", "<": "is below", ">": "is above"}


def table_refusal(rule: Table, at: str) -> tuple[str, str, str]:
    """Code, path and reason of a key that the table lacks; the key itself is content and stays out."""
    code = "enum" if rule.exhaustive else "lookup"
    return code, at, f"{in_words(rule.of)} is not in the table"


def in_words(rule: Rule) -> str:
    """One line. Source paths as they were written, values as literals."""
    match rule:
        case Take(path):
            return path
        case Constant(value):
            return literal(value)
        case Fail(code):
            return f"refuse ({code})"
        case Default(of, Fail(code)):
            return f"{in_words(of)}, {code}"
        case Default(of, fallback):
            return f"{in_words(of)}, or {in_words(fallback)}"
        case Join(parts, by, skip_null):
            listed = ", ".join(map(in_words, parts))
            return f"join {listed} by {literal(by)}" if skip_null else f"text {listed}"
        case Apply():
            return _applied(rule)
        case Table():
            return _table(rule)
        case Choose(branches, otherwise):
            told = "; ".join(f"if {asked(c)}: {in_words(then)}" for c, then in branches)
            return f"{told}; otherwise {in_words(otherwise)}"
        case Build(fields):
            return f"record of {', '.join(name for name, _ in fields)}"
        case Items(rules):
            return f"list of {len(rules)}"
        case Each(of, inner):
            return f"each of {in_words(of)}: {in_words(inner)}"
        case Filter(of, where):
            return f"{in_words(of)} where {asked(where)}"
        case Total(of, inner):
            same = f", all in one {in_words(rule.currency)}" if rule.currency else ""
            return f"total of {in_words(inner) if inner else ''} over {in_words(of)}{same}"
        case First(of, inner):
            return f"{in_words(inner) if inner else ''} of the first of {in_words(of)}"
        case Call(function, args):
            return f"{name_of(function)}({', '.join(map(in_words, args))}) in Python"
    raise AssertionError(rule)


def _applied(rule: Apply) -> str:
    if rule.operation.internal:
        return in_words(rule.args[0])
    told = [in_words(arg) for arg in rule.args] + [f"{name}={value}" for name, value in rule.params]
    return f"{rule.operation.name}({', '.join(told)})"


def _table(rule: Table) -> str:
    rows = ", ".join(f"{literal(key)} → {in_words(value)}" for key, value in rule.rows)
    otherwise = f", otherwise {in_words(rule.otherwise)}" if rule.otherwise else ""
    return f"{in_words(rule.of)}: {rows}{otherwise}"


def literal(value: Any) -> str:
    """A declared value as people read it. It is code, not content: it stands in the mapping's own file."""
    match value:
        case None:
            return "null"
        case str():
            return f'"{value}"'
        case Decimal():
            return format(value, "f")
        case bool() | int() | float() | list() | dict():
            return str(value).lower() if isinstance(value, bool) else str(value)
        case _:
            return str(value)


def asked(condition: Condition) -> str:
    """A condition as a clause."""
    match condition:
        case Present(of):
            return f"{in_words(of)} is present"
        case Compare(left, relation, right):
            return f"{in_words(left)} {_RELATIONS[relation]} {in_words(right)}"
        case OneOf(of, values):
            return f"{in_words(of)} is one of {', '.join(map(in_words, values))}"
        case AllOf(conditions):
            return " and ".join(map(_grouped, conditions)) or "true"
        case AnyOf(conditions):
            return " or ".join(map(_grouped, conditions)) or "false"
        case Not(Present(of)):
            return f"{in_words(of)} is null"
        case Not(inner):
            return f"not ({asked(inner)})"
    raise AssertionError(condition)


def _grouped(condition: Condition) -> str:
    return f"({asked(condition)})" if isinstance(condition, AllOf | AnyOf) else asked(condition)
