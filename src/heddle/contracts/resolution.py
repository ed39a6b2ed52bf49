"""Schema resolution, settled once per pair of schemas: how to read what `writer` wrote as `reader`.

`resolve` gives a tree of actions that follows the writer's bytes, and every reason why some value of the writer
could not be read. Decoders are made from the actions; the compatibility check is the list of reasons.

Beyond the Avro specification two schemas do not match when a logical type changes meaning: another decimal scale,
fewer digits, millis for micros. Plain checkers let these through, and amounts are then off by a factor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from heddle.contracts.schema import (
    MISSING,
    Array,
    Enum,
    Field,
    Fixed,
    Logical,
    Map,
    Node,
    Primitive,
    Record,
    Union,
    min_size,
    union_key,
)

_PROMOTIONS: Final = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}


class Problem(NamedTuple):
    """Why some value could not be read. `meaning`: the bytes resolve, a logical type forbids it."""

    path: str
    message: str
    meaning: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class ReadScalar:
    """`kind` is how the writer wrote it, `becomes` what the reader wants."""

    kind: str
    becomes: str
    logical: Logical | None


@dataclass(frozen=True, slots=True)
class ReadFixed:
    size: int
    logical: Logical | None


@dataclass(frozen=True, slots=True)
class ReadEnum:
    """The reader's symbol, or its default, for each index of the writer."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadArray:
    """`item_bytes`: the least that one item takes; with 0 only a limit bounds their number."""

    items: Action
    item_bytes: int


@dataclass(frozen=True, slots=True)
class ReadMap:
    values: Action


@dataclass(frozen=True, slots=True)
class ReadUnion:
    branches: tuple[Action, ...]


class Step(NamedTuple):
    """One field of the writer, in the writer's order. `target` is the reader's field; None: read and dropped."""

    name: str
    action: Action
    target: str | None


@dataclass(eq=False, slots=True)
class ReadRecord:
    """`defaulted` are the reader's fields that the writer does not have. Compared by identity, as it may recur."""

    reader: Record
    steps: tuple[Step, ...] = ()
    defaulted: tuple[Field, ...] = ()


Action = ReadScalar | ReadFixed | ReadEnum | ReadArray | ReadMap | ReadUnion | ReadRecord

UNREADABLE: Final = ReadUnion(())


def resolve(writer: Node, reader: Node) -> tuple[Action, list[Problem]]:
    """How to read `writer`'s bytes as `reader`, and what stands against it (empty: every value can be read)."""
    resolver = _Resolver()
    action = resolver.resolve(writer, reader, "")
    return action, resolver.problems


@dataclass(slots=True)
class _Resolver:
    problems: list[Problem] = field(default_factory=list)
    records: dict[tuple[int, int], ReadRecord] = field(default_factory=dict)

    def resolve(self, writer: Node, reader: Node, path: str) -> Action:
        match writer, reader:
            case Union(), _:
                return ReadUnion(tuple(self.resolve(branch, reader, path) for branch in writer.branches))
            case _, Union():
                return self._into_union(writer, reader, path)
            case Primitive(), Primitive():
                return self._scalar(writer, reader, path)
            case Fixed(), Fixed() if _same_name(writer, reader) and writer.size == reader.size:
                self._meaning(writer.logical, reader.logical, path)
                return ReadFixed(writer.size, reader.logical)
            case Enum(), Enum() if _same_name(writer, reader):
                return self._enum(writer, reader, path)
            case Array(), Array():
                items = self.resolve(writer.items, reader.items, f"{path}[]")
                return ReadArray(items, min_size(writer.items))
            case Map(), Map():
                return ReadMap(self.resolve(writer.values, reader.values, f"{path}{{}}"))
            case Record(), Record() if _same_name(writer, reader):
                return self._record(writer, reader, path)
        return self._unreadable(path, f"{writer} cannot be read as {reader}")

    def _scalar(self, writer: Primitive, reader: Primitive, path: str) -> Action:
        if writer.kind != reader.kind and (writer.kind, reader.kind) not in _PROMOTIONS:
            return self._unreadable(path, f"{writer} cannot be read as {reader}")
        self._meaning(writer.logical, reader.logical, path)
        return ReadScalar(writer.kind, reader.kind, reader.logical)

    def _enum(self, writer: Enum, reader: Enum, path: str) -> Action:
        gone = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if gone and reader.default is None:
            return self._unreadable(path, f"{reader} has no default and lacks the symbols {', '.join(gone)}")
        return ReadEnum(tuple(s if s in reader.symbols else reader.default or "" for s in writer.symbols))

    def _into_union(self, writer: Node, reader: Union, path: str) -> Action:
        """The branch of the writer's own type if there is one, else the first that can read it."""
        branches = sorted(reader.branches, key=lambda b: union_key(b) != union_key(writer))
        for branch in branches:
            attempt = _Resolver(records=dict(self.records))
            action = attempt.resolve(writer, branch, path)
            if not attempt.problems:
                self.records.update(attempt.records)
                return action
        for branch in branches:
            if type(branch) is type(writer) and union_key(branch) == union_key(writer):
                return self.resolve(writer, branch, path)
        return self._unreadable(path, f"{writer} fits no branch of {reader}")

    def _record(self, writer: Record, reader: Record, path: str) -> Action:
        key = (id(writer), id(reader))
        if key in self.records:
            return self.records[key]
        action = self.records[key] = ReadRecord(reader)
        targets = _match_fields(writer, reader)
        steps = []
        for theirs in writer.fields:
            ours = targets.get(theirs.name)
            inner = self.resolve(theirs.type, ours.type, _join(path, ours.name)) if ours else as_written(theirs.type)
            steps.append(Step(theirs.name, inner, ours.name if ours else None))
        matched = {ours.name for ours in targets.values()}
        action.steps = tuple(steps)
        action.defaulted = tuple(f for f in reader.fields if f.name not in matched)
        for ours in action.defaulted:
            if ours.default is MISSING:
                self.problems.append(
                    Problem(_join(path, ours.name), "the writer lacks this field and it has no default")
                )
        return action

    def _meaning(self, writer: Logical | None, reader: Logical | None, path: str) -> None:
        if reader is None or reader == writer or (writer is None and reader.name != "decimal"):
            return
        grows = writer is not None and writer.name == reader.name == "decimal" and writer.scale == reader.scale
        if grows and writer is not None and writer.precision <= reader.precision:
            return
        theirs = writer or "a value without logical type"
        self.problems.append(Problem(path, f"{theirs} cannot be read as {reader}", meaning=True))

    def _unreadable(self, path: str, message: str) -> Action:
        self.problems.append(Problem(path, message))
        return UNREADABLE


def as_written(node: Node) -> Action:
    """How to read a schema's own bytes."""
    return resolve(node, node)[0]


def _match_fields(writer: Record, reader: Record) -> dict[str, Field]:
    """The reader's field for each field name of the writer: by name first, then by the reader's aliases."""
    written = {f.name for f in writer.fields}
    found = {f.name: f for f in reader.fields if f.name in written}
    for ours in reader.fields:
        if ours.name not in written:
            alias = next((a for a in ours.aliases if a in written and a not in found), None)
            if alias is not None:
                found[alias] = ours
    return found


def _same_name(writer: Record | Enum | Fixed, reader: Record | Enum | Fixed) -> bool:
    """Unqualified names match, or one of the reader's aliases is the writer's name."""
    return _short(writer.name) == _short(reader.name) or writer.name in reader.aliases


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
