"""A contract: an Avro schema with an owner, a key and a topic, under a name that stays for ever."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import fastavro

from heddle.contracts.keys import KeyValues, compile_key, compile_key_parser
from heddle.contracts.metadata import Metadata, load_metadata
from heddle.contracts.parser import parse_schema
from heddle.contracts.rules import check_rules
from heddle.contracts.schema import Record
from heddle.errors import ContractError, UsageError

T = TypeVar("T")

_FILE = re.compile(r"(?P<name>[a-z][a-z0-9-]*)\.v(?P<major>[1-9][0-9]*)\.avsc")
_DOMAIN = re.compile(r"[a-z][a-z0-9_]*")
_DECLARED: dict[type, str] = {}


@dataclass(frozen=True)
class Contract:
    """One major version of one kind of event. Equal when name and schema are.

    `schema` is parsed for fastavro, `root` is the same as a tree, `source` is the file's JSON and
    `text` its compact form, which the registry keeps.
    `fingerprint` is the SHA-256 of that text: it changes with anything in the schema, documentation included."""

    name: str
    fingerprint: str
    path: Path = field(compare=False)
    text: str = field(compare=False, repr=False)
    source: dict[str, Any] = field(compare=False, repr=False)
    schema: dict[str, Any] = field(compare=False, repr=False)
    root: Record = field(compare=False, repr=False)
    metadata: Metadata = field(compare=False, repr=False)

    @property
    def topic(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"{self.name}-value"

    @property
    def domain(self) -> str:
        return self.name.partition(".")[0]

    @property
    def major(self) -> int:
        return int(self.name.rpartition(".v")[2])

    @cached_property
    def key_of(self) -> Callable[[Any], bytes]:
        """The record key of a value (generated type or dict): `tenant/entity`, percent-escaped.

        Raises `EncodeError` with the field path when a key field is missing, null or of a wrong type."""
        return compile_key(self.metadata.key, self.metadata.tenant)

    @cached_property
    def key_values(self) -> Callable[[bytes | None], KeyValues]:
        """From a record key to the values of the key fields (and of the tenant, where the contract has one), by path.

        Raises `BadKeyError`."""
        return compile_key_parser(self.root, self.metadata.key, self.metadata.tenant)

    @cached_property
    def type(self) -> type[Any]:
        """The generated class. Raises `ContractError` when `heddle types` has not made it yet."""
        folder = self.path.parent
        found = _declared_type(self.name, folder)
        if found is None and str(folder.parent.parent) in {str(Path(p).resolve()) for p in sys.path}:
            importlib.import_module(f"{folder.parent.name}.{folder.name}")
            found = _declared_type(self.name, folder)
        if found is None:
            raise ContractError(f"contract {self.name} has no generated type", hint="run `heddle types`")
        return found


def contract(name: str) -> Callable[[type[T]], type[T]]:
    """Mark a generated class as the type of contract `name`. Reads nothing; the files are read when first asked for."""

    def mark(cls: type[T]) -> type[T]:
        _DECLARED[cls] = name
        return cls

    return mark


def contract_of(cls: type[Any]) -> Contract:
    """The contract of a generated class, read once from the folder that holds the class.

    Raises `UsageError` for a class that is none, `ContractError` for files that are missing or wrong."""
    name = _DECLARED.get(cls)
    if name is None:
        raise UsageError(
            f"{cls.__name__} is not a contract type",
            hint="use a class from schemas/<domain>, made there by `heddle types`",
        )
    file_stem = name.partition(".")[2]
    return _load_once(_folder_of(cls) / f"{file_stem}.avsc")


@cache
def _load_once(path: Path) -> Contract:
    return load_contract(path)


def load_contract(path: Path) -> Contract:
    """Read `schemas/<domain>/<name>.v<major>.avsc` and the TOML file beside it.

    Raises `ContractError` naming the file for anything that is missing, malformed or against the rules."""
    path = path.resolve()
    name = _name_of(path)
    try:
        text = path.read_text(encoding="utf-8")
        source = json.loads(text)
        root = parse_schema(source, strict=True)
        metadata = load_metadata(path.with_suffix(".toml"))
        check_rules(name, root, metadata)
    except FileNotFoundError:
        raise ContractError(f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not readable as JSON: {error}") from error
    except ContractError as error:
        raise error if str(path.parent) in str(error) else ContractError(f"{path}: {error}", hint=error.hint) from error
    assert isinstance(root, Record)
    compact = json.dumps(source, ensure_ascii=False, separators=(",", ":"))
    schema = cast(dict[str, Any], fastavro.parse_schema(source))
    return Contract(name, sha256(compact.encode()).hexdigest(), path, compact, source, schema, root, metadata)


def load_contracts(root: Path) -> list[Contract]:
    """All contracts of an application root, by name. Raises the first `ContractError`."""
    return sorted((load_contract(path) for path in contract_files(root)), key=lambda c: c.name)


def contract_files(root: Path) -> list[Path]:
    return sorted((root / "schemas").glob("*/*.avsc"))


def _name_of(path: Path) -> str:
    match = _FILE.fullmatch(path.name)
    if match is None or not _DOMAIN.fullmatch(path.parent.name):
        raise ContractError(
            f"{path}: not named <domain>/<name>.v<major>.avsc",
            hint="for example schemas/billing/invoice.v1.avsc, all in lower case",
        )
    return f"{path.parent.name}.{match['name']}.v{match['major']}"


def _folder_of(cls: type) -> Path:
    file = sys.modules[cls.__module__].__file__
    if file is None:
        raise UsageError(f"{cls.__name__} does not come from a file")
    return Path(file).resolve().parent


def _declared_type(name: str, folder: Path) -> type[Any] | None:
    """The class declared last under this name in this folder: a reloaded module replaces its types."""
    found = [c for c, n in _DECLARED.items() if n == name and c.__module__ in sys.modules and _folder_of(c) == folder]
    return found[-1] if found else None
