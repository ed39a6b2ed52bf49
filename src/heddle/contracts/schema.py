"""Avro schemas as a tree of types. Everything else in this package walks it: resolution, codecs, generated types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
MISSING: Final = object()


class Logical(NamedTuple):
    """A logical type; `precision` and `scale` count decimal digits and are 0 for all but `decimal`."""

    name: str
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        return f"decimal({self.precision},{self.scale})" if self.name == "decimal" else self.name


@dataclass(frozen=True, slots=True)
class Primitive:
    kind: str
    logical: Logical | None = None

    def __str__(self) -> str:
        return str(self.logical or self.kind)


@dataclass(frozen=True, slots=True)
class Fixed:
    name: str
    size: int
    logical: Logical | None = None
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.logical or 'fixed'} {self.name}"


@dataclass(frozen=True, slots=True)
class Enum:
    name: str
    symbols: tuple[str, ...]
    default: str | None = None
    aliases: tuple[str, ...] = ()
    doc: str = ""

    def __str__(self) -> str:
        return f"enum {self.name}"


@dataclass(frozen=True, slots=True)
class Array:
    items: Node

    def __str__(self) -> str:
        return "array"


@dataclass(frozen=True, slots=True)
class Map:
    values: Node

    def __str__(self) -> str:
        return "map"


@dataclass(frozen=True, slots=True)
class Union:
    branches: tuple[Node, ...]

    def __str__(self) -> str:
        return f"union of {', '.join(map(str, self.branches)) or 'nothing'}"

    @property
    def null_index(self) -> int | None:
        """The branch that holds null, if there is one."""
        return next((i for i, b in enumerate(self.branches) if b == NULL), None)


@dataclass(frozen=True, slots=True)
class Field:
    """`default` is the schema's own JSON value, or `MISSING`."""

    name: str
    type: Node
    default: Any = MISSING
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(slots=True, eq=False)
class Record:
    """A record may contain itself, so it compares by identity and gets its fields after it got its name."""

    name: str
    fields: tuple[Field, ...] = ()
    aliases: tuple[str, ...] = ()
    doc: str = ""

    def __str__(self) -> str:
        return f"record {self.name}"

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]


Node = Primitive | Fixed | Enum | Array | Map | Union | Record
Named = Fixed | Enum | Record

NULL: Final = Primitive("null")


def named_types(root: Node) -> dict[str, Named]:
    """Every named type below `root` by full name, each after the types that it contains (recursion aside)."""
    found: dict[str, Named] = {}
    _collect(root, found, set())
    return found


def _collect(node: Node, found: dict[str, Named], seen: set[str]) -> None:
    if isinstance(node, Record | Enum | Fixed):
        if node.name in seen:
            return
        seen.add(node.name)
    for child in children(node):
        _collect(child, found, seen)
    if isinstance(node, Record | Enum | Fixed):
        found[node.name] = node


def children(node: Node) -> Iterable[Node]:
    """The types directly inside a type."""
    match node:
        case Record():
            return [f.type for f in node.fields]
        case Array():
            return [node.items]
        case Map():
            return [node.values]
        case Union():
            return node.branches
        case _:
            return ()


def min_size(node: Node) -> int:
    """The least number of bytes that a value can take; 0 means that bytes do not bound how many there are."""
    return _min_size(node, {})


def _min_size(node: Node, known: dict[str, int]) -> int:
    match node:
        case Primitive():
            return {"null": 0, "float": 4, "double": 8}.get(node.kind, 1)
        case Fixed():
            return node.size
        case Record():
            if node.name not in known:
                known[node.name] = 0
                known[node.name] = sum(_min_size(f.type, known) for f in node.fields)
            return known[node.name]
        case Union():
            return 1 + min((_min_size(b, known) for b in node.branches), default=0)
        case _:
            return 1


def union_key(node: Node) -> str:
    """What must differ between the branches of a union: the full name, or the kind of an unnamed type."""
    match node:
        case Primitive():
            return node.kind
        case Array() | Map() | Union():
            return type(node).__name__.lower()
        case _:
            return node.name
