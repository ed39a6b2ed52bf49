"""Finds what an application root declares. A file per component, found by its place: nothing to register."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from heddle.errors import HeddleError, UsageError
from heddle.integration import Component, Flow, Sink, Source
from heddle.root import find_root, read_config

ROLE_FOLDERS = ("producers", "topologies", "consumers")


@dataclass(frozen=True)
class Project:
    """An application root: its name, its folder, and the components by name."""

    name: str
    root: Path
    components: dict[str, Component]
    config: dict[str, Any] = field(default_factory=dict)

    def component(self, name: str) -> Component:
        """Raises `UsageError` listing the names that exist."""
        try:
            return self.components[name]
        except KeyError:
            names = ", ".join(sorted(self.components)) or "none"
            raise UsageError(f"no component named {name}", hint=f"declared here: {names}") from None

    @property
    def sources(self) -> list[Source]:
        return [c for c in self.components.values() if isinstance(c, Source)]

    @property
    def flows(self) -> list[Flow[Any, Any]]:
        return [c for c in self.components.values() if isinstance(c, Flow)]

    @property
    def sinks(self) -> list[Sink[Any]]:
        return [c for c in self.components.values() if isinstance(c, Sink)]

    @property
    def state_dir(self) -> Path:
        return self.root / ".heddle"


def load_project(start: Path | None = None) -> Project:
    """Import every module of the role folders and collect what they declare.

    Raises `UsageError` naming the file for an import that fails or a name that is declared twice."""
    root = find_root(start)
    config = read_config(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    components: dict[str, Component] = {}
    for folder in ROLE_FOLDERS:
        for path in sorted((root / folder).glob("[!_]*.py")):
            for component in _declared(root, folder, path):
                other = components.setdefault(component.name, component)
                if other is not component:
                    raise UsageError(f"{path.relative_to(root)}: the name {component.name} is declared twice")
    return Project(str(config["project"]), root, components, config)


def _declared(root: Path, folder: str, path: Path) -> list[Component]:
    try:
        module = importlib.import_module(f"{folder}.{path.stem}")
    except HeddleError as error:
        error.add_note(f"in {path.relative_to(root)}")
        raise
    except Exception as error:
        raise UsageError(
            f"{path.relative_to(root)} cannot be imported: {type(error).__name__}: {error}",
            hint=f"try: python -c 'import {folder}.{path.stem}'",
        ) from error
    return [value for name, value in vars(module).items() if isinstance(value, Component) and not name.startswith("_")]


@cache
def sources_digest(root: Path) -> str:
    """SHA-256 over the application's Python sources and Heddle's version: the digest of a handler that is code.

    Every .py file below the root counts, helpers too; tests, hidden folders and virtual environments do not."""
    digest = sha256(version("heddle").encode())
    for path in sorted(_sources(root)):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            skipped = path.name.startswith((".", "__")) or path.name == "tests" or (path / "pyvenv.cfg").exists()
            if not skipped:
                yield from _sources(path)
        elif path.suffix == ".py":
            yield path
