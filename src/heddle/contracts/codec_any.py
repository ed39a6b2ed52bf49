"""Decoding for people: whatever contract a record is of, as its writer wrote it."""

from __future__ import annotations

from typing import Any

from heddle.contracts.codec import FRAME_BYTES, schema_id_of
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.registry import Registry
from heddle.contracts.resolution import as_written
from heddle.contracts.shapes import DictShape


def decode_any(data: bytes, registry: Registry) -> Any:
    """The value by its writer's own schema, as dicts of native values. Not for the hot path.

    Raises a `ContractError` for bytes or a schema that cannot be read, and what the registry raises."""
    writer = parse_schema(registry.schema(schema_id_of(data)))
    return decode_reference(as_written(writer), DictShape(), DEFAULT_LIMITS, data, FRAME_BYTES)
