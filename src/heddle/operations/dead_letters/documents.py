"""What stands in a body, for people."""

from __future__ import annotations

from typing import Any

from heddle.contracts import Registry
from heddle.contracts.codec import FRAME_BYTES, schema_id_of
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.json_form import to_json
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Node
from heddle.contracts.shapes import ChosenShape
from heddle.errors import ContractError
from heddle.operations.dead_letters.entries import text_of
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse


def written_document(value: bytes, registry: Registry) -> tuple[Node, Any]:
    """A framed value as its writer wrote it: the type, and the document for people. Raises `ContractError`."""
    node = parse_schema(registry.schema(schema_id_of(value)))
    return node, to_json(node, decode_reference(as_written(node), ChosenShape(), DEFAULT_LIMITS, value, FRAME_BYTES))


def shown_document(value: bytes | None, registry: Registry) -> Any:
    """The document where a schema explains the bytes; else their JSON, else text. Never raises for bad bytes."""
    if value is None:
        return None
    try:
        return written_document(value, registry)[1]
    except ContractError:
        text = text_of(value)
    try:
        return parse(text)
    except InvalidJsonError:
        return text
