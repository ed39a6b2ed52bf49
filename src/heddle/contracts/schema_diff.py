"""What changed between two versions of a schema, in words, field by field."""

from __future__ import annotations

from collections.abc import Iterator

from heddle.contracts.schema import MISSING, Array, Enum, Field, Map, Node, Record, Union, children


def schema_changes(earlier: Node, later: Node) -> list[str]:
    """One line per field that came, went or changed; documentation is looked at last."""
    before, after = dict(_fields(earlier, "", set())), dict(_fields(later, "", set()))
    lines = [f"adds {path}" for path in after if path not in before]
    lines += [f"removes {path}" for path in before if path not in after]
    for path in before.keys() & after.keys():
        lines += _field_changes(path, before[path], after[path])
    return sorted(lines) or ["documentation or layout only"]


def _field_changes(path: str, before: Field, after: Field) -> Iterator[str]:
    if _words(before.type) != _words(after.type):
        yield f"{path}: {_words(before.type)} → {_words(after.type)}"
    if before.default != after.default:
        what = "no default" if after.default is MISSING else "another default"
        yield f"{path}: {what}"


def _fields(node: Node, path: str, seen: set[str]) -> Iterator[tuple[str, Field]]:
    """Fields by path; a record that is used in several places is looked into once."""
    if isinstance(node, Record):
        if node.name in seen:
            return
        seen.add(node.name)
        for item in node.fields:
            here = f"{path}.{item.name}" if path else item.name
            yield here, item
            yield from _fields(item.type, here, seen)
        return
    suffix = "[]" if isinstance(node, Array) else "{}" if isinstance(node, Map) else ""
    for child in children(node):
        yield from _fields(child, path + suffix, seen)


def _words(node: Node) -> str:
    match node:
        case Array():
            return f"array of {_words(node.items)}"
        case Map():
            return f"map of {_words(node.values)}"
        case Union():
            return " or ".join(map(_words, node.branches))
        case Enum():
            return f"{node} ({', '.join(node.symbols)})"
        case _:
            return str(node)
