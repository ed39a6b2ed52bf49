"""Ask the providers in their order: the first that has the name wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from heddle.errors import UsageError
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Found, Provider, live_values
from heddle.secrets.redaction import remember


class MissingSecretError(UsageError):
    """No provider has the secret of this name."""

    name = ""


class Answer(NamedTuple):
    """`values`: of the current version, at least one. `previous`: of the version before, where it still counts."""

    values: tuple[str, ...]
    previous: tuple[str, ...]
    provider: str
    found: Found


def ask(providers: Sequence[Provider], name: str) -> Answer:
    """A provider that fails ends the search: a later one could have another value.

    Raises `MissingSecretError` naming all that were asked, and what `Provider.look_up` raises."""
    for provider in providers:
        found = provider.look_up(name)
        if found is None:
            continue
        values, previous = live_values(found.text), live_values(found.previous)
        if values:
            for value in (*values, *previous):
                remember(value)
            return Answer(values, previous, provider.name, found)
    forget(providers, name)
    asked = ", ".join(provider.name for provider in providers) or "nobody: no provider comes before"
    missing = MissingSecretError(
        f"secret {name} has no value; asked: {asked}",
        hint=", or ".join(provider.advice(name) for provider in providers)
        or 'list "environment" or "files" before what asks for it, and put it there',
    )
    missing.name = name
    raise missing


def forget(providers: Sequence[Provider], name: str | None = None) -> None:
    """Stores are asked anew at the next use, for this name or for all."""
    for provider in providers:
        if isinstance(provider, Cached):
            if name is None:
                provider.forget_all()
            else:
                provider.forget(name)
