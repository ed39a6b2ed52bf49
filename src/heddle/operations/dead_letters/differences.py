"""Two documents side by side, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

ABSENT: Final = object()


class Difference(NamedTuple):
    """`was` and `now` are parts of documents; `ABSENT` where there is none."""

    path: str
    was: Any
    now: Any


def differences(was: Any, now: Any) -> list[Difference]:
    """In the order of `now`, what went last. Against `ABSENT` everything is new."""
    return list(_differences("", was, now))


def _differences(path: str, was: Any, now: Any) -> Iterator[Difference]:
    if was is not ABSENT and now is not ABSENT and type(was) is type(now) and was == now:
        return
    old, new = _parts(was), _parts(now)
    if not old and not new:
        yield Difference(path, was, now)
    elif (was is ABSENT or old or _is_empty(was)) and (now is ABSENT or new or _is_empty(now)):
        for step in [*new, *(step for step in old if step not in new)]:
            yield from _differences(_join(path, step), old.get(step, ABSENT), new.get(step, ABSENT))
    else:
        yield Difference(path, was, now)


def _parts(document: Any) -> dict[str | int, Any]:
    """What is inside a container; nothing for a scalar or an empty one."""
    match document:
        case Mapping():
            return dict(document)
        case list():
            return dict(enumerate(document))
        case _:
            return {}


def _is_empty(document: Any) -> bool:
    return isinstance(document, Mapping | list) and not document


def _join(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
