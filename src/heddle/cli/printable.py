"""Text that came from elsewhere, as a terminal may have it: nothing in it can move the cursor, colour the screen or
turn the direction of writing."""

from __future__ import annotations

import json


def plain(text: str) -> str:
    """Printable on one line: what is not shows as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_lines(text: str) -> str:
    """As `plain`, its line feeds kept."""
    return "\n".join(map(plain, text.split("\n")))


def plain_json(text: str) -> str:
    """The same JSON document: outside of strings all is printable, and inside an escape says the same."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
