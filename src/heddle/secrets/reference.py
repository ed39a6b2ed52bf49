"""The reference that declarations hold in place of a value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from heddle.errors import UsageError
from heddle.secrets import asking
from heddle.secrets.asking import Answer
from heddle.secrets.config import providers
from heddle.secrets.providers.environment import variable_of
from heddle.secrets.usage import note

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*")


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret. Its text form shows the name only. Any thread resolves.

    Resolve at each use and keep no value: it may change. Raises `MissingSecretError` when no provider has it,
    `DependencyDownError` when a store does not answer, `AuthError` when it refuses us."""

    name: str

    def resolve(self) -> str:
        """The value: the first line of the current version."""
        return self._ask().values[0]

    def resolve_all(self) -> tuple[str, ...]:
        """Every live value, newest first: the current version's lines as written, then those of the version before,
        where a store still has that one and it was replaced within the hour."""
        answer = self._ask()
        return tuple(dict.fromkeys((*answer.values, *answer.previous)))

    def refresh(self) -> None:
        """The value was refused: the next use asks the store, also while the known value is fresh."""
        asking.forget(providers(), self.name)

    @property
    def environment_name(self) -> str:
        return variable_of(self.name)

    def _ask(self) -> Answer:
        answer = asking.ask(providers(), self.name)
        note(self.name, answer.provider, answer.found)
        return answer


def secret(name: str) -> Secret:
    """Reference a secret by name, for example `secret("ledger/dsn")`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"secret name {name!r} is not lower-case parts joined by '/'")
    return Secret(name)


def refresh_all() -> None:
    """As `Secret.refresh`, for every secret: somebody refused us, and it is not known which was wrong."""
    asking.forget(providers())
