"""The plan as canonical JSON, and its digest: which code made an event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from datetime import date, datetime, time
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from heddle.mapping.functions import name_of
from heddle.mapping.rules import Branch, Build, Call, Condition, Plan, Rule, Take
from heddle.mapping.types import Type
from heddle.mapping.types import name_of as type_name

FORMAT = 1


def plan_json(plan: Plan) -> dict[str, Any]:
    """Everything that decides what the mapping does, and nothing else: the same in every process and Python."""
    return {
        "format": FORMAT,
        "source": plan.source,
        "target": plan.target,
        "when": _json(plan.when),
        "fields": [{"field": name, "is": _json(rule)} for name, rule in plan.record.fields],
    }


def digest_of(plan: Plan) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return sha256(json.dumps(plan_json(plan), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _json(value: Any) -> Any:
    match value:
        case Call():
            function = f"{value.function.__module__}:{name_of(value.function)}"
            return {
                "rule": "call", "function": function, "sha256": value.digest, "args": _json(value.args),
                "returns": [value.returns.type.__name__, value.returns.nullable], "type": _json(value.type),
            }  # fmt: skip
        case Build():
            named = [{"field": name, "is": _json(rule)} for name, rule in value.fields]
            return {"rule": "build", "fields": named, "type": _json(value.type)}
        case Take():
            return {"rule": "take", "steps": [list(s) for s in value.steps], "up": value.up, "type": _json(value.type)}
        case Rule() | Condition():
            told = {f.name: _json(getattr(value, f.name)) for f in fields(value)}  # type: ignore[arg-type]
            return {"rule": type(value).__name__.lower(), **told}
        case Type():
            return {"is": type_name(value.node), "nullable": value.nullable}
        case Branch():
            return {"if": _json(value.condition), "then": _json(value.then)}
        case _:
            return _value(value)


def _value(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case tuple() | list():
            return [_json(item) for item in value]
        case dict():
            return {"map": sorted([key, _json(item)] for key, item in value.items())}
        case Decimal():
            return {"decimal": format(value, "f")}
        case float():
            return {"float": repr(value)}
        case bytes():
            return {"bytes": value.hex()}
        case datetime() | date() | time() | UUID():
            return {type(value).__name__: str(value)}
        case _:
            return {"operation": value.name}


def inner_rules(part: Any) -> Iterator[Rule]:
    """Every rule below a rule or condition, itself included, in declared order."""
    if isinstance(part, Rule):
        yield part
    if isinstance(part, Rule | Condition):
        for field in fields(part):  # type: ignore[arg-type]
            yield from inner_rules(getattr(part, field.name))
    elif isinstance(part, tuple) and not isinstance(part, Type):
        for item in part:
            yield from inner_rules(item)
