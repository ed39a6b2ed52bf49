"""The record key of a contract's values, compiled once per contract."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

from heddle.contracts.naming import python_name
from heddle.contracts.refusals import BadKeyError, MissingFieldError, WrongTypeError
from heddle.contracts.schema import Enum, Fixed, Node, Primitive, Record
from heddle.event import entity_key

KEY_KINDS: Final = "string, int, long, date, uuid or enum"

KeyValue: TypeAlias = str | int | date | UUID
KeyValues: TypeAlias = dict[str, KeyValue]

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


def compile_key_parser(root: Record, key: tuple[str, ...], tenant: str | None) -> Callable[[bytes | None], KeyValues]:
    """The inverse of `compile_key`: from a record key to the values that made it, by field path. Of a tombstone nothing
    else is known.

    Raises `BadKeyError` for a key that `compile_key` would not have written."""
    kinds = {path: _parser_of(root, path) for path in (*key, *([tenant] if tenant else []))}

    def parse(given: bytes | None) -> KeyValues:
        try:
            tenant_part, _, entity_part = (given or b"").decode().partition("/")
            owner, entity = unquote(tenant_part, errors="strict"), unquote(entity_part, errors="strict")
            texts = [entity] if len(key) == 1 else [unquote(part, errors="strict") for part in entity.split("/")]
            values = {path: kinds[path](text) for path, text in zip(key, texts, strict=True)}
            if tenant is not None:
                values[tenant] = kinds[tenant](owner)
            elif owner != "default":
                raise ValueError(owner)
            written = [_text(values[path], path) for path in key]
            whole = written[0] if len(key) == 1 else "/".join(quote(text, safe="") for text in written)
            if entity_key(whole, owner) != given:
                raise ValueError(given)
        except ValueError:
            raise BadKeyError(
                f"the record's key is not made of {', '.join(key)}", hint="was it written by another program?"
            ) from None
        return values

    return parse


def _parser_of(root: Record, path: str) -> Callable[[str], KeyValue]:
    node: Node = root
    for part in path.split("."):
        assert isinstance(node, Record)  # rules.py has seen to it
        node = next(field.type for field in node.fields if field.name == part)
    if isinstance(node, Enum):
        return _symbol_of(node.symbols)
    logical = node.logical.name if isinstance(node, Primitive | Fixed) and node.logical is not None else ""
    if logical == "uuid":
        return UUID
    if logical == "date":
        return date.fromisoformat
    return int if isinstance(node, Primitive) and node.kind in ("int", "long") else str


def _symbol_of(symbols: Iterable[str]) -> Callable[[str], str]:
    known = frozenset(symbols)

    def symbol(text: str) -> str:
        if text not in known:
            raise ValueError(text)
        return text

    return symbol


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
