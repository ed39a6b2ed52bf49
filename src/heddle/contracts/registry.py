"""The schema registry as a protocol: what codecs and `heddle apply` need of it.

Two implementations, `ConfluentRegistry` and `MemoryRegistry`, pass one test suite. Both raise
`DependencyDownError` when the registry does not answer in time or answers 5xx, `AuthError` when it refuses us."""

from __future__ import annotations

from typing import Any, Final, Protocol

from heddle.contracts.compatibility import unreadable
from heddle.contracts.contract import Contract
from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Node
from heddle.errors import ContractError

COMPATIBILITY: Final = "BACKWARD"


class Registry(Protocol):
    """Ids never change their meaning, so what is known by id is kept for ever."""

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The schema as JSON, decoded. Raises `UnknownSchemaIdError`."""

    def id_of(self, contract: Contract) -> int:
        """The id under which this very schema is registered. Never registers.

        Raises `NotRegisteredError` when it is not: `heddle apply` is due."""

    def register(self, contract: Contract) -> int:
        """The id, new or old: registering twice is registering once. Raises `IncompatibleError`."""

    def check(self, contract: Contract) -> list[str]:
        """Why the registered version would refuse this schema, or why Heddle would (a logical type that changes
        meaning); empty: it may be registered."""

    def versions(self, subject: str) -> list[int]:
        """Version numbers, oldest first; empty for a subject that does not exist."""

    def schema_of(self, subject: str, version: int) -> dict[str, Any]:
        """One version of a subject, decoded. Raises `NotRegisteredError`."""

    def compatibility(self, subject: str) -> str | None:
        """The level that the registry reports for a subject: its own, or with some registries the default that
        rules it; None where it reports none."""

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None: ...

    def close(self) -> None: ...


class NotRegisteredError(ContractError):
    """The registry does not hold this schema under this subject."""

    code = "not-registered"

    def __init__(self, subject: str, what: str = "its schema") -> None:
        super().__init__(f"subject {subject}: {what} is not registered", hint="run `heddle apply`")


class IncompatibleError(ContractError):
    """The registry refuses a schema because readers of it could not read what is written already."""

    code = "incompatible"


def verdict(latest: dict[str, Any], candidate: Node) -> list[str]:
    """Heddle's own judgement of a new version, whatever the registry's level: readers of the candidate must be able
    to read the latest version, and no logical type may change its meaning, which plain checkers let through."""
    return [str(problem) for problem in unreadable(parse_schema(latest), candidate)]
