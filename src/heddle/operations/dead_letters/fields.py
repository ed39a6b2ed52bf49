"""A body field by field: what its writer wrote beside what the handler's contract expects."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from heddle.contracts.json_form import to_json
from heddle.contracts.resolution import resolve
from heddle.contracts.schema import MISSING, NULL, Array, Enum, Field, Map, Node, Record, Union, union_key
from heddle.contracts.shapes import Chosen
from heddle.operations.dead_letters.differences import ABSENT


class Mark(StrEnum):
    """Why a field needs looking at. `EXTRA` and `DEFAULT` are no failures: the handler does not see the one, and sees
    its contract's default for the other."""

    MISSING = "missing"
    WRONG_TYPE = "wrong type"
    UNKNOWN_SYMBOL = "unknown symbol"
    EXTRA = "extra"
    DEFAULT = "default"

    @property
    def fails(self) -> bool:
        return self not in (Mark.EXTRA, Mark.DEFAULT)


class FieldRow(NamedTuple):
    """`path` as the handler's contract names it (`lines[2].amount`). `value` in the JSON form, `ABSENT` for none;
    `written` and `expected` are types, "" for none."""

    path: str
    value: Any
    written: str
    expected: str
    mark: Mark | None = None
    note: str = ""


def compare(writer: Node, reader: Node | None, value: Any) -> list[FieldRow]:
    """`value` was decoded as written, in `ChosenShape`. Without a reader nothing is expected and nothing is marked."""
    if reader is None:
        return list(_plain("", writer, value))
    return list(_rows("", writer, reader, value))


def type_text(node: Node) -> str:
    """A type in one or two words: `string`, `null | decimal(14,2)`, `[Line]`."""
    match node:
        case Union():
            return " | ".join(map(type_text, node.branches))
        case Array():
            return f"[{type_text(node.items)}]"
        case Map():
            return f"{{{type_text(node.values)}}}"
        case Record():
            return node.short_name
        case Enum():
            return f"enum {node.name.rpartition('.')[2]}"
        case _:
            return str(node)


def _rows(path: str, writer: Node, reader: Node, value: Any) -> Iterator[FieldRow]:
    types = type_text(writer), type_text(reader)
    if isinstance(writer, Union):
        assert isinstance(value, Chosen)
        writer, value = writer.branches[value.index], value.value
    branch = _branch(writer, reader)
    match writer, branch:
        case Record(), Record() if not _other_name(writer, branch):
            yield from _record(path, writer, branch, value)
        case (Array(), Array()) if value:
            for index, item in enumerate(value):
                yield from _rows(f"{path}[{index}]", writer.items, branch.items, item)
        case (Map(), Map()) if value:
            for name, item in value.items():
                yield from _rows(f"{path}[{name!r}]", writer.values, branch.values, item)
        case _:
            yield FieldRow(path, to_json(writer, value), *types, *_verdict(writer, reader, branch, value))


def _record(path: str, writer: Record, reader: Record, value: dict[str, Any]) -> Iterator[FieldRow]:
    targets = _targets(writer, reader)
    for theirs in writer.fields:
        ours = targets.get(theirs.name)
        if ours is None:
            shown = to_json(theirs.type, value[theirs.name])
            yield FieldRow(_join(path, theirs.name), shown, type_text(theirs.type), "", Mark.EXTRA)
        else:
            yield from _rows(_join(path, ours.name), theirs.type, ours.type, value[theirs.name])
    matched = {ours.name for ours in targets.values()}
    for ours in reader.fields:
        if ours.name not in matched:
            mark = Mark.MISSING if ours.default is MISSING else Mark.DEFAULT
            shown = ABSENT if ours.default is MISSING else ours.default
            yield FieldRow(_join(path, ours.name), shown, "", type_text(ours.type), mark)


def _plain(path: str, node: Node, value: Any) -> Iterator[FieldRow]:
    written = type_text(node)
    if isinstance(node, Union):
        node, value = node.branches[value.index], value.value
    match node:
        case Record():
            for each in node.fields:
                yield from _plain(_join(path, each.name), each.type, value[each.name])
        case Array() if value:
            for index, item in enumerate(value):
                yield from _plain(f"{path}[{index}]", node.items, item)
        case Map() if value:
            for name, item in value.items():
                yield from _plain(f"{path}[{name!r}]", node.values, item)
        case _:
            yield FieldRow(path, to_json(node, value), written, "")


def _verdict(writer: Node, reader: Node, branch: Node | None, value: Any) -> tuple[Mark | None, str]:
    """Of a value that has no parts, or none that can be compared."""
    if isinstance(writer, Enum) and isinstance(branch, Enum) and not _other_name(writer, branch):
        if value in branch.symbols:
            return None, ""
        if branch.default is not None:
            return Mark.DEFAULT, f"read as {branch.default}"
        return Mark.UNKNOWN_SYMBOL, f"known: {', '.join(branch.symbols)}"
    if writer == NULL and isinstance(reader, Union) and reader.null_index is not None:
        return None, ""
    problems = resolve(writer, reader)[1]
    return (Mark.WRONG_TYPE, problems[0].message) if problems else (None, "")


def _branch(writer: Node, reader: Node) -> Node | None:
    """What a union's reader reads it as: its own type, else the first that can."""
    if not isinstance(reader, Union):
        return reader
    for branch in reader.branches:
        if type(branch) is type(writer) and (union_key(branch) == union_key(writer) or not _other_name(writer, branch)):
            return branch
    return next((branch for branch in reader.branches if not resolve(writer, branch)[1]), None)


def _targets(writer: Record, reader: Record) -> dict[str, Field]:
    """The reader's field for each of the writer's names: by name, then by alias (as resolution does it)."""
    written = {f.name for f in writer.fields}
    found = {f.name: f for f in reader.fields if f.name in written}
    for ours in reader.fields:
        if ours.name not in written:
            for alias in ours.aliases:
                if alias in written and alias not in found:
                    found[alias] = ours
                    break
    return found


def _other_name(writer: Node, reader: Node) -> bool:
    """Whether two named types are no versions of one."""
    ours, theirs = getattr(reader, "name", ""), getattr(writer, "name", "")
    same = ours.rpartition(".")[2] == theirs.rpartition(".")[2]
    return not same and theirs not in getattr(reader, "aliases", ())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
