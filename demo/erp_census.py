"""Holds what came of the ERP's changes, on the topics, in the ledger and at the billing API, against the ERP itself."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

from demo.billing_api import BillingApi
from demo.census import since
from demo.tracing import identity_of
from heddle.broker.log import Broker, Record
from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.event import stable_id
from heddle.sources.postgres import Table
from producers.erp import source
from schemas.erp import Customer, OrderLine

TIMEOUT_S = 60.0
BILLED = (Customer, OrderLine)
"""What consumers/billing.py reads."""

Ends = dict[str, dict[int, int]]
Rows = set[tuple[Any, ...]]


@dataclass(slots=True)
class ErpCensus:
    """`rows`: what each topic holds at its end. `booked`: of all orders. `checks`: invariant → holds."""

    rows: dict[str, int] = field(default_factory=dict)
    booked: Decimal = Decimal(0)
    checks: dict[str, bool] = field(default_factory=dict)


def topic_of(cls: type) -> str:
    return contract_of(cls).topic


def take_erp_census(broker: Broker, registry: Registry, before: Ends, api: BillingApi, dsn: str) -> ErpCensus:
    """`before`: where the topics ended when the billing API began. The ERP stands still, and all has settled."""
    census = ErpCensus()
    for table in source.tables.values():
        _check_rows(census, broker, registry, table, dsn)
    _check_ledger(census, dsn)
    _check_effects(census, [r for cls in BILLED for r in since(broker, topic_of(cls), before[topic_of(cls)])], api)
    _check_resources(census, api, dsn)
    return census


def has_come(broker: Broker, registry: Registry, before: Ends, text: str) -> bool:
    """Whether the customer that `demo.erp.mark` has marked is on the topic, and so all that was changed before."""
    codec, topic = AvroCodec[Customer](contract_of(Customer), registry), topic_of(Customer)
    return any(codec.decode(r.value).fax == text for r in since(broker, topic, before[topic]) if r.value is not None)


def _check_rows(census: ErpCensus, broker: Broker, registry: Registry, table: Table, dsn: str) -> None:
    """The whole topic, of all runs, read as anybody would who wants to have the table."""
    topic, columns = topic_of(table.emits), table.named_columns(table.emits)
    names = ", ".join(columns.values())
    with psycopg.connect(dsn) as connection:
        rows: Rows = set(connection.execute(f"select {names} from {table.name}".encode()).fetchall())
    held = _held(broker, AvroCodec[Any](contract_of(table.emits), registry), topic)
    found: Rows = {tuple(getattr(value, name) for name in columns) for value in held.values() if not value.removed}
    census.rows[topic] = len(found)
    census.checks[f"{topic} replayed is {table.name}, row by row ({len(rows):,})"] = found == rows


def _held(broker: Broker, codec: AvroCodec[Any], topic: str) -> dict[bytes | None, Any]:
    """The last value of each key."""
    held: dict[bytes | None, Any] = {}
    with closing(broker.reader()) as reader, closing(broker.admin()) as admin:
        for partition in range(admin.topics([topic])[topic].partitions):
            last = {r.key: r.value for r in reader.scan(topic, partition, TIMEOUT_S, 0, settled=True)}
            held |= {key: codec.decode(value) for key, value in last.items() if value is not None}
    return held


def _check_ledger(census: ErpCensus, dsn: str) -> None:
    """An order that was removed is booked at zero; every other one at its total."""
    with psycopg.connect(dsn) as connection:
        orders: dict[str, Decimal] = dict(
            connection.execute("select 'order:' || invoice_id, total from erp.invoice").fetchall()
        )
        lines = connection.execute(
            "select entry_id, account, debit, credit from ledger.entry_line where entry_id like 'order:%'"
        ).fetchall()
    owed = {entry: debit for entry, account, debit, _ in lines if account == "accounts-receivable"}
    earned = {entry: credit for entry, account, _, credit in lines if account == "revenue"}
    census.booked = sum(owed.values(), Decimal(0))
    census.checks |= {
        "ledger: each order of the ERP at its total, removed ones at zero": owed.keys() >= orders.keys()
        and all(orders.get(entry, 0) == debit for entry, debit in owed.items()),
        "debits = credits, for each order of the ERP": owed == earned and len(lines) == 2 * len(owed),
    }


def _check_effects(census: ErpCensus, events: list[Record], api: BillingApi) -> None:
    """By the keys that the API was given: of the events' identities, and of nothing else."""
    wanted = {stable_id(*identity_of(event)) for event in events}
    made = Counter(effect.key for effect in api.effects)
    name = f"billing API: each of {len(wanted):,} events took effect once"
    census.checks[name] = made.keys() == wanted and set(made.values()) <= {1}


def _check_resources(census: ErpCensus, api: BillingApi, dsn: str) -> None:
    """Of all that it was told of in this run: what its predecessors were told is not known to it."""
    with psycopg.connect(dsn) as connection:
        customers = connection.execute(
            "select customer_id, coalesce(company, first_name || ' ' || last_name), email, country from erp.customer"
        ).fetchall()
        lines = connection.execute(
            "select invoice_line_id, invoice_id, track_id, unit_price * quantity from erp.invoice_line"
        ).fetchall()
    there: dict[str, Any] = {
        f"/accounts/{number}": {"name": name, "email": email, "country": country}
        for number, name, email, country in customers
    }
    there |= {
        f"/charges/{number}": {"order": order, "item": item, "amount": str(amount), "currency": "USD"}
        for number, order, item, amount in lines
    }
    told = {effect.path for effect in api.effects}
    census.checks["billing API: accounts and charges are the ERP's customers and lines"] = api.resources == {
        path: there[path] for path in told & there.keys()
    }
