"""Which secrets this process uses now, in which version: what an audit trail may know of them."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import NamedTuple

import structlog

from heddle.secrets.provider import Found

log = structlog.get_logger("heddle.secrets")


class Use(NamedTuple):
    """`version`: as the provider calls it. Where it has none (environment, files): `hash:` and a keyed hash of the
    value, equal in every process that was given the same one."""

    name: str
    provider: str
    version: str


_lock = threading.Lock()
_uses: dict[str, tuple[str, Found]] = {}
_told: dict[bytes, tuple[Use, ...]] = {}


def note(name: str, provider: str, found: Found) -> None:
    """A value was handed to who uses it."""
    before = _uses.get(name)
    if before is not None and before[0] == provider and _same(before[1], found):
        return
    with _lock:
        _uses[name] = (provider, found)
        _told.clear()
    if before is not None:
        log.info("secret.changed", secret=name, provider=provider, version=found.version)


def in_use(key: bytes) -> tuple[Use, ...]:
    """Every secret that was resolved here, by name, in the version that was resolved last; the very same tuple until
    one changes. `key`: of the hashes, at most 64 bytes: the audit trail's, so that nobody confirms a guess by them."""
    told = _told.get(key)
    if told is None:
        with _lock:
            uses = sorted(_uses.items())
            told = _told[key] = tuple(
                Use(name, provider, found.version or _hashed(found.text, key)) for name, (provider, found) in uses
            )
    return told


def _same(one: Found, other: Found) -> bool:
    return one is other or (one.version == other.version and one.text == other.text)


def _hashed(text: str, key: bytes) -> str:
    return "hash:" + blake2b(text.strip().encode(), key=key, digest_size=8).hexdigest()
