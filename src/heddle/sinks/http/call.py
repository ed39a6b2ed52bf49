"""From an event to the request that it becomes."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

import orjson

from heddle.contracts import Contract, contract_of
from heddle.contracts.naming import python_name
from heddle.contracts.schema import NULL, Array, Map, Record, Union
from heddle.errors import ContractError, UsageError
from heddle.event import Event
from heddle.mapping.objects import to_native

R = TypeVar("R")

_FIELD = re.compile(r"\{([^{}]*)\}")
_METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")
_WITH_BODY = ("POST", "PUT", "PATCH")


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request. `path` follows the sink's URL, from its "/" on, or is a whole URL at one of the sink's hosts: what
    of it comes from data has to be escaped. `body`: bytes as they are, a contract's value, or what JSON knows (decimals
    and times become strings); None sends none."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


Maker: TypeAlias = Callable[[Any, Event[Any]], HttpCall | None]
"""From value and event; None: there is nothing to send."""
Deleter: TypeAlias = Callable[[bytes | None], HttpCall]
"""From a tombstone's key."""


class Endpoint(Generic[R]):
    """Where events go: `Endpoint("PUT", "/v1/invoices/{invoice_id}", body=bill_of)`.

    In braces: fields of the contract (`{customer.id}` of nested ones), escaped. `body` is a `Mapping` or a function of
    the value; where it gives None, nothing is sent. Without it POST, PUT and PATCH send the whole value."""

    def __init__(self, method: str, path: str, *, body: Callable[[R], Any] | None = None) -> None:
        if method not in _METHODS:
            raise UsageError(f"method {method!r} is none of {', '.join(_METHODS)}")
        if body is not None and not callable(body):
            raise UsageError("body= is neither a Mapping nor a function")
        self.method = method
        self.path = path
        self.body = body

    def maker(self, sink: str, contract: Contract) -> Maker:
        """Raises `UsageError` for a path that cannot be filled."""
        fill = _template(sink, self.path, contract)
        method, body = self.method, self.body
        sends_body = body is not None or method in _WITH_BODY

        def make(value: Any, _: Event[Any]) -> HttpCall | None:
            content = (value if body is None else body(value)) if sends_body else None
            return None if sends_body and content is None else HttpCall(method, fill(value), content)

        return make

    def deleter(self, sink: str, contract: Contract) -> Deleter:
        """For entities of which nothing but the key is left. Raises `UsageError` for what is no plain DELETE."""
        if self.method != "DELETE" or self.body is not None:
            raise UsageError(
                f"sink {sink}: on_tombstone= is no DELETE without a body",
                hint='of a tombstone only the key is known: on_tombstone=Endpoint("DELETE", "/v1/deals/{deal_id}")',
            )
        parts = _parts_of(sink, self.path)
        known = {*contract.metadata.key, *filter(None, [contract.metadata.tenant])}
        unknown = [name for name in parts[1::2] if name not in known]
        if unknown:
            raise UsageError(
                f"sink {sink}: {{{unknown[0]}}} is no key field of {contract.name}, and a tombstone has no others",
                hint="fields here: " + ", ".join(sorted(known)),
            )
        values_of = contract.key_values

        def delete(key: bytes | None) -> HttpCall:
            values = values_of(key)
            filled = [_segment(values[part], part) if place % 2 else part for place, part in enumerate(parts)]
            return HttpCall("DELETE", "".join(filled))

        return delete


def maker_of(sink: str, call: Endpoint[Any] | Callable[..., HttpCall | None], contract: Contract) -> Maker:
    """`call`: an endpoint, or a function of the value, or of value and event."""
    if isinstance(call, Endpoint):
        return call.maker(sink, contract)
    if not callable(call) or inspect.iscoroutinefunction(call):
        raise UsageError(f"sink {sink}: call= is neither an Endpoint nor a plain function")
    required = [p for p in inspect.signature(call).parameters.values() if p.default is p.empty]
    if len(required) == 2:
        return call
    if len(required) == 1:
        return lambda value, _: call(value)
    raise UsageError(
        f"sink {sink}: the function of call= does not take one value, or a value and its Event",
        hint="write it as call(invoice) or call(invoice, event)",
    )


def encoded(body: Any) -> tuple[bytes, str]:
    """Content and its type; empty without a body. Raises `ContractError` for what JSON cannot hold."""
    if body is None:
        return b"", ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if is_dataclass(body):
        body = _native(body)
    try:
        return orjson.dumps(body, default=_as_json, option=orjson.OPT_UTC_Z), "application/json"
    except (TypeError, ValueError) as error:
        raise ContractError(f"the body is not JSON: {error}") from error


def _native(value: Any) -> Any:
    """A contract's value by the names of its fields; another dataclass is left to JSON."""
    try:
        contract = contract_of(type(value))
    except UsageError:
        return value
    return to_native(contract, value)


def _as_json(value: Any) -> Any:
    match value:
        case Decimal():
            return format(value, "f")
        case bytes():
            return base64.b64encode(value).decode()
        case tuple():
            return list(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _parts_of(sink: str, path: str) -> list[str]:
    """Text and names of fields by turns."""
    if not path.startswith("/") or path.startswith("//"):
        raise UsageError(f"sink {sink}: path {path!r} does not begin with one '/'")
    parts = _FIELD.split(path)
    if any("{" in text or "}" in text for text in parts[::2]):
        raise UsageError(f"sink {sink}: path {path!r} has a brace without its partner")
    return parts


def _template(sink: str, path: str, contract: Contract) -> Callable[[Any], str]:
    parts = _parts_of(sink, path)
    getters = [_getter(sink, name, contract) for name in parts[1::2]]
    texts = parts[::2]

    def fill(value: Any) -> str:
        filled = [texts[0]]
        for get, text in zip(getters, texts[1:], strict=True):
            filled += (get(value), text)
        return "".join(filled)

    return fill


def _getter(sink: str, name: str, contract: Contract) -> Callable[[Any], str]:
    node: Any = contract.root
    for part in name.split("."):
        fields = {f.name: f.type for f in node.fields} if isinstance(node, Record) else {}
        if part not in fields:
            raise UsageError(
                f"sink {sink}: {{{name}}} is no field of {contract.name}", hint="fields here: " + ", ".join(fields)
            )
        node = fields[part]
        if isinstance(node, Union):
            rest = [branch for branch in node.branches if branch != NULL]
            node = rest[0] if len(rest) == 1 else node
    if isinstance(node, Record | Array | Map | Union):
        raise UsageError(f"sink {sink}: {{{name}}} has no text that a path could hold")
    attributes = [python_name(part) for part in name.split(".")]

    def get(value: Any) -> str:
        for attribute in attributes:
            value = None if value is None else getattr(value, attribute)
        return _segment(value, name)

    return get


def _segment(value: Any, name: str) -> str:
    """A value as one segment. A dot or two would name another place, and escaping does not help there."""
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case datetime() | date():
            text = value.isoformat()
        case Decimal():
            text = format(value, "f")
        case int() | UUID():
            text = str(value)
        case _:
            raise ContractError("the path of the call has no value for it", path=name)
    if text in ("", ".", ".."):
        raise ContractError("the path of the call cannot hold an empty text or dots alone", path=name)
    return quote(text, safe="")
