"""Changes to JSON documents: `--set path=value`, merge patches (RFC 7396) and patches of operations (RFC 6902).

Documents are what `json_text.parse` gives; nothing here changes the document that it is handed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from heddle.errors import UsageError
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse

Change = Callable[[Any], Any]
Step = str | int

_STEP: Final = re.compile(r"""(?:^|\.)(?P<name>[^.\[\]"=]+)|\[(?P<index>\d+)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7396: objects merge, null removes, all else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def patch_of(patch: Any) -> Change:
    """The change that a patch file means: a list is RFC 6902, all else RFC 7396. Raises `UsageError` for neither."""
    if not isinstance(patch, list):
        return lambda document: merge_patch(document, patch)
    operations = [_operation(item, index) for index, item in enumerate(patch)]

    def change(document: Any) -> Any:
        document = copy.deepcopy(document)
        for operation in operations:
            document = operation(document)
        return document

    return change


def parse_setting(text: str) -> tuple[tuple[Step, ...], str]:
    """`lines[2].product=FOO` as its steps and the text after `=`. A name with dots in it: `["a.b"]`."""
    steps: list[Step] = []
    at = 0
    while match := _STEP.match(text, at):
        at = match.end()
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] if match["quoted"] is None else str(parse(match["quoted"])))
    if not steps or text[at : at + 1] != "=":
        raise UsageError(f"--set {text.partition('=')[0]}: not a path and a value", hint="write lines[0].product=FOO")
    return tuple(steps), text[at + 1 :]


def value_of(text: str, *, is_text: bool) -> Any:
    """What stands after `=`: JSON where it is JSON, a bare word otherwise. `is_text`: the field holds text, so that
    007 and true are text too, and only null and what stands in quotes are JSON."""
    try:
        value = parse(text)
    except InvalidJsonError:
        return text
    return text if is_text and not (value is None or isinstance(value, str)) else value


def set_value(document: Any, path: Sequence[Step], value: Any) -> Any:
    """Raises `UsageError` where the path leads through something that is not there. A last name may be new."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, int) and isinstance(document, list) and step < len(document):
        return [set_value(item, rest, value) if index == step else item for index, item in enumerate(document)]
    if isinstance(step, str) and isinstance(document, Mapping) and (step in document or not rest):
        return {**document, step: set_value(document.get(step), rest, value)}
    what = f"item {step}" if isinstance(step, int) else f"field {step}"
    raise UsageError(f"--set: there is no {what} to lead to", hint="`heddle dlq show ENTRY` shows the fields")


def _operation(item: Any, index: int) -> Change:
    try:
        op = item["op"]
        path = _pointer(item["path"])
        match op:
            case "add":
                value = item["value"]
                return lambda document: _add(document, path, value, item["path"])
            case "remove":
                return lambda document: _remove(document, path, item["path"])[0]
            case "replace":
                value = item["value"]
                return lambda document: _replace(document, path, value, item["path"])
            case "move" | "copy":
                start = _pointer(item["from"])
                return lambda document: _carry(document, start, path, item, keep=op == "copy")
            case "test":
                value = item["value"]
                return lambda document: _test(document, path, value, item["path"])
    except (KeyError, TypeError):
        pass
    raise UsageError(
        f"patch operation {index} is none of RFC 6902", hint='{"op": "replace", "path": "/a/b", "value": 1}'
    )


def _pointer(text: str) -> list[str]:
    """RFC 6901."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise TypeError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _parent(document: Any, path: Sequence[str], told: str) -> Any:
    for step in path[:-1]:
        document = _child(document, step, told)
    return document


def _child(document: Any, step: str, told: str) -> Any:
    if isinstance(document, dict) and step in document:
        return document[step]
    if isinstance(document, list) and _is_index(step) and int(step) < len(document):
        return document[int(step)]
    raise UsageError(f"the patch's path {told} leads to nothing", hint="`heddle dlq show ENTRY` shows the fields")


def _add(document: Any, path: Sequence[str], value: Any, told: str) -> Any:
    if not path:
        return copy.deepcopy(value)
    parent, last = _parent(document, path, told), path[-1]
    if isinstance(parent, dict):
        parent[last] = copy.deepcopy(value)
    elif isinstance(parent, list) and (last == "-" or (_is_index(last) and int(last) <= len(parent))):
        parent.insert(len(parent) if last == "-" else int(last), copy.deepcopy(value))
    else:
        raise UsageError(f"the patch's path {told} leads to nothing")
    return document


def _remove(document: Any, path: Sequence[str], told: str) -> tuple[Any, Any]:
    """The document without it, and what was removed."""
    if not path:
        return None, document
    parent, last = _parent(document, path, told), path[-1]
    removed = _child(parent, last, told)
    del parent[int(last) if isinstance(parent, list) else last]
    return document, removed


def _replace(document: Any, path: Sequence[str], value: Any, told: str) -> Any:
    if not path:
        return copy.deepcopy(value)
    parent, last = _parent(document, path, told), path[-1]
    _child(parent, last, told)
    parent[int(last) if isinstance(parent, list) else last] = copy.deepcopy(value)
    return document


def _carry(document: Any, start: Sequence[str], path: Sequence[str], item: Any, *, keep: bool) -> Any:
    if not keep:
        document, value = _remove(document, start, item["from"])
        return _add(document, path, value, item["path"])
    value = document
    for step in start:
        value = _child(value, step, item["from"])
    return _add(document, path, value, item["path"])


def _test(document: Any, path: Sequence[str], value: Any, told: str) -> Any:
    found = document
    for step in path:
        found = _child(found, step, told)
    if found != value or isinstance(found, bool) != isinstance(value, bool):
        raise UsageError(f"the patch's test of {told} does not hold")
    return document


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and (step == "0" or not step.startswith("0"))
