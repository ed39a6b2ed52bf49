"""Converters over real sample payloads, whose shapes differ: missing and null fields, numbers as text, envelopes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest

from heddle.errors import ContractError
from heddle.event import Draft
from heddle.sources.delivery import Delivery
from heddle.sources.splitting import hubspot_events, quickbooks_events, xero_events

DATA = Path(__file__).parent.parent / "data" / "webhooks"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    order_id: str
    total: Decimal
    currency: str
    customer: str | None
    lines: tuple[tuple[str, int, Decimal], ...]


def orders_of(delivery: Delivery) -> Iterator[Draft[Order]]:
    """The rules: an order stands bare or under `order`, `orders`, `draft_orders`; ids are numbers or text; the current
    total counts where there is one; a customer is known by id, else by address, else not at all."""
    for path, order in orders_in(delivery.json()):
        changed_at = datetime.fromisoformat(order.get("updated_at") or order["created_at"])
        value = Order(
            order_id=identifier(order.get("id"), f"{path}.id"),
            total=amount(order.get("current_total_price") or order.get("total_price"), f"{path}.total_price"),
            currency=order.get("currency") or "USD",
            customer=customer_of(order),
            lines=tuple(line_of(line, path) for line in order.get("line_items") or ()),
        )
        yield Draft(value, id=f"{delivery.id}:{value.order_id}", time=changed_at)


def orders_in(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("order", "orders", "draft_orders"):
        inner = body.get(name)
        if isinstance(inner, dict):
            yield name, inner
        elif isinstance(inner, list):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(inner))
    if "line_items" in body:
        yield "", body


def line_of(line: dict[str, Any], path: str) -> tuple[str, int, Decimal]:
    sku = line.get("sku") or line.get("title") or ""
    return sku, int(line.get("quantity") or 0), amount(line.get("price"), f"{path}.line_items[].price")


def customer_of(order: dict[str, Any]) -> str | None:
    customer = order.get("customer") or {}
    return str(customer["id"]) if customer.get("id") else customer.get("email") or order.get("email")


def identifier(value: Any, path: str) -> str:
    if isinstance(value, str | int) and value:
        return str(value)
    raise ContractError("no id", path=path)


def amount(value: Any, path: str) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ContractError(f"an amount is {type(value).__name__}", path=path) from None


@dataclass(frozen=True)
class Activity:
    kind: str
    repository: str | None
    actor: str | None


def activity_of(delivery: Delivery) -> Iterator[Draft[Activity]]:
    """Every GitHub event has a kind; action, repository and sender may be missing or null."""
    body = delivery.json()
    kind = ".".join(part for part in (delivery.headers["x-github-event"], body.get("action")) if part)
    value = Activity(kind, (body.get("repository") or {}).get("full_name"), (body.get("sender") or {}).get("login"))
    yield Draft(value, id=delivery.id, time=delivery.received_at)


def delivery(body: bytes, delivery_id: str = "d", **headers: str) -> Delivery:
    return Delivery(body, headers, NOW, "s", delivery_id)


def sample(name: str) -> bytes:
    return (DATA / name).read_bytes()


# --- Shopify and GitHub -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "order_id", "total", "customer"),
    [
        ("order", "123456", "9.50", "john@test.com"),
        ("orders", "123456", "9.50", "john@test.com"),
        ("order_with_transaction", "123456", "9.50", "john@test.com"),
        ("draft_orders", "1234567890", "206.25", "207119551"),
    ],
)
def test_shopify_orders(name: str, order_id: str, total: str, customer: str) -> None:
    first = next(orders_of(delivery(sample(f"shopify/{name}.json"), "shop.example:orders/create:e1")))
    assert (first.value.order_id, first.value.total, first.value.customer) == (order_id, Decimal(total), customer)
    assert first.value.currency == "USD"
    assert first.value.lines
    assert first.id == f"shop.example:orders/create:e1:{order_id}"
    assert first.time.tzinfo is not None


@pytest.mark.parametrize(
    "name", ["customer", "inventory_levels", "product", "shop", "transactions", "fulfillment_event"]
)
def test_shopify_topics_without_an_order_yield_nothing(name: str) -> None:
    assert list(orders_of(delivery(sample(f"shopify/{name}.json")))) == []


def test_shopify_numbers_as_text_and_as_numbers_are_the_same_order() -> None:
    body = json.loads(sample("shopify/order.json"))["order"]
    other = body | {"id": str(body["id"]), "current_total_price": 9.50, "line_items": body["line_items"]}
    first, second = (next(iter(orders_of(delivery(json.dumps(b).encode())))) for b in (body, other))
    assert first == second


def test_shopify_contract_failures_name_the_path_only() -> None:
    body = json.loads(sample("shopify/order.json"))
    body["order"]["total_price"] = body["order"]["current_total_price"] = "ten"
    with pytest.raises(ContractError) as refused:
        list(orders_of(delivery(json.dumps(body).encode())))
    assert refused.value.path == "order.total_price"
    assert "ten" not in str(refused.value)


@pytest.mark.parametrize("path", sorted((DATA / "github").glob("*.json")), ids=lambda path: path.stem)
def test_github_samples_convert_whatever_they_lack(path: Path) -> None:
    event = path.name.split(".")[0]
    (draft,) = activity_of(delivery(path.read_bytes(), "guid-1", **{"x-github-event": event}))
    assert draft.id == "guid-1"
    assert draft.value.kind.startswith(event)


def test_github_events_of_an_organisation_have_no_repository() -> None:
    def repository(name: str) -> str | None:
        given = delivery(sample(f"github/{name}.json"), **{"x-github-event": "any"})
        return next(activity_of(given)).value.repository

    assert repository("membership.0.removed") is None
    assert repository("push.0.noaction") == "Codertocat/Hello-World"


# --- deliveries that carry many events ----------------------------------------------------------------------------


def test_xero_events_are_split_and_keep_their_identity() -> None:
    first, second = (json.loads(sample(f"xero/event_{n}.json")) for n in (0, 1))
    both = {"events": first["events"] + second["events"], "firstEventSequence": 1, "lastEventSequence": 2}
    parts = list(xero_events(delivery(json.dumps(both).encode())))
    assert [part.type for part in parts] == ["CREDITNOTE.CREATE", "CONTACT.UPDATE"]
    assert parts[0].time == datetime(2025, 12, 2, 0, 44, 9, 923_000, tzinfo=UTC)
    assert parts[1].tenant == "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f"
    alone = [next(xero_events(delivery(sample(f"xero/event_{n}.json")))) for n in (0, 1)]
    assert [part.id for part in parts] == [part.id for part in alone]


def test_xero_intent_to_receive_holds_no_event() -> None:
    assert (
        list(xero_events(delivery(b'{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"x"}'))) == []
    )


def test_quickbooks_events_of_several_companies() -> None:
    vectors = json.loads(sample("derived_vectors.json"))["vectors"]
    body = next(v["body"] for v in vectors if v["id"] == "quickbooks-01")
    parts = list(quickbooks_events(delivery(body.encode())))
    assert [(part.id[:8], part.tenant, part.entity) for part in parts] == [
        ("88cd52aa", "310687", "1234"),
        ("6f1d3c0a", "310999", "77"),
    ]


def hubspot_event(**changes: Any) -> dict[str, Any]:
    event = {"eventId": 1, "portalId": 62515, "objectId": 9, "occurredAt": 1_700_000_000_123}
    return event | {"subscriptionType": "deal.propertyChange", "propertyName": "amount"} | changes


def test_hubspot_batches_do_not_rest_on_event_ids() -> None:
    events = [hubspot_event(objectId=n) for n in range(98)] + [hubspot_event(propertyName="dealstage"), hubspot_event()]
    parts = list(hubspot_events(delivery(json.dumps(events).encode())))
    # The last repeats the tenth; all others differ although the vendor gave them one eventId.
    assert len(parts) == 100
    assert len({part.id for part in parts}) == 99
    assert parts[-1].id == parts[9].id
    assert parts[0].time == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("split", "body", "path"),
    [
        (xero_events, [], "events"),
        (xero_events, {"events": [{"tenantId": "t"}]}, "events[0].resourceId"),
        (quickbooks_events, {"eventNotifications": []}, ""),
        (quickbooks_events, [{"time": "2026-01-01T00:00:00"}], "[0].time"),
        (quickbooks_events, [{"time": "yesterday"}], "[0].time"),
        (quickbooks_events, ["x"], "[0]"),
        (hubspot_events, [hubspot_event(occurredAt="soon")], "[0].occurredAt"),
        (hubspot_events, [hubspot_event(occurredAt=10**30)], "[0].occurredAt"),
        (hubspot_events, [hubspot_event(objectId=None)], "[0].objectId"),
        (hubspot_events, [hubspot_event(objectId=True)], "[0].objectId"),
    ],
)
def test_what_a_part_lacks_is_named(split: Any, body: Any, path: str) -> None:
    with pytest.raises(ContractError) as refused:
        list(split(delivery(json.dumps(body).encode())))
    assert refused.value.path == path
