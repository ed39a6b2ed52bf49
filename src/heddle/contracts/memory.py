"""A registry in memory, with the behaviour of the real one: for fast tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from heddle.contracts.compatibility import Level, check_level
from heddle.contracts.contract import Contract
from heddle.contracts.parser import parse_schema
from heddle.contracts.registry import COMPATIBILITY, IncompatibleError, NotRegisteredError, verdict
from heddle.errors import UnknownSchemaIdError


class MemoryRegistry:
    """Ids count up from 1 and are one per schema text, over all subjects. Not shared between threads."""

    def __init__(self, contracts: Sequence[Contract] = ()) -> None:
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, dict[str, Any]] = {}
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, str] = {}
        for contract in contracts:
            self.register(contract)

    def schema(self, schema_id: int) -> dict[str, Any]:
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise UnknownSchemaIdError(f"the registry has no schema {schema_id}") from None

    def id_of(self, contract: Contract) -> int:
        schema_id = self._ids.get(contract.text)
        if schema_id is None or schema_id not in self._subjects.get(contract.subject, ()):
            raise NotRegisteredError(contract.subject)
        return schema_id

    def register(self, contract: Contract) -> int:
        listed = self._subjects.setdefault(contract.subject, [])
        known = self._ids.get(contract.text)
        if known in listed and known is not None:
            return known
        problems = self._plain_problems(contract)
        if problems:
            raise IncompatibleError(f"subject {contract.subject}: {'; '.join(problems)}")
        schema_id = known or len(self._schemas) + 1
        self._ids[contract.text] = schema_id
        self._schemas[schema_id] = contract.source
        listed.append(schema_id)
        return schema_id

    def check(self, contract: Contract) -> list[str]:
        listed = self._subjects.get(contract.subject, [])
        problems = verdict(self._schemas[listed[-1]], contract.root) if listed else []
        return problems or self._plain_problems(contract)

    def versions(self, subject: str) -> list[int]:
        return list(range(1, len(self._subjects.get(subject, ())) + 1))

    def schema_of(self, subject: str, version: int) -> dict[str, Any]:
        listed = self._subjects.get(subject, [])
        if not 1 <= version <= len(listed):
            raise NotRegisteredError(subject, f"version {version}")
        return self._schemas[listed[version - 1]]

    def compatibility(self, subject: str) -> str | None:
        return self._levels.get(subject)

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        self._levels[subject] = level

    def close(self) -> None:
        """Nothing to close."""

    def _plain_problems(self, contract: Contract) -> list[str]:
        level = cast(Level, self._levels.get(contract.subject, COMPATIBILITY))
        history = [parse_schema(self._schemas[i]) for i in self._subjects.get(contract.subject, ())]
        return [str(problem) for problem in check_level(contract.root, history, level, meaning=False)]
