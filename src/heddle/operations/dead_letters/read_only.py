"""The registry as a dry run sees it."""

from __future__ import annotations

from typing import Any

from heddle.contracts import Contract, Registry
from heddle.errors import UsageError


class ReadOnlyRegistry:
    """A registry that nothing can be registered in."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self._registry.schema(schema_id)

    def id_of(self, contract: Contract) -> int:
        return self._registry.id_of(contract)

    def check(self, contract: Contract) -> list[str]:
        return self._registry.check(contract)

    def versions(self, subject: str) -> list[int]:
        return self._registry.versions(subject)

    def schema_of(self, subject: str, version: int) -> dict[str, Any]:
        return self._registry.schema_of(subject, version)

    def compatibility(self, subject: str) -> str | None:
        return self._registry.compatibility(subject)

    def register(self, contract: Contract) -> int:
        raise UsageError(f"a dry run does not register {contract.name}")

    def set_compatibility(self, subject: str, level: str = "") -> None:
        raise UsageError(f"a dry run does not change {subject} to {level}")

    def close(self) -> None:
        self._registry.close()
