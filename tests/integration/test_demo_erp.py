"""The demo's count of the ERP's leg says so when anything is not as it has to be. Real PostgreSQL, a log in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar

import pytest
from postgres_source_harness import Capture, Database, running_postgres

from consumers.billing import account_of, charge_of
from demo.billing_api import BillingApi, Effect
from demo.erp import load_erp
from demo.erp_census import has_come, take_erp_census, topic_of
from heddle.broker.log import Outgoing, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.event import Identity, Lineage, event_headers, event_time, stable_id
from heddle.sinks.http.call import encoded
from producers.erp import source
from schemas.erp import Customer, Order, OrderLine

pytestmark = pytest.mark.stack

T = TypeVar("T")

PARTITIONS, TIMEOUT_S, TOKEN = 2, 10.0, "of a test"
ORDERS, BOOKED, BALANCE = "erp.order.v1 replayed", "ledger: each order", "debits = credits"
EFFECTS, RESOURCES = "billing API: each", "billing API: accounts and charges"
BEGINNINGS = ("erp.customer.v1 replayed", ORDERS, "erp.order-line.v1 replayed", BOOKED, BALANCE, EFFECTS, RESOURCES)
# As consumers/ledger.py has it, and what topologies/order_to_ledger.py writes into it.
LEDGER = (
    "create schema ledger",
    "create table ledger.entry_line as select 'order:' || invoice_id as entry_id, 'accounts-receivable' as account,"
    " total as debit, 0.00 as credit from erp.invoice"
    " union all select 'order:' || invoice_id, 'revenue', 0.00, total from erp.invoice",
)


class World:
    """Everything as it has to be: the ERP captured, booked and billed."""

    def __init__(self, database: Database, captured: Sequence[Any]) -> None:
        self.database, self.captured = database, captured
        self.broker, self.api = MemoryBroker(), BillingApi(TOKEN)
        self.registry = MemoryRegistry([contract_of(cls) for cls in source.emits])
        self.before = {topic_of(cls): dict.fromkeys(range(PARTITIONS), 0) for cls in source.emits}
        self._numbers = count()
        with closing(self.broker.admin()) as admin:
            admin.create_topics([TopicSpec(topic, PARTITIONS) for topic in self.before])
        for value, key in zip(captured, self.tell(captured), strict=True):
            if isinstance(value, Customer | OrderLine):
                call = charge_of(value) if isinstance(value, OrderLine) else account_of(value)
                self.api.answer(Effect(key, call.method, call.path), f"Bearer {TOKEN}", encoded(call.body)[0])

    def tell(self, values: Sequence[Any]) -> list[str]:
        """Events, as the source writes them. Returns their idempotency keys."""
        identities = [Identity("/order-to-cash/erp", f"event-{next(self._numbers)}") for _ in values]
        with closing(self.broker.producer("a-test")) as producer:
            producer.init(TIMEOUT_S)
            producer.begin()
            producer.produce(map(self._record, values, identities))
            producer.commit(TIMEOUT_S)
        return [stable_id(*identity) for identity in identities]

    def one(self, cls: type[T]) -> T:
        return next(value for value in self.captured if isinstance(value, cls))

    def failed(self) -> set[str]:
        """The invariants that do not hold, each by how it begins."""
        checks = take_erp_census(self.broker, self.registry, self.before, self.api, self.database.dsn).checks
        assert {begin for begin in BEGINNINGS if any(name.startswith(begin) for name in checks)} == set(BEGINNINGS)
        return {begin for begin in BEGINNINGS for name, holds in checks.items() if name.startswith(begin) and not holds}

    def _record(self, value: Any, identity: Identity) -> Outgoing:
        contract = contract_of(type(value))
        time, lineage = event_time(value.changed_at).encode(), Lineage("", identity).pack()
        headers = event_headers(identity, contract.name, time, lineage, None, [])
        body = AvroCodec[Any](contract, self.registry).encode(value)
        return Outgoing(contract.topic, contract.key_of(value), body, headers)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        made = Database(server)
        load_erp(made.dsn)
        made.run("delete from erp.invoice_line where invoice_id > 20")
        made.run("delete from erp.invoice where invoice_id > 20")
        for statement in LEDGER:
            made.run(statement)
        yield made
        made.close()


@pytest.fixture(scope="module")
def captured(database: Database) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEDDLE_SECRET_ERP_DSN", database.dsn)
        capture = Capture(source)
        capture.drain(database)
        capture.crash()
    return [draft.value for draft in capture.drafts]


@pytest.fixture
def world(database: Database, captured: list[Any], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("demo.billing_api.FAULT_EVERY", 10**9)
    return World(database, captured)


def test_all_invariants_hold_where_all_is_well(world: World) -> None:
    assert world.failed() == set()


def test_a_row_that_is_told_wrongly_is_seen(world: World) -> None:
    world.tell([replace(world.one(Order), total=Decimal(1))])
    assert world.failed() == {ORDERS}


def test_a_row_that_is_told_and_is_not_there_is_seen(world: World) -> None:
    world.tell([replace(world.one(Order), order_id=4711)])
    assert world.failed() == {ORDERS}


def test_a_row_whose_removal_is_not_true_is_seen(world: World) -> None:
    world.tell([replace(world.one(Order), removed=True)])
    assert world.failed() == {ORDERS}


def test_an_event_that_the_api_was_not_told_of_is_seen(world: World) -> None:
    world.tell([world.one(Customer)])
    assert world.failed() == {EFFECTS}


def test_an_effect_that_was_made_twice_is_seen(world: World) -> None:
    world.api.effects.append(world.api.effects[0])
    assert world.failed() == {EFFECTS}


def test_a_charge_that_is_not_the_erps_is_seen(world: World) -> None:
    world.api.resources[f"/charges/{world.one(OrderLine).order_line_id}"]["amount"] = "0.01"
    assert world.failed() == {RESOURCES}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ("set debit = debit + 1 where entry_id = 'order:1' and account <> 'revenue'", {BOOKED, BALANCE}),
        ("set account = 'cash' where entry_id = 'order:1' and account = 'revenue'", {BALANCE}),
        ("set entry_id = 'order:4711' where entry_id = 'order:1'", {BOOKED}),
    ],
)
def test_a_ledger_that_is_wrong_is_seen(world: World, change: str, failed: set[str]) -> None:
    world.database.run(f"update ledger.entry_line {change}")
    try:
        assert world.failed() == failed
    finally:
        world.database.run("drop table ledger.entry_line")
        world.database.run(LEDGER[1])


def test_the_mark_has_come_when_it_is_on_the_topic(world: World) -> None:
    assert not has_come(world.broker, world.registry, world.before, "run-1")
    world.tell([replace(world.one(Customer), fax="run-1")])
    assert has_come(world.broker, world.registry, world.before, "run-1")
