"""Deliveries that carry many events: HubSpot's array, Xero's `events`, QuickBooks' array of CloudEvents.

Each part has what a `Draft` needs. A vendor without unique event ids gets a hash of tenant, entity, type and time, so
that the same event has the same id however deliveries are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from heddle.errors import ContractError
from heddle.event import stable_id
from heddle.sources.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Part:
    """One event of a delivery. `value` is the vendor's object; `time` is aware."""

    value: dict[str, Any]
    id: str
    type: str
    tenant: str
    entity: str
    time: datetime


def xero_events(delivery: Delivery) -> Iterator[Part]:
    """`events[]`; an intent-to-receive delivery has none. Raises `ContractError` with the path of what is missing."""
    body = delivery.json()
    events = body.get("events") if isinstance(body, dict) else None
    for path, event in _objects(events, "events"):
        tenant, entity = _text(event, path, "tenantId"), _text(event, path, "resourceId")
        kind = f"{_text(event, path, 'eventCategory')}.{_text(event, path, 'eventType')}"
        stamp = _text(event, path, "eventDateUtc")
        moment = _moment(stamp, f"{path}.eventDateUtc", naive_is_utc=True)
        yield Part(event, stable_id(tenant, entity, kind, stamp), kind, tenant, entity, moment)


def quickbooks_events(delivery: Delivery) -> Iterator[Part]:
    """An array of CloudEvents of several companies; the CloudEvents id is the event id."""
    for path, event in _objects(delivery.json(), ""):
        moment = _moment(_text(event, path, "time"), f"{path}.time")
        tenant, entity = _text(event, path, "intuitaccountid"), _text(event, path, "intuitentityid")
        yield Part(event, _text(event, path, "id"), _text(event, path, "type"), tenant, entity, moment)


def hubspot_events(delivery: Delivery) -> Iterator[Part]:
    """An unordered array of at most 100 events, whose `eventId` is not promised to be unique."""
    for path, event in _objects(delivery.json(), ""):
        tenant, entity = _text(event, path, "portalId"), _text(event, path, "objectId")
        kind, stamp = _text(event, path, "subscriptionType"), _text(event, path, "occurredAt")
        # Two properties of one object can change in the same millisecond.
        changed = event.get("propertyName")
        kind = f"{kind}.{changed}" if isinstance(changed, str) else kind
        moment = _from_milliseconds(stamp, f"{path}.occurredAt")
        yield Part(event, stable_id(tenant, entity, kind, stamp), kind, tenant, entity, moment)


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, list):
        raise ContractError("the delivery holds no list of events", path=path)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise ContractError(f"an event is {type(item).__name__}, not an object", path=f"{path}[{index}]")
        yield f"{path}[{index}]", item


def _text(event: dict[str, Any], path: str, field: str) -> str:
    """Text or a whole number, as text: vendors send ids as either."""
    value = event.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    found = "missing" if field not in event else type(value).__name__
    raise ContractError(f"the vendor's event has no usable {field} ({found})", path=f"{path}.{field}")


def _moment(text: str, path: str, *, naive_is_utc: bool = False) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ContractError("the vendor sent a time that is not ISO 8601", path=path) from None
    if moment.tzinfo is None:
        if not naive_is_utc:
            raise ContractError("the vendor sent a time without zone", path=path)
        moment = moment.replace(tzinfo=UTC)
    return moment


def _from_milliseconds(text: str, path: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ContractError("the vendor sent a time that is not milliseconds since 1970", path=path) from None
