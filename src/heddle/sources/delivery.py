"""A delivery: the raw bytes that a source system sent, and how to look into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from heddle.errors import ContractError

MAX_JSON_DEPTH = 64
MAX_JSON_BYTES = 8 * 2**20


class MalformedJsonError(ContractError):
    """The body is not JSON, or not JSON that is safe to walk."""

    code = "malformed-json"


@dataclass(frozen=True)
class Delivery:
    """One delivery as it came. `headers` holds the kept ones only, names in lower case; `received_at` is aware.

    `id` identifies the delivery: the vendor's own where there is one, else a hash of the body."""

    body: bytes
    headers: Mapping[str, str]
    received_at: datetime
    source: str
    id: str

    def json(self) -> Any:
        """The parsed body; parsed once. Numbers beyond 64 bits and fractions come as floats: money that a vendor
        sends as a JSON number is exact through `Decimal(str(number))` up to 15 digits.

        Raises `MalformedJsonError` (no JSON, over 8 MiB, or nested deeper than 64)."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Any:
        if len(self.body) > MAX_JSON_BYTES:
            raise MalformedJsonError(f"the body has {len(self.body)} bytes, {MAX_JSON_BYTES} are allowed as JSON")
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise MalformedJsonError(f"the body is not JSON (line {error.lineno}, column {error.colno})") from None
        # Fewer brackets than levels cannot nest too deep: nearly every body passes without being walked.
        if self.body.count(b"[") + self.body.count(b"{") > MAX_JSON_DEPTH:
            _check_depth(value)
        return value


@dataclass(frozen=True, slots=True)
class Header:
    """A request header as the place of an id."""

    name: str


Where = str | Header | Callable[[Delivery], str | None]
"""Where an id stands: a dotted path into the JSON body (`data.object.id`, `events.0.id`), a `Header`, a function."""


def text_at(delivery: Delivery, where: Where) -> str | None:
    """The text or whole number found there, as text; None when it is not there or the body is not JSON.

    Errors of a function pass through."""
    if isinstance(where, Header):
        return delivery.headers.get(where.name.lower()) or None
    if callable(where):
        return where(delivery)
    try:
        value = delivery.json()
    except MalformedJsonError:
        return None
    for step in where.split("."):
        value = _step(value, step)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _step(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise MalformedJsonError(f"the body nests deeper than {MAX_JSON_DEPTH} levels")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
