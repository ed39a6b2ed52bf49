"""What a source's converter makes, as records of its contracts. The identity of an event is the vendor's."""

from __future__ import annotations

from typing import Any

from heddle.broker.log import Outgoing
from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.errors import ContractError, UsageError
from heddle.event import Draft, Identity, Lineage, event_headers, event_time
from heddle.integration import Source


class Drafts:
    """Of one source; `digest` names the code that converts."""

    def __init__(self, source: Source, registry: Registry, digest: str) -> None:
        self._name = source.name
        self._contracts = {
            kind: (contract_of(kind), AvroCodec[Any](contract_of(kind), registry)) for kind in source.emits
        }
        self._revision = f"{digest[:16]}.0"

    def event(self, draft: Draft[Any], traceparent: bytes | None) -> Outgoing:
        """Raises `ContractError` for a value or a time that cannot be, `UsageError` for what the source does not
        emit."""
        kind = draft.deletes or type(draft.value)
        try:
            contract, codec = self._contracts[kind]
        except KeyError:
            raise UsageError(
                f"{self._name} yields {kind.__name__}, which is not in emits=", hint="add it to emits="
            ) from None
        identity = Identity(f"/sources/{self._name}", draft.id)
        lineage = Lineage(self._revision, identity).pack()
        headers = event_headers(identity, contract.name, _time_of(draft).encode(), lineage, traceparent, [])
        value = None if draft.deletes else codec.encode(draft.value)
        return Outgoing(contract.topic, contract.key_of(draft.value), value, headers)


def _time_of(draft: Draft[Any]) -> str:
    try:
        return event_time(draft.time)
    except ValueError as error:
        raise ContractError(str(error), path="time") from error
