"""From a schema's JSON to its tree, checked whole.

Logical types that are unknown or malformed are ignored as the Avro specification asks, unless `strict` is set: a
contract of ours may not say what nobody enforces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from heddle.contracts.schema import (
    MISSING,
    PRIMITIVES,
    Array,
    Enum,
    Field,
    Fixed,
    Logical,
    Map,
    Named,
    Node,
    Primitive,
    Record,
    Union,
    union_key,
)
from heddle.errors import ContractError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_MAX_NESTING = 200

_LOGICAL_BASES: Final = {
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "timestamp-millis": {"long"},
    "timestamp-micros": {"long"},
    "local-timestamp-millis": {"long"},
    "local-timestamp-micros": {"long"},
    "uuid": {"string"},
    "decimal": {"bytes", "fixed"},
}


def parse_schema(source: object, *, strict: bool = False) -> Node:
    """The tree of a schema given as decoded JSON. Raises `ContractError` with the place inside the schema."""
    return _Parser(strict).parse(source, "", "")


@dataclass(slots=True)
class _Parser:
    strict: bool
    names: dict[str, Named] = field(default_factory=dict)
    depth: int = 0

    def parse(self, source: object, namespace: str, at: str) -> Node:
        self.depth += 1
        if self.depth > _MAX_NESTING:
            raise _invalid(at, f"nested deeper than {_MAX_NESTING} levels")
        try:
            match source:
                case str():
                    return self._reference(source, namespace, at)
                case list():
                    return self._union(source, namespace, at)
                case dict():
                    return self._object(source, namespace, at)
                case _:
                    raise _invalid(at, f"a schema is a name, a list or an object, not {type(source).__name__}")
        finally:
            self.depth -= 1

    def _reference(self, name: str, namespace: str, at: str) -> Node:
        if name in PRIMITIVES:
            return Primitive(name)
        for candidate in (name if "." in name or not namespace else f"{namespace}.{name}", name):
            if candidate in self.names:
                return self.names[candidate]
        raise _invalid(at, f"type {name!r} is not defined before it is used")

    def _union(self, source: list[Any], namespace: str, at: str) -> Node:
        branches = tuple(self.parse(branch, namespace, f"{at}[{i}]") for i, branch in enumerate(source))
        kinds = [union_key(branch) for branch in branches]
        if any(isinstance(branch, Union) for branch in branches):
            raise _invalid(at, "a union directly inside a union")
        if len(set(kinds)) != len(kinds):
            raise _invalid(at, "a union with two branches of the same type")
        return Union(branches)

    def _object(self, source: dict[str, Any], namespace: str, at: str) -> Node:
        kind = source.get("type")
        match kind:
            case "record" | "error":
                return self._record(source, namespace, at)
            case "enum":
                return self._enum(source, namespace, at)
            case "fixed":
                return self._fixed(source, namespace, at)
            case "array" | "map":
                inner = "items" if kind == "array" else "values"
                if inner not in source:
                    raise _invalid(at, f"{kind} without {inner!r}")
                node = self.parse(source[inner], namespace, f"{at}/{inner}")
                return Array(node) if kind == "array" else Map(node)
            case str() if kind in PRIMITIVES:
                return Primitive(kind, self._logical(source, kind, 0, at))
            case str() | list() | dict():
                return self.parse(kind, namespace, at)
            case _:
                raise _invalid(at, "object without a usable 'type'")

    def _record(self, source: dict[str, Any], namespace: str, at: str) -> Record:
        name, aliases = self._names(source, namespace, at)
        record = Record(name, aliases=aliases)
        self.names[record.name] = record
        listed = source.get("fields")
        if not isinstance(listed, list):
            raise _invalid(at, f"record {record.name}: 'fields' is not a list")
        inner = record.name.rpartition(".")[0]
        record.fields = tuple(self._field(f, inner, f"{at}/{record.short_name}") for f in listed)
        record.doc = str(source.get("doc", ""))
        seen = [f.name for f in record.fields]
        if len(set(seen)) != len(seen):
            raise _invalid(at, f"record {record.name}: two fields of the same name")
        return record

    def _field(self, source: object, namespace: str, at: str) -> Field:
        if not isinstance(source, dict):
            raise _invalid(at, "a field is an object")
        name = source.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _invalid(at, "a field without a valid 'name'")
        if "type" not in source:
            raise _invalid(f"{at}.{name}", "field without 'type'")
        node = self.parse(source["type"], namespace, f"{at}.{name}")
        aliases = source.get("aliases", [])
        return Field(name, node, source.get("default", MISSING), tuple(aliases), str(source.get("doc", "")))

    def _enum(self, source: dict[str, Any], namespace: str, at: str) -> Enum:
        name, aliases = self._names(source, namespace, at)
        symbols = source.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(s, str) and _NAME.fullmatch(s) for s in symbols):
            raise _invalid(at, f"enum {name}: 'symbols' is not a list of names")
        if len(set(symbols)) != len(symbols):
            raise _invalid(at, f"enum {name}: two symbols of the same name")
        default = source.get("default")
        if self.strict and default is not None and default not in symbols:
            raise _invalid(at, f"enum {name}: the default is none of its symbols")
        node = Enum(name, tuple(symbols), default, aliases, str(source.get("doc", "")))
        self.names[name] = node
        return node

    def _fixed(self, source: dict[str, Any], namespace: str, at: str) -> Fixed:
        name, aliases = self._names(source, namespace, at)
        size = source.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _invalid(at, f"fixed {name}: 'size' is not a number of bytes")
        node = Fixed(name, size, self._logical(source, "fixed", size, at), aliases)
        self.names[name] = node
        return node

    def _names(self, source: dict[str, Any], namespace: str, at: str) -> tuple[str, Any]:
        name = source.get("name")
        if not isinstance(name, str) or not _FULL_NAME.fullmatch(name):
            raise _invalid(at, f"{source['type']} without a valid 'name'")
        if "." not in name:
            space = source.get("namespace", namespace)
            name = f"{space}.{name}" if space else name
        if name in self.names:
            raise _invalid(at, f"type {name} is defined twice")
        space = name.rpartition(".")[0]
        aliases = source.get("aliases", [])
        return name, tuple(a if "." in a or not space else f"{space}.{a}" for a in aliases)

    def _logical(self, source: dict[str, Any], kind: str, size: int, at: str) -> Logical | None:
        name = source.get("logicalType")
        if name is None:
            return None
        found = _decimal(source, size) if name == "decimal" else Logical(str(name))
        if found is not None and kind in _LOGICAL_BASES.get(found.name, ()):
            return found
        if self.strict:
            raise _invalid(at, f"logical type {name!r} does not exist or does not fit {kind}")
        return None


def _decimal(source: dict[str, Any], size: int) -> Logical | None:
    precision, scale = source.get("precision"), source.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision or precision < 1:
        return None
    if size and precision > len(str(2 ** (8 * size - 1) - 1)) - 1:
        return None
    return Logical("decimal", precision, scale)


def _invalid(at: str, message: str) -> ContractError:
    return ContractError(f"invalid Avro schema{f' at {at}' if at else ''}: {message}")
