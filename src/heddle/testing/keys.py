"""Record keys as people write them: `D-1` is short for `default/D-1`."""

from __future__ import annotations

from urllib.parse import quote, unquote

from heddle.event import entity_key

_DEFAULT = "default/"


def key_bytes(text: str) -> bytes:
    """`tenant/entity` as it is, an entity alone under the tenant `default`."""
    return text.encode() if "/" in text else entity_key(text)


def is_key(asked: str, key: str | None) -> bool:
    return key in (asked, _DEFAULT + quote(asked, safe=""))


def short(key: str) -> str:
    """The entity alone, where the tenant is `default`."""
    return unquote(key.removeprefix(_DEFAULT)) if key.startswith(_DEFAULT) else key
