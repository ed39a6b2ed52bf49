"""Python functions inside a mapping: what may be one, what it returns, and which code it is."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import Any

from heddle.mapping.fit import RETURNED, accepts_python
from heddle.mapping.refusals import Refused
from heddle.mapping.rules import Call, Returned
from heddle.mapping.types import Type, Unfit


def check_call(rule: Call, want: Type | None) -> Call:
    """The call with its return type and digest. Raises `Unfit`."""
    function = rule.function
    if not isinstance(function, FunctionType) or inspect.iscoroutinefunction(function):
        raise Unfit("call() takes a plain Python function (def or lambda)")
    try:
        inspect.signature(function).bind(*rule.args)
    except TypeError as error:
        raise Unfit(f"call(): {name_of(function)}() does not take {len(rule.args)} arguments: {error}") from None
    returns = _returned(rule)
    result = _result_type(function, returns, want)
    return replace(rule, returns=returns, digest=_source_digest(function), type=result)


def name_of(function: Callable[..., Any]) -> str:
    return function.__qualname__


def _returned(rule: Call) -> Returned:
    declared = rule.returns
    if declared is None:
        declared = typing.get_type_hints(rule.function).get("return")
        if declared is None:
            raise Unfit(f"call(): say what {name_of(rule.function)}() returns: returns=str, or annotate it")
    options = typing.get_args(declared) if _is_union(declared) else (declared,)
    types = [typing.get_origin(option) or option for option in options if option is not NoneType]
    if len(types) != 1 or not isinstance(types[0], type):
        raise Unfit(f"call(): {declared} is not one Python type, with or without None")
    return Returned(types[0], NoneType in options)


def _is_union(declared: Any) -> bool:
    return isinstance(declared, UnionType) or typing.get_origin(declared) is typing.Union


def _result_type(function: Callable[..., Any], returns: Returned, want: Type | None) -> Type:
    if want is None:
        if returns.type not in RETURNED:
            raise Unfit(f"call(): {returns.type.__name__} cannot be an argument of another rule")
        return Type(RETURNED[returns.type], returns.nullable)
    if returns.nullable and not want.nullable:
        raise Unfit(f"call(): {name_of(function)}() may return None where {want} is wanted; see default()")
    if not accepts_python(returns.type, want.node):
        raise Unfit(f"call(): {name_of(function)}() returns {returns.type.__name__} where {want} is wanted")
    return Type(want.node, returns.nullable)


def _source_digest(function: FunctionType) -> str:
    try:
        text = Path(inspect.getsourcefile(function) or "").read_text(encoding="utf-8")
    except (OSError, TypeError, UnicodeDecodeError):
        raise Unfit(f"call(): the source file of {name_of(function)}() cannot be read, so it has no digest") from None
    return sha256(text.encode()).hexdigest()


def caller(rule: Call) -> Callable[..., Any]:
    """The function held to its promise: `Refused` with code `call-type` where it returns something else."""
    function = rule.function
    promised, nullable = rule.returns

    def checked(*args: Any) -> Any:
        value = function(*args)
        if isinstance(value, promised) and not (promised is date and isinstance(value, datetime)):
            return value
        if value is None and nullable:
            return None
        raise Refused("call-type", f"{name_of(function)} returned {type(value).__name__}, not {promised.__name__}")

    return checked
