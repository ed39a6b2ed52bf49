"""Commands as a person would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_SETTING = re.compile(r"([A-Za-z0-9_.-]+=)(.+)", re.DOTALL)
_SPECIAL_IN_DOUBLE_QUOTES = frozenset('"$`\\!')


def shell_line(words: Iterable[str]) -> str:
    """One line for a POSIX shell that gives back exactly these words."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """`shlex.quote` is right and, around a single quote, unreadable: double quotes where they do, and only around the
    value of `name=value`."""
    if setting := _SETTING.fullmatch(word):
        return setting[1] + _quoted(setting[2])
    if "'" in word and _SPECIAL_IN_DOUBLE_QUOTES.isdisjoint(word):
        return f'"{word}"'
    return shlex.quote(word)
