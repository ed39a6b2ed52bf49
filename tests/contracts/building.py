"""Contracts made for one test: files in a folder of their own, and their generated types."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from heddle.contracts import AvroCodec, Contract, MemoryRegistry, load_contract
from heddle.contracts.types import write

_modules = itertools.count()


def record(fields: list[Any], name: str = "Thing", namespace: str = "test.v1", **more: Any) -> dict[str, Any]:
    """A record schema whose fields are (name, type) or whole field objects."""
    listed = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    listed = [{"doc": "What it says.", **f} for f in listed]
    return {"type": "record", "name": name, "namespace": namespace, "doc": "A thing.", "fields": listed, **more}


def write_contract(
    root: Path, schema: dict[str, Any], path: str = "test/thing.v1", key: tuple[str, ...] = ("id",), toml: str = ""
) -> Path:
    """The two files of a contract under `root`; `toml` is added to the sidecar."""
    file = root / "schemas" / f"{path}.avsc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(schema), encoding="utf-8")
    keys = ", ".join(f'"{name}"' for name in key)
    head = f'owner = "testers"\ndescription = "For tests."\nkey = [{keys}]\n'
    file.with_suffix(".toml").write_text(head + toml, encoding="utf-8")
    return file


def make_contract(root: Path, fields: list[Any], **more: Any) -> Contract:
    """A contract `test.thing.v1` with a string field `id` before `fields`."""
    return load_contract(write_contract(root, record([("id", "string"), *fields]), **more))


def codec_of(contract: Contract) -> AvroCodec[Any]:
    return AvroCodec(contract, MemoryRegistry([contract]))


def types_of(root: Path, domain: str = "test") -> ModuleType:
    """Generate the types under `root` and import one domain's module under a name of its own."""
    write(root)
    name = f"generated_for_test_{next(_modules)}"
    spec = importlib.util.spec_from_file_location(name, root / "schemas" / domain / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
