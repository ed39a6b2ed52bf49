"""Generated types: one frozen dataclass per record, written to `schemas/<domain>/__init__.py`.

The text depends on the contract files alone, so `heddle types --check` can tell a stale file by comparing."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from heddle.contracts.contract import Contract, load_contracts
from heddle.contracts.naming import python_name, type_name
from heddle.contracts.render import render_default
from heddle.contracts.schema import (
    MISSING,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Node,
    Primitive,
    Record,
    Union,
    named_types,
)
from heddle.errors import ContractError

_PRIMITIVES = {
    "null": "None",
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "bytes": "bytes",
    "string": "str",
}
_LOGICAL = {
    "decimal": "Decimal",
    "uuid": "UUID",
    "date": "date",
    "time-millis": "time",
    "time-micros": "time",
    "timestamp-millis": "datetime",
    "timestamp-micros": "datetime",
    "local-timestamp-millis": "datetime",
    "local-timestamp-micros": "datetime",
}
_IMPORTS = {
    "Mapping": "from collections.abc import Mapping",
    "dataclass": "from dataclasses import dataclass",
    "field": "from dataclasses import field",
    "UTC": "from datetime import UTC",
    "date": "from datetime import date",
    "datetime": "from datetime import datetime",
    "time": "from datetime import time",
    "timedelta": "from datetime import timedelta",
    "Decimal": "from decimal import Decimal",
    "Literal": "from typing import Literal",
    "TypeAlias": "from typing import TypeAlias",
    "UUID": "from uuid import UUID",
}
_HEADER = '"""Types of the {domain} contracts, made from the .avsc files by `heddle types`. Not for editing."""'
_WIDTH = 120
_BUILTINS = frozenset({"bool", "bytes", "float", "int", "str", "tuple"})


def generate(root: Path) -> dict[Path, str]:
    """The text of every types file of an application root, by path."""
    contracts = load_contracts(root)
    return {
        root / "schemas" / domain / "__init__.py": generate_domain(domain, list(group))
        for domain, group in groupby(contracts, key=lambda c: c.domain)
    }


def stale(root: Path) -> list[Path]:
    """Types files that are missing or are not what the contracts give."""
    return [
        path for path, text in generate(root).items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write(root: Path) -> list[Path]:
    """Write what is stale; returns the files written."""
    texts = generate(root)
    written = stale(root)
    for path in written:
        path.write_text(texts[path], encoding="utf-8")
    return written


def generate_domain(domain: str, contracts: Iterable[Contract]) -> str:
    """Raises `ContractError` when two different types of a domain want the same Python name."""
    contracts = list(contracts)
    records = [n for c in contracts for n in named_types(c.root).values() if isinstance(n, Record)]
    module = _Module(domain, frozenset(python_name(f.name) for r in records for f in r.fields))
    for contract in contracts:
        for named in named_types(contract.root).values():
            module.add(named, contract)
    return module.text()


@dataclass(slots=True)
class _Module:
    """One types file in the making. Inside a class body a field hides a type of the same name from type
    checkers (`date: date | None`), so names that any field has are imported with an underscore before them."""

    domain: str
    field_names: frozenset[str]
    aliases: set[str] = field(default_factory=set)
    blocks: dict[str, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)

    def add(self, named: Named, contract: Contract) -> None:
        if isinstance(named, Fixed):
            return
        name = type_name(named.name, contract.major)
        if name in _IMPORTS or name in _BUILTINS or keyword.iskeyword(name):
            raise ContractError(f"{contract.path}: type {named.name} hides Python's own {name}", hint="rename the type")
        is_root = named is contract.root
        block = self._enum(name, named) if isinstance(named, Enum) else self._record(name, named, contract, is_root)
        if self.blocks.setdefault(name, block) != block:
            raise ContractError(
                f"{contract.path}: {named.name} gives the Python name {name}, which another type of "
                f"domain {self.domain} has with other content",
                hint="rename one of them",
            )

    def text(self) -> str:
        names = sorted(self.blocks)
        parts = [_HEADER.format(domain=self.domain), "from __future__ import annotations", self._import_lines()]
        listed = "".join(f'    "{name}",\n' for name in names)
        parts.append(f"__all__ = [\n{listed}]")
        blocks = list(self.blocks.values())
        if self.aliases:
            blocks.append("\n".join(f"_{name}: TypeAlias = {name}" for name in sorted(self.aliases)))
        return "\n\n".join(parts) + "\n" + "".join(_spaced(blocks))

    def _import_lines(self) -> str:
        """Sorted as isort would: plain names of a module on one line, then each renamed one on its own."""
        plain: dict[str, list[str]] = {}
        lines: list[tuple[str, int, str]] = []
        for name in sorted(self.imports):
            module, _, what = _IMPORTS.get(name, f"from builtins import {name}").partition(" import ")
            if name in self.field_names and name not in ("dataclass", "TypeAlias", "Literal"):
                lines.append((module, 1, f"{module} import {what} as _{what}"))
            else:
                plain.setdefault(module, []).append(what)
        lines += [(module, 0, f"{module} import {', '.join(names)}") for module, names in plain.items()]
        return "\n".join(line for *_, line in sorted(lines)) + "\n\nfrom heddle.contracts import contract"

    def _enum(self, name: str, node: Enum) -> str:
        self.imports |= {"Literal", "TypeAlias"}
        symbols = [f'"{s}"' for s in node.symbols]
        line = f"{name}: TypeAlias = Literal[{', '.join(symbols)}]"
        if len(line) > _WIDTH:
            line = f"{name}: TypeAlias = Literal[\n" + "".join(f"    {s},\n" for s in symbols) + "]"
        return line + (f"\n{_docstring(node.doc, 0)}" if node.doc else "")

    def _record(self, name: str, node: Record, contract: Contract, is_root: bool) -> str:
        self.imports.add("dataclass")
        lines = [f'@contract("{contract.name}")'] if is_root else []
        lines += ["@dataclass(frozen=True, slots=True, kw_only=True)", f"class {name}:"]
        lines.append(_docstring(node.doc, 4))
        for item in node.fields:
            lines += ["", self._field(item, contract.major), _docstring(item.doc, 4)]
        return "\n".join(lines)

    def _field(self, item: Field, major: int) -> str:
        annotation = self._annotation(item.type, major)
        line = f"    {python_name(item.name)}: {annotation}"
        if item.default is MISSING:
            return line
        text = render_default(item.type, item.default, major, self._name)
        return f"{line} = {text}"

    def _annotation(self, node: Node, major: int) -> str:
        match node:
            case Primitive():
                return self._scalar(node.logical.name if node.logical else "", _PRIMITIVES[node.kind])
            case Fixed():
                return self._scalar(node.logical.name if node.logical else "", "bytes")
            case Array():
                return f"{self._name('tuple')}[{self._annotation(node.items, major)}, ...]"
            case Map():
                return f"{self._name('Mapping')}[{self._name('str')}, {self._annotation(node.values, major)}]"
            case Union():
                parts = [self._annotation(b, major) for b in node.branches if b != Primitive("null")]
                parts += ["None"] if node.null_index is not None else []
                return " | ".join(dict.fromkeys(parts))
            case _:
                return self._name(type_name(node.name, major))

    def _scalar(self, logical: str, otherwise: str) -> str:
        return self._name(_LOGICAL.get(logical, otherwise))

    def _name(self, name: str) -> str:
        """How to write a type's name inside a class body; sees to its import or alias."""
        hidden = name in self.field_names
        if name in _IMPORTS or (name in _BUILTINS and hidden):
            self.imports.add(name)
        elif hidden:
            self.imports.add("TypeAlias")
            self.aliases.add(name)
        return f"_{name}" if hidden else name


def _spaced(blocks: list[str]) -> Iterator[str]:
    """Two empty lines around classes, one between aliases."""
    before = ""
    for block in blocks:
        yield "\n\n" if _is_class(block) or _is_class(before) else "\n"
        yield f"{block}\n"
        before = block


def _is_class(block: str) -> bool:
    return block.startswith("@")


def _docstring(doc: str, indent: int) -> str:
    pad = " " * indent
    text = doc.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    text = text + " " if text.endswith('"') else text
    if len(text) + indent + 6 <= _WIDTH and "\n" not in text:
        return f'{pad}"""{text}"""'
    lines = [line for part in text.split("\n") for line in (textwrap.wrap(part, _WIDTH - indent - 3) or [""])]
    return f'{pad}"""' + f"\n{pad}".join(lines).replace(f"\n{pad}\n", "\n\n") + f'\n{pad}"""'
