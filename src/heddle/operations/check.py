"""`heddle check`: everything about a project that can be known without a broker."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from heddle.contracts import contract_of, load_contract
from heddle.contracts.contract import contract_files
from heddle.contracts.types import stale
from heddle.errors import HeddleError
from heddle.integration import Component, Flow, Sink, Source
from heddle.operations.credentials import EXEMPT, credentials_in
from heddle.operations.secret_names import meetings_in
from heddle.project import ROLE_FOLDERS, Project, load_project
from heddle.root import find_root, read_config
from heddle.secrets import Secret
from heddle.secrets.config import DEFAULT, TABLE, VARIABLE, parse, parse_variable
from heddle.secrets.providers.environment import EnvironmentOptions
from heddle.sources.outbox import OutboxSource
from heddle.sources.postgres import PostgresSource
from heddle.sources.rest import RestSource

_SECRET_PARTS = ("value", "token", "password", "client_secret", "first", "key")
"""Fields of an `Auth` that hold a `Secret`."""


class Problem(NamedTuple):
    """`file` is relative to the project; `hint` may be empty. A "warning" is nothing that the project has wrong, and
    something that its owner has to know."""

    file: str
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"


def check_project(start: Path | None = None) -> list[Problem]:
    """Contracts, generated types, components and what they refer to. Imports the role folders, as `run` would.

    Raises `UsageError` outside of a project; all else becomes a `Problem`."""
    root = find_root(start)
    problems = [*_contracts(root), *_credentials(root), *_stores(root)]
    if not problems:
        problems += _secret_names(root)
    if not problems:
        problems += [
            Problem(_relative(root, path), "the generated types are stale", "run `heddle types`")
            for path in stale(root)
        ]
    if not problems:
        problems += _modules(root)
    if not problems:
        problems += _project(root)
    return problems


def check_sources(start: Path | None = None) -> list[Problem]:
    """What the databases and APIs of sources say: connects to each. Raises `DependencyDownError`, `AuthError`, or
    `UsageError` for an API that cannot be polled as declared."""
    project = load_project(start)
    problems: list[Problem] = []
    for source in project.sources:
        file = _file_of(project, source)
        if isinstance(source, PostgresSource | OutboxSource):
            problems += [Problem(file, f"{source.name}: {message}", hint) for message, hint in source.findings()]
        elif isinstance(source, RestSource):
            told = source.announcements()
            problems += [Problem(file, f"{source.name}: {message}", hint, "warning") for message, hint in told]
    return problems


def _contracts(root: Path) -> Iterator[Problem]:
    """Every file on its own, then what only the generator sees: two types of one name."""
    valid = True
    for path in contract_files(root):
        try:
            load_contract(path)
        except HeddleError as error:
            valid = False
            yield _problem(root, path, error)
    for path in sorted((root / "schemas").glob("*/*.toml")):
        if not path.with_suffix(".avsc").exists():
            yield Problem(_relative(root, path), f"no {path.with_suffix('.avsc').name} beside it")
    if valid:
        try:
            stale(root)
        except HeddleError as error:
            yield _problem(root, root / "schemas", error)


def _credentials(root: Path) -> Iterator[Problem]:
    """Found before anything is imported, so that nothing else hides them."""
    for path in _files(root):
        for line, kind in credentials_in(path):
            yield Problem(
                f"{_relative(root, path)}:{line}",
                f"{kind} stands in the source",
                f'name it instead: secret("…"); if it is none, say so on its line: # {EXEMPT}',
            )


def _secret_names(root: Path) -> Iterator[Problem]:
    """One would be sent where the other belongs."""
    given = os.environ.get(VARIABLE)
    asked = parse_variable(given) if given else parse(read_config(root).get("secrets", DEFAULT), TABLE)
    if not any(isinstance(each, EnvironmentOptions) for each in asked):
        return
    for (path, line, name), other, variable in meetings_in(_files(root)):
        yield Problem(
            f"{_relative(root, path)}:{line}",
            f"secrets {name} and {other} are one variable: {variable}",
            "rename one, by more than '/', '-' and '_'; or, if they are one secret, write one name",
        )


def _files(root: Path) -> Iterator[Path]:
    """All of the role folders, also those that are not imported as components."""
    for folder in ROLE_FOLDERS:
        yield from sorted((root / folder).rglob("*.py"))


def _stores(root: Path) -> Iterator[Problem]:
    """Where secrets come from, as far as it can be known without asking."""
    try:
        parse(read_config(root).get("secrets", []), TABLE)
    except HeddleError as error:
        yield Problem("pyproject.toml", str(error), error.hint)
    try:
        if given := os.environ.get(VARIABLE):
            parse_variable(given)
    except HeddleError as error:
        yield Problem(".", str(error), error.hint)


def _modules(root: Path) -> Iterator[Problem]:
    """Mappings check themselves against both contracts when they are made, so importing is the check."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for folder in ROLE_FOLDERS:
        for path in sorted((root / folder).glob("[!_]*.py")):
            try:
                importlib.import_module(f"{folder}.{path.stem}")
            except HeddleError as error:
                yield _problem(root, path, error)
            except Exception as error:
                yield Problem(_relative(root, path), f"{type(error).__name__}: {error}", "correct what fails on import")
    if not any((root / folder).is_dir() for folder in ROLE_FOLDERS):
        yield Problem(".", "no producers, topologies or consumers folder", "a flow goes into topologies/<name>.py")


def _project(root: Path) -> list[Problem]:
    try:
        return list(_components(load_project(root)))
    except HeddleError as error:
        file, colon, rest = str(error).partition(": ")
        return [
            Problem(file, rest, error.hint)
            if colon and (root / file).exists()
            else Problem(".", str(error), error.hint)
        ]


def _components(project: Project) -> Iterator[Problem]:
    known = {load_contract(path).name for path in contract_files(project.root)}
    paths: dict[str, str] = {}
    for component in project.components.values():
        file = _file_of(project, component)
        for cls in _types_of(component):
            try:
                name = contract_of(cls).name
            except HeddleError as error:
                yield Problem(file, f"{component.name}: {error}", error.hint)
                continue
            if name not in known:
                yield Problem(file, f"{component.name}: contract {name} is not under schemas/ of this project")
        written = component.writes if isinstance(component, Flow) else getattr(component, "emits", None)
        if isinstance(component, Flow | Sink) and component.reads is written:
            yield Problem(
                file, f"{component.name} writes into the topic that it reads", "give its output its own contract"
            )
        path = getattr(component, "path", None)
        if (
            isinstance(component, Source)
            and isinstance(path, str)
            and paths.setdefault(path, component.name) != component.name
        ):
            yield Problem(
                file, f"{component.name}: path {path} is {paths[path]}'s already", "give each source its own path"
            )
        yield from _secrets(file, component)


def _types_of(component: Component) -> list[type[Any]]:
    match component:
        case Source():
            return list(component.emits)
        case Flow():
            return [component.reads, component.writes]
        case Sink():
            return [component.reads, *([] if component.emits is None else [component.emits])]
        case _:
            return []


def _secrets(file: str, component: Component) -> Iterator[Problem]:
    """A component that has to verify or to log in must name where its secret comes from."""
    signature = getattr(component, "signature", None)
    if signature is not None and not isinstance(getattr(signature, "secret", None), Secret):
        yield Problem(file, f"{component.name}: its signature names no secret", 'pass one: secret("crm/webhook")')
    dsn = getattr(component, "dsn", None)
    if isinstance(component, Sink | PostgresSource | OutboxSource) and isinstance(dsn, str):
        yield Problem(file, f"{component.name}: its DSN stands in the source", 'name it instead: secret("ledger/dsn")')
    auth = getattr(component, "auth", None)
    for part in _SECRET_PARTS:
        if isinstance(getattr(auth, part, None), str):
            told = f"{component.name}: {part} of its {type(auth).__name__} stands in the source"
            yield Problem(file, told, 'name it instead: secret("crm/key")')


def _file_of(project: Project, component: Component) -> str:
    for folder in ROLE_FOLDERS:
        for path in sorted((project.root / folder).glob("[!_]*.py")):
            module = sys.modules.get(f"{folder}.{path.stem}")
            if module is not None and any(value is component for value in vars(module).values()):
                return _relative(project.root, path)
    return "."


def _problem(root: Path, path: Path, error: HeddleError) -> Problem:
    text = str(error).removeprefix(f"{path}: ").replace(f"{root}/", "")
    return Problem(_relative(root, path), text, error.hint)


def _relative(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
