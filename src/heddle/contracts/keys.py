"""The record key of a contract's values, compiled once per contract."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from heddle.contracts.naming import python_name
from heddle.contracts.refusals import MissingFieldError, WrongTypeError
from heddle.event import entity_key

KEY_KINDS: Final = "string, int, long, date, uuid or enum"

_UNESCAPED = re.compile(r"[A-Za-z0-9_.~-]+")


def compile_key(key: tuple[str, ...], tenant: str | None) -> Callable[[Any], bytes]:
    """A function from a value (generated type or dict) to `tenant/entity`.

    Several key fields are percent-escaped and joined by '/' before the whole is escaped again, so no two
    different lists of values can give one key."""
    parts = [_reader(path) for path in key]
    tenant_of = _reader(tenant) if tenant else None

    def entity(value: Any) -> str:
        if len(parts) == 1:
            return parts[0](value)
        return "/".join(quote(part(value), safe="") for part in parts)

    def key_of(value: Any) -> bytes:
        text = entity(value)
        if tenant_of is not None:
            return entity_key(text, tenant_of(value))
        if text.isascii() and _UNESCAPED.fullmatch(text):
            return b"default/" + text.encode()
        return entity_key(text)

    return key_of


def _reader(path: str) -> Callable[[Any], str]:
    names = [(name, python_name(name)) for name in path.split(".")]

    def read(value: Any) -> str:
        for name, attribute in names:
            try:
                value = value[name] if isinstance(value, dict) else getattr(value, attribute)
            except (KeyError, AttributeError):
                raise MissingFieldError(f"key field {path} is missing", path=path) from None
        return value if value.__class__ is str else _text(value, path)

    return read


def _text(value: Any, path: str) -> str:
    if isinstance(value, bool | datetime) or not isinstance(value, str | int | date | UUID):
        raise WrongTypeError(f"key field {path} holds {type(value).__name__}, not {KEY_KINDS}", path=path)
    return value.isoformat() if isinstance(value, date) else str(value)
