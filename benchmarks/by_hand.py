"""What one writes without Heddle: fastavro, a dict, another dict, fastavro. No tricks, and none left out that one would
think of: schemas parsed once, no copies, no checks that fastavro does not make by itself."""

from __future__ import annotations

import io
from hashlib import blake2b
from typing import Any

import fastavro

from benchmarks.orders import SOURCE, TARGET, Frames, Headers, schema

STATES = {"NEW": "OPEN", "PAID": "OPEN", "SHIPPED": "CLOSED", "CANCELLED": "DROPPED"}


def pick_of(order: dict[str, Any]) -> dict[str, Any]:
    """The mapping of topologies/order_to_pick.py, rule by rule. Raises ValueError for an order without an address."""
    customer, lines, priority = order["customer"], order["lines"], order["priority"]
    email = customer["email"]
    if email is None:
        raise ValueError("customer.email is null")
    return {
        "id": order["order_id"],
        "placed_at": order["event_ts"],
        "total": order["amount"],
        "currency": order["currency"],
        "state": STATES[order["status"]],
        "coupon": order["coupon"],
        "priority": 5 if priority is None else priority,
        "customer_id": customer["id"],
        "name": f"{customer['first']} {customer['last']}",
        "email": email,
        "items": [{"item": line["sku"], "pieces": line["qty"], "unit_price": line["price"]} for line in lines],
        "item_count": len(lines),
        "items_total": sum(line["qty"] * line["price"] for line in lines),
    }


class HandWritten:
    """Values and headers of orders to those of picks."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._order, self._pick = schema(SOURCE), schema(TARGET)

    def value(self, data: bytes) -> bytes:
        """Raises whatever is wrong with the data: ValueError, EOFError, IndexError, KeyError …"""
        if data[:5] != self._frames.source:
            raise ValueError("not in the wire format, or by a schema that is not known")
        stream = io.BytesIO(data)
        stream.seek(5)
        order = fastavro.schemaless_reader(stream, self._order, None)
        out = io.BytesIO()
        out.write(self._frames.target)
        fastavro.schemaless_writer(out, self._pick, pick_of(order))  # type: ignore[arg-type]
        return out.getvalue()

    def headers(self, given: Headers) -> Headers:
        """The same seven: an id that is the same whenever the record is processed again, the rest told or passed on."""
        known = dict(given)
        source, event_id, lineage = known["ce_source"], known["ce_id"], known["heddle-lineage"]
        derived = blake2b(b"%b;%b;order-to-pick" % (source, event_id), digest_size=16).hexdigest()
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", derived.encode()),
            ("ce_source", b"/bench/by-hand"),
            ("ce_type", TARGET.encode()),
            ("ce_time", known["ce_time"]),
            ("heddle-lineage", b"1;by-hand.0;" + lineage.split(b";", 2)[2]),
            ("traceparent", known["traceparent"]),
        ]
