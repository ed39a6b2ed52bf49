"""Values, bytes and deliveries, as their producers would write them into the input topic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from heddle.broker.log import Outgoing
from heddle.contracts import AvroCodec, Contract, contract_of
from heddle.errors import UsageError
from heddle.event import ID, TRACEPARENT, Identity, Lineage, event_headers, event_time
from heddle.integration import Flow, Sink
from heddle.sources.gateway.routes import raw_record_of
from heddle.sources.signatures import SignedRequest
from heddle.sources.webhook import WebhookSource
from heddle.testing.keys import key_bytes
from heddle.testing.values import Fed
from heddle.testing.world import World

BY_CONTRACT = ""
SOURCE = "/test"
_TRACE = "00-%032x-%016x-00"


class Feeder:
    """Writes into the input topic of one component."""

    def __init__(self, world: World) -> None:
        self._world = world

    def value(self, value: Any, key: str | None, event_id: str, time: datetime | None) -> Fed:
        """Raises `EncodeError` for a value that its contract refuses."""
        reads = self._contract.type
        if not isinstance(value, reads):
            raise UsageError(
                f"{self._world.component.name} reads {reads.__name__}, not {type(value).__name__}",
                hint="feed_bytes() takes what no producer should write",
            )
        record_key = self._contract.key_of(value) if key == BY_CONTRACT else _bytes(key)
        return self._append(self._codec.encode(value), record_key, event_id, time)

    def tombstone(self, key: Any, event_id: str, time: datetime | None) -> Fed:
        """`key`: a record key, else what the contract makes one of. Raises `EncodeError` where it cannot."""
        record_key = key_bytes(key) if isinstance(key, str) else self._contract.key_of(key)
        return self._append(None, record_key, event_id, time)

    def raw(self, data: bytes | None, key: str | None, event_id: str) -> Fed:
        return self._append(data, _bytes(key), event_id, None)

    def delivery(self, body: Any, headers: Mapping[str, str], delivery_id: str | None) -> Fed:
        component = self._world.component
        if not isinstance(component, WebhookSource):
            raise UsageError(
                f"{component.name} gets no deliveries", hint="a webhook source does; feed() takes values of a contract"
            )
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
        number = self._world.feeds + 1
        pairs = [(TRACEPARENT, _TRACE % (number, number)), *headers.items()]
        request = SignedRequest.of("POST", component.path, pairs, data)
        record = raw_record_of(component, request, delivery_id, self._world.clock.now.timestamp())
        return self._fed(record, (dict(record.headers)[ID] or b"").decode())

    @cached_property
    def _contract(self) -> Contract:
        component = self._world.component
        if not isinstance(component, Flow | Sink):
            raise UsageError(f"{component.name} is fed with deliveries", hint="deliver(body)")
        return contract_of(component.reads)

    @cached_property
    def _codec(self) -> AvroCodec[Any]:
        return AvroCodec(self._contract, self._world.registry)

    def _append(self, data: bytes | None, key: bytes | None, event_id: str, time: datetime | None) -> Fed:
        identity = Identity(SOURCE, event_id or f"event-{self._world.feeds + 1}")
        happened = event_time(time or self._world.clock.now).encode()
        headers = event_headers(identity, self._contract.name, happened, Lineage("", identity).pack(), None, [])
        return self._fed(Outgoing(self._world.subscription.topic, key, data, headers), identity.id)

    def _fed(self, record: Outgoing, event_id: str) -> Fed:
        offset = self._world.append(record)
        return Fed(f"0-{offset}", None if record.key is None else record.key.decode(), event_id)


def _bytes(key: str | None) -> bytes | None:
    return None if key is None else key_bytes(key)
