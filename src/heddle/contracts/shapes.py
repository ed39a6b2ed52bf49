"""The two shapes of a decoded record: a dict of fastavro's native values, or a generated frozen type."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from heddle.contracts.naming import python_name, type_name
from heddle.contracts.schema import MISSING, Array, Map, Node, Record, Union
from heddle.contracts.values import branch_of_default, default_value
from heddle.errors import ContractError


@dataclass(frozen=True, slots=True)
class Chosen:
    """A union's value together with its branch, for those who must write it back exactly as it was read: an int that
    was a long among `["int", "long"]`. The reference codec alone reads it (`ChosenShape`) and writes it."""

    index: int
    value: Any


class Shape(Protocol):
    """How codecs take records apart and put them together."""

    def class_of(self, record: Record, /) -> type[Any] | None:
        """The class of a record's values; None where they are dicts."""

    def accepts(self, record: Record, value: Any, /) -> bool: ...

    def field(self, value: Any, name: str) -> Any:
        """A field's value, or `MISSING`."""

    def make(self, record: Record, fields: dict[str, Any]) -> Any: ...

    def array(self, items: list[Any]) -> Any: ...

    def branch(self, index: int, value: Any, /) -> Any:
        """A union's value, of its branch `index` as written. Asked by the reference decoder only."""


class DictShape:
    """Records are dicts, arrays lists."""

    def class_of(self, _record: Record, /) -> None:
        return None

    def accepts(self, _record: Record, value: Any, /) -> bool:
        return isinstance(value, Mapping)

    def field(self, value: Any, name: str) -> Any:
        return value.get(name, MISSING)

    def make(self, record: Record, fields: dict[str, Any]) -> Any:
        return {field.name: fields[field.name] for field in record.fields}

    def array(self, items: list[Any]) -> Any:
        return items

    def branch(self, _index: int, value: Any, /) -> Any:
        return value


class ChosenShape(DictShape):
    """Dicts, in which the values of unions keep their branches."""

    def branch(self, index: int, value: Any, /) -> Chosen:
        return Chosen(index, value)


class TypeShape:
    """Records are the generated classes that live in the module of the contract's own class; arrays are tuples."""

    def __init__(self, root: type[Any], major: int) -> None:
        self._module = sys.modules[root.__module__]
        self._major = major

    def class_of(self, record: Record) -> type[Any]:
        name = type_name(record.name, self._major)
        found = getattr(self._module, name, None)
        if not isinstance(found, type):
            raise ContractError(f"{self._module.__name__} has no type {name}", hint="run `heddle types`")
        return found

    def accepts(self, record: Record, value: Any) -> bool:
        return isinstance(value, self.class_of(record))

    def field(self, value: Any, name: str) -> Any:
        return getattr(value, python_name(name), MISSING)

    def make(self, record: Record, fields: dict[str, Any]) -> Any:
        return self.class_of(record)(**{python_name(name): value for name, value in fields.items()})

    def array(self, items: list[Any]) -> Any:
        return tuple(items)

    def branch(self, _index: int, value: Any, /) -> Any:
        return value


def shaped_default(shape: Shape, node: Node, default: Any) -> Any:
    """A schema default as this shape holds it. A new value each time: parts of it may be mutable."""
    match node:
        case Union():
            return shaped_default(shape, branch_of_default(node, default), default)
        case Array():
            return shape.array([shaped_default(shape, node.items, item) for item in default])
        case Map():
            return {key: shaped_default(shape, node.values, item) for key, item in default.items()}
        case Record():
            fields = {f.name: shaped_default(shape, f.type, default.get(f.name, f.default)) for f in node.fields}
            return shape.make(node, fields)
        case _:
            return default_value(node, default)
