"""No text leaves the process with a value that was resolved in it, also not with one that was replaced since."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

# Shorter values would hide half of every text, and are no secrets.
_MIN_CHARS = 4
# Nor are these, which servers come with: without them no text about us could be read any more.
_DEFAULTS = frozenset({"heddle", "postgres", "postgresql", "password"})
# A line of a private key is known by itself: libraries quote what they cannot read.
_MIN_LINE_CHARS = 16
_PASSWORD = re.compile(r"\b(?:ssl)?password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^&\s']+))", re.IGNORECASE)

_lock = threading.Lock()
_remembered: set[str] = set()
_forms: set[str] = set()
_pattern: re.Pattern[str] | None = None


def remember(value: str) -> None:
    """From now on `redact` hides this value, the password inside of it where it is an address, and both as they are
    written in a URL, in JSON and in a Python literal."""
    global _pattern
    if value in _remembered:
        return
    with _lock:
        _remembered.add(value)
        _forms.update(form for form in _forms_of(value) if len(form) >= _MIN_CHARS and form not in _DEFAULTS)
        # The longest first: a value may begin with another.
        _pattern = re.compile("|".join(map(re.escape, sorted(_forms, key=len, reverse=True)))) if _forms else None


def redact(text: str) -> str:
    """`text` without any secret value that this process has resolved so far."""
    return _pattern.sub("***", text) if _pattern is not None else text


def _forms_of(value: str) -> Iterator[str]:
    parts = {value, value.strip(), *_passwords(value)}
    if "\n" in value:
        parts.update(line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE_CHARS)
    for part in parts:
        yield from (part, quote(part, safe=""), json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1])
        yield repr(part)[1:-1]


def _passwords(value: str) -> Iterator[str]:
    """Inside of an address or a connection string: error texts repeat it without the rest."""
    try:
        inside = urlsplit(value).password
    except ValueError:
        inside = None
    found = [inside] if inside else []
    for quoted, plain in _PASSWORD.findall(value):
        found.append(re.sub(r"\\(.)", r"\1", quoted) if quoted else plain)
    for each in found:
        yield from (each, unquote(each))
