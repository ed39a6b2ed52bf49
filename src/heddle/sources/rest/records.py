"""One row of an API as the worker takes it, as a converter gets it, and as the raw topic keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

from heddle.errors import ContractError
from heddle.event import Draft, entity_key, stable_id

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class PolledRow:
    """`value`: as the API sent it; None of a row that `IdDiff` misses. `id`: of the entity. `changed_at`: aware; when
    it was polled, where the resource does not say when a row changed. `event_id`: for its one draft; for several,
    `stable_id(row.event_id, "2")`."""

    value: Any
    id: str
    event_id: str
    changed_at: datetime


Convert = Callable[[PolledRow], Iterable[Draft[Any]]]


@dataclass(frozen=True, slots=True)
class PulledRow:
    """Implements `heddle.integration.Pulled`."""

    resource: str
    row: PolledRow
    key: bytes
    convert: Convert

    @property
    def id(self) -> str:
        return self.row.event_id

    def drafts(self) -> Iterable[Draft[Any]]:
        if not self.row.id:
            raise ContractError("the row has no id", path="id", hint="see whether id= names where it stands")
        return self.convert(self.row)

    def pack(self) -> bytes:
        row = self.row
        return orjson.dumps(
            {
                "v": FORMAT_VERSION,
                "resource": self.resource,
                "id": row.id,
                "event": row.event_id,
                "changed_at": row.changed_at.isoformat(),
                "value": row.value,
            }
        )


def drafts_of(packed: bytes | None, converters: Mapping[str, Convert]) -> Iterable[Draft[Any]]:
    """The events of a row that `pack` kept, by the resources as they are declared now. Raises `ContractError`."""
    try:
        found = orjson.loads(packed or b"")
        if found["v"] != FORMAT_VERSION:
            raise ValueError(found["v"])
        name = found["resource"]
        row = PolledRow(found["value"], found["id"], found["event"], datetime.fromisoformat(found["changed_at"]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ContractError("the raw record holds no row", hint="only the source writes to its raw topic") from error
    if name not in converters:
        raise ContractError(f"{name} is not polled any more", hint="declare it again, or discard the entry")
    return PulledRow(name, row, b"", converters[name]).drafts()


def event_id(resource: str, row_id: str, version: Any, value: Any) -> str:
    """The same whenever the same state of a row is polled again. Without a version of the vendor's it is the state
    itself that tells: two changes within one tick of the vendor's clock are two."""
    told = orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if version is None else orjson.dumps(version)
    return stable_id(resource, row_id, blake2b(told, digest_size=16).hexdigest())


def key_of(entity: str, row_id: str, tenant: str) -> bytes:
    return entity_key(f"{entity}:{row_id}", tenant)


def text_id(found: Any) -> str:
    """Of what stands at a row's id: text or a whole number; "" for anything else."""
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else ""


def moment_s(found: Any) -> float | None:
    """Seconds since 1970, of ISO 8601 (without a zone: UTC), of seconds, or of milliseconds; None of all else."""
    if isinstance(found, int | float) and not isinstance(found, bool):
        seconds = found / 1000 if found > 1e11 else float(found)
        return seconds if 0 <= seconds < 2**32 else None
    if not isinstance(found, str):
        return None
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if 0 <= seconds < 2**32 else None
