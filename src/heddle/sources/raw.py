"""The raw record: a delivery as the raw topic keeps it, and back again.

Value = the body untouched. Headers = the seven of every event, then the kept request headers under `http-`."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import TypeGuard

from heddle.broker.log import Outgoing
from heddle.errors import ContractError
from heddle.event import (
    Identity,
    Lineage,
    ParsedHeaders,
    RawHeaders,
    entity_key,
    event_headers,
    event_time,
    stable_id,
)
from heddle.sources.delivery import Delivery

HTTP_PREFIX = "http-"
MAX_ID_CHARS = 255


def raw_record(topic: str, delivery: Delivery, tenant: str, entity: str | None, traceparent: bytes) -> Outgoing:
    """What the gateway appends. Its own event is the root of everything that is derived from it."""
    identity = Identity(f"/sources/{delivery.source}", delivery.id)
    kept: RawHeaders = [(HTTP_PREFIX + name, value.encode("latin-1")) for name, value in delivery.headers.items()]
    headers = event_headers(
        identity,
        topic,
        event_time(delivery.received_at).encode(),
        Lineage("", identity).pack(),
        traceparent,
        kept,
    )
    key = entity_key(entity, tenant) if entity is not None else None
    return Outgoing(topic, key, delivery.body, headers)


def delivery_of(source: str, body: bytes, parsed: ParsedHeaders) -> Delivery:
    """The delivery that a raw record keeps."""
    kept = {
        name.removeprefix(HTTP_PREFIX): value.decode("latin-1")
        for name, value in parsed.extra
        if value is not None and name.startswith(HTTP_PREFIX)
    }
    return Delivery(body, kept, _moment(parsed.time), source, parsed.identity.id)


def body_id(source: str, body: bytes) -> str:
    """The identity of a delivery without a usable vendor id: the same body is the same delivery."""
    return stable_id(source, blake2b(body, digest_size=32).hexdigest())


def usable_id(vendor_id: str | None) -> TypeGuard[str]:
    """Whether a vendor's id can serve as an identity: short printable text."""
    return vendor_id is not None and 0 < len(vendor_id) <= MAX_ID_CHARS and vendor_id.isprintable()


def _moment(time: bytes) -> datetime:
    try:
        moment = datetime.fromisoformat(time.decode())
    except ValueError:
        raise ContractError("the record's ce_time is not a time", path="ce_time") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
