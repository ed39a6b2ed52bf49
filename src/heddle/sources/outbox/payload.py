"""An outbox row's payload: a contract's value as JSON, checked by the contract on both sides of the table.

JSON, and not Avro: the row is read back by name, so that an application that still writes an older version of the
contract is understood, no registry is needed where it is written, and people can read their own database.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.contracts.codec import FRAME_BYTES
from heddle.contracts.contract import Contract
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.json_form import from_json, scalar_to_json, to_json
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.resolution import as_written
from heddle.contracts.shapes import ChosenShape, DictShape
from heddle.errors import ContractError

DELETED: Final = ".deleted"
"""Ends the `type` of a row that says an entity is gone: `crm.deal.v1.deleted`; the payload is the fields of its key."""


class Payloads:
    """Of one contract. Used by one thread."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.contract: Contract = contract_of(kind)
        self._codec = AvroCodec[Any](self.contract, MemoryRegistry([self.contract]))
        self._reader = as_written(self.contract.root)

    def text(self, value: Any) -> str:
        """The JSON of a value of the generated type, which `value` reads as the same bytes.

        Raises `ContractError` with the field path for what the contract refuses."""
        framed = self._codec.encode(value)
        document = to_json(self.contract.root, decode_reference(
            self._reader, ChosenShape(), DEFAULT_LIMITS, framed, FRAME_BYTES
        ))  # fmt: skip
        text = _dumped(document)
        if self._framed(text) != framed:
            raise ContractError(f"a value of {self.contract.name} that its JSON does not give back")
        return text

    def value(self, text: str) -> Any:
        """A value of the generated type. Raises `ContractError`."""
        return self._codec.decode(self._framed(text))

    def key_text(self, key: Mapping[str, Any]) -> str:
        """The JSON of the fields that make a key. Raises `ContractError` where they do not."""
        text = _dumped(_key_document(key))
        self.key(text)
        return text

    def key(self, text: str) -> dict[str, Any]:
        """The fields that make a key. Raises `ContractError`."""
        found = from_json(self.contract.root, _loaded(text))
        self.contract.key_of(found)
        return dict(found)

    def key_of_aggregate(self, aggregate_id: str) -> dict[str, Any]:
        """The key of a row that has no payload, as Debezium's convention tells of a delete."""
        contract = self.contract
        if len(contract.metadata.key) != 1 or "." in contract.metadata.key[0] or contract.metadata.tenant:
            raise ContractError(
                f"a row without payload, and the key of {contract.name} is more than the aggregate's id",
                hint=f"write the fields of its key as payload, and {contract.name}{DELETED} as type",
            )
        return {contract.metadata.key[0]: aggregate_id}

    def _framed(self, text: str) -> bytes:
        document = from_json(self.contract.root, _loaded(text))
        return self._codec.frame + encode_reference(self.contract.root, DictShape(), DEFAULT_LIMITS, document)


class _Held(threading.local):
    def __init__(self) -> None:
        self.by_kind: dict[type[Any], Payloads] = {}


_held = _Held()


def payloads_of(kind: type[Any]) -> Payloads:
    """Made once for each thread: applications write from many."""
    found = _held.by_kind.get(kind)
    if found is None:
        found = _held.by_kind[kind] = Payloads(kind)
    return found


def _key_document(key: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _key_document(part) if isinstance(part, Mapping) else scalar_to_json(part) for name, part in key.items()
    }


def _dumped(document: Any) -> str:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in text and "\x00" in "".join(_texts(document)):
        raise ContractError("text with a NUL character, which PostgreSQL does not keep")
    return text


def _texts(document: Any) -> list[str]:
    if isinstance(document, str):
        return [document]
    if isinstance(document, dict):
        return [text for name, part in document.items() for text in (name, *_texts(part))]
    return [text for part in document for text in _texts(part)] if isinstance(document, list) else []


def _loaded(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise ContractError("the payload is not JSON") from None
    if not isinstance(document, dict):
        raise ContractError("the payload is no JSON object")
    return document
