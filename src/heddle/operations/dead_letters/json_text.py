"""JSON text that survives being edited: numbers keep their digits, a name that comes twice is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from heddle.errors import UsageError

MAX_DEPTH: Final = 256


class InvalidJsonError(UsageError):
    code = "invalid-json"


def parse(text: str) -> Any:
    """Numbers with a point or an exponent become `Decimal`. Raises `InvalidJsonError` with line and column."""
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_object)
    except InvalidJsonError:
        raise
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError(f"not JSON: {type(error).__name__}") from None
    _check_depth(document)
    return document


def render(document: Any, *, indent: int | None = None) -> str:
    """What `parse` reads, with the same digits. Without indent as short as can be."""
    return "".join(_parts(document, indent, 0))


def _parts(document: Any, indent: int | None, level: int) -> list[str]:
    match document:
        case Mapping():
            colon = ":" if indent is None else ": "
            pairs = [[_scalar(name), colon, *_parts(value, indent, level + 1)] for name, value in document.items()]
            return _block("{", pairs, "}", indent, level)
        case list() | tuple():
            return _block("[", [_parts(item, indent, level + 1) for item in document], "]", indent, level)
        case Decimal():
            return [str(document)]
        case _:
            return [_scalar(document)]


def _block(start: str, items: list[list[str]], end: str, indent: int | None, level: int) -> list[str]:
    if not items:
        return [start + end]
    parts = [start]
    for index, item in enumerate(items):
        parts += ["," if index else "", _line(indent, level + 1), *item]
    return [*parts, _line(indent, level), end]


def _line(indent: int | None, level: int) -> str:
    return "" if indent is None else "\n" + " " * (indent * level)


def _scalar(value: Any) -> str:
    """Half a surrogate pair, which JSON can say and UTF-8 cannot, stays an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or text.encode(errors="ignore").decode() == text else json.dumps(value)


def _check_depth(document: Any) -> None:
    """All that handles documents calls itself level by level, which Python ends at some depth."""
    level, containers = 0, [document]
    while containers := [c for c in containers if isinstance(c, dict | list)]:
        level += 1
        if level > MAX_DEPTH:
            raise InvalidJsonError(f"nested deeper than {MAX_DEPTH} levels")
        containers = [part for c in containers for part in (c.values() if isinstance(c, dict) else c)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJsonError("a name comes twice in one object")
    return found


def _refuse(constant: str) -> Any:
    raise InvalidJsonError(f"{constant} is no JSON", hint=f'write it as text: "{constant}"')
