"""One row of an outbox as the worker takes it, and as the raw topic keeps it where it does not convert."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import orjson

from heddle.errors import ContractError
from heddle.event import Draft, entity_key
from heddle.sources.outbox.payload import DELETED, payloads_of

FORMAT_VERSION: Final = 1

Kinds = Mapping[str, type[Any]]
"""By what stands in the column `type`."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Implements `heddle.integration.Pulled`. `created_at` is PostgreSQL's text in UTC; `payload` is text, or the bytes
    of a bytea column."""

    id: str
    aggregate_type: str
    aggregate_id: str
    type: str
    payload: str | bytes | None
    created_at: str
    kinds: Kinds

    @property
    def key(self) -> bytes:
        return entity_key(f"{self.aggregate_type}/{quote(self.aggregate_id, safe='')}")

    def drafts(self) -> Iterable[Draft[Any]]:
        """One event. Raises `ContractError`."""
        name = self.type.removesuffix(DELETED)
        kind = self.kinds.get(self.type) or self.kinds.get(name)
        if kind is None:
            raise ContractError(
                f"rows of type {self.type!r} are not declared", path="type", hint="name its contract in types="
            )
        payloads, when = payloads_of(kind), self._when()
        if self.payload is None:
            return [Draft(payloads.key_of_aggregate(self.aggregate_id), self.id, when, deletes=kind)]
        text = self._text(self.payload)
        if self.type not in self.kinds:
            return [Draft(payloads.key(text), self.id, when, deletes=kind)]
        return [Draft(payloads.value(text), self.id, when)]

    def pack(self) -> bytes:
        found: dict[str, Any] = {
            "v": FORMAT_VERSION,
            "id": self.id,
            "aggregatetype": self.aggregate_type,
            "aggregateid": self.aggregate_id,
            "type": self.type,
            "created_at": self.created_at,
        }
        if isinstance(self.payload, bytes):
            found["payload_base64"] = base64.b64encode(self.payload).decode()
        else:
            found["payload"] = self.payload
        return orjson.dumps(found)

    @staticmethod
    def unpack(packed: bytes | None, kinds: Kinds) -> OutboxRow:
        """What `pack` kept, to be converted as declared now. Raises `ContractError`."""
        try:
            found = orjson.loads(packed or b"")
            if found["v"] != FORMAT_VERSION:
                raise ValueError(found["v"])
            encoded = found.get("payload_base64")
            payload = found["payload"] if encoded is None else base64.b64decode(encoded)
            return OutboxRow(
                found["id"], found["aggregatetype"], found["aggregateid"], found["type"], payload,
                found["created_at"], kinds,
            )  # fmt: skip
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ContractError(
                "the raw record holds no outbox row", hint="only the source writes to its raw topic"
            ) from error

    def _when(self) -> datetime:
        """PostgreSQL's times reach further than ours, and to infinity."""
        try:
            return datetime.fromisoformat(self.created_at)
        except ValueError:
            raise ContractError("a time that is none of the years 1 to 9999", path="created_at") from None

    def _text(self, payload: str | bytes) -> str:
        try:
            return payload if isinstance(payload, str) else payload.decode()
        except UnicodeDecodeError:
            raise ContractError("the payload is no UTF-8", path="payload") from None
