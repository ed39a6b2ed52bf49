"""Which providers are asked, in which order.

    [[tool.heddle.secrets]]            in pyproject.toml
    provider = "environment"

    [[tool.heddle.secrets]]
    provider = "vault"
    address = "https://vault.example:8200"
    auth = "approle"

HEDDLE_SECRETS, the same list as JSON, replaces it; without either, environment and files are asked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from heddle.errors import UsageError
from heddle.root import enclosing_root, read_config
from heddle.secrets.asking import ask
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Provider, StoreOptions, Surroundings
from heddle.secrets.providers.aws import AwsOptions
from heddle.secrets.providers.azure import AzureOptions
from heddle.secrets.providers.environment import EnvironmentOptions
from heddle.secrets.providers.files import FilesOptions
from heddle.secrets.providers.gcp import GcpOptions
from heddle.secrets.providers.vault import VaultOptions

VARIABLE = "HEDDLE_SECRETS"
TABLE = "[[tool.heddle.secrets]]"
DEFAULT = ({"provider": "environment"}, {"provider": "files"})

AnyOptions = EnvironmentOptions | FilesOptions | VaultOptions | AwsOptions | AzureOptions | GcpOptions
_LIST: TypeAdapter[list[AnyOptions]] = TypeAdapter(list[Annotated[AnyOptions, Field(discriminator="provider")]])


def providers() -> tuple[Provider, ...]:
    """Those of the project around the current folder; the same ones at every call, with what they know. Raises
    `UsageError` for a configuration that cannot be right."""
    return _providers(os.environ.get(VARIABLE, ""), str(Path.cwd()))


@lru_cache(maxsize=16)
def _providers(variable: str, folder: str) -> tuple[Provider, ...]:
    root = enclosing_root(Path(folder))
    if variable:
        options = parse_variable(variable)
    else:
        options = parse(read_config(root).get("secrets", DEFAULT) if root is not None else DEFAULT, TABLE)
    return made_of(options, root or Path(folder))


def parse_variable(text: str) -> list[AnyOptions]:
    """What HEDDLE_SECRETS holds. Raises as `parse`."""
    return parse(_as_json(text), VARIABLE)


def parse(entries: Any, where: str) -> list[AnyOptions]:
    """Raises `UsageError` naming entry and field, without its value."""
    try:
        return _LIST.validate_python(list(entries) if isinstance(entries, list | tuple) else entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part + 1) if isinstance(part, int) else str(part) for part in first["loc"]]
        raise UsageError(
            f"{where}: {' '.join(['entry', *place]) if place else 'not a list of tables'}: {first['msg']}",
            hint="docs/how-to/secrets.md has an example of each provider",
        ) from None


def made_of(options: Sequence[AnyOptions], root: Path) -> tuple[Provider, ...]:
    """A provider whose own credentials are secrets asks those before it."""
    made: list[Provider] = []
    for each in options:
        provider = each.made(Surroundings(root, partial(_value, tuple(made))))
        made.append(Cached(provider, each.refresh_s) if isinstance(each, StoreOptions) else provider)
    return tuple(made)


def _value(providers: Sequence[Provider], name: str) -> str:
    return ask(providers, name).values[0]


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(f"setting {VARIABLE}: not JSON", hint='write [{"provider": "environment"}, …]') from None
