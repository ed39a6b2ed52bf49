"""The ERP's leg of the reference integration: a captured database that changes, orders in the ledger, calls to the
billing API. Real PostgreSQL, real HTTP, the declared components; no Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from postgres_source_harness import Capture, Database, eventually, running_postgres

from consumers import billing
from demo import billing_api, erp
from demo.billing_api import BillingApi
from demo.erp import CAPTURED, ErpPlayer, load_erp
from heddle import Deadlines
from heddle.contracts import contract_of
from heddle.contracts.resolution import as_written
from heddle.errors import FailureClass
from heddle.local.postgres import Postgres
from heddle.testing import Harness
from producers.erp import source
from schemas.erp import Customer, Order, OrderLine
from topologies import order_to_ledger

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "whsec_of-a-test"
CHANGES = 300
ZERO = Decimal(0)
FAULTS: tuple[billing_api.Kind, ...] = ("status", "cut", "reset", "trickle", "delay")


def order(number: int = 17, **changes: Any) -> Order:
    made = Order(
        order_id=number, customer_id=1, ordered_at=datetime(2026, 3, 1, 13), total=Decimal("5.94"),
        removed=False, changed_at=AT,
    )  # fmt: skip
    return replace(made, **changes)


def line(number: int = 170, **changes: Any) -> OrderLine:
    made = OrderLine(
        order_line_id=number, order_id=17, track_id=3, unit_price=Decimal("0.99"), quantity=6, removed=False,
        changed_at=AT,
    )  # fmt: skip
    return replace(made, **changes)


def customer(**changes: Any) -> Customer:
    made = Customer(customer_id=1, first_name="Zoë", last_name="O'Neil", email="z@example.org", country="Ireland",
                    removed=False, changed_at=AT)  # fmt: skip
    return replace(made, **changes)


# The database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
def database(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    made = Database(server)
    load_erp(made.dsn)
    monkeypatch.setenv("HEDDLE_SECRET_ERP_DSN", made.dsn)
    yield made
    # Slots are the server's, not the database's.
    free = "select 1 from pg_replication_slots where slot_name = %s and active"
    eventually(lambda: not made.run(free, source.slot), "the slot is free")
    made.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", source.slot)
    made.close()


@pytest.mark.stack
def test_what_is_captured_while_people_work_is_what_the_tables_hold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erp, "TRANSACTIONS_PER_S", 200.0)
    assert source.findings() == []
    capture, player = Capture(source, batch=500), ErpPlayer(database.dsn)
    capture.open()
    player.start()
    while player.changes.total() < CHANGES:
        assert player.error is None
        capture.once()
    player.stop()
    capture.drain(database)
    capture.crash()
    assert capture.failures == []
    assert set(player.changes) == {"inserted", "updated", "deleted", "given another key"}
    for table in source.tables.values():
        columns = table.named_columns(table.emits)
        rows = database.run(f"select {', '.join(columns.values())} from {table.name}")
        held = [value for value in capture.state(table.emits).values() if not value.removed]
        assert sorted(tuple(getattr(value, name) for name in columns) for value in held) == sorted(rows), table.name


@pytest.mark.stack
def test_a_removed_row_is_told_with_what_it_held_last_and_a_key_change_removes_the_old_key(database: Database) -> None:
    capture = Capture(source)
    capture.drain(database)
    known = len(capture.drafts)
    database.run("update erp.invoice_line set invoice_line_id = 9001 where invoice_line_id = 5")
    database.run("delete from erp.invoice_line where invoice_line_id = 9001")
    capture.drain(database)
    capture.crash()
    told = [draft.value for draft in capture.drafts[known:]]
    assert [(value.order_line_id, value.removed) for value in told] == [(5, True), (9001, False), (9001, True)]
    assert {(value.order_id, value.track_id, value.unit_price, value.quantity) for value in told} == {
        (told[0].order_id, told[0].track_id, Decimal("0.99"), 1)
    }
    assert [draft.deletes for draft in capture.drafts[known:]] == [None] * 3


@pytest.mark.stack
def test_loading_the_erp_again_leaves_it_as_it_is(database: Database) -> None:
    database.run("delete from erp.invoice_line where invoice_line_id = 1")
    assert load_erp(database.dsn) == "59 customers, 412 orders, 2,239 lines"
    assert {f"erp.{name}" for name in CAPTURED} == set(source.tables)


@pytest.mark.stack
def test_people_go_on_when_the_database_is_back(server: Postgres, database: Database) -> None:
    player = ErpPlayer(database.dsn)
    player.start()
    eventually(lambda: player.changes.total() > 5, "they work")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> %s",
            (database.name, database.connection.info.backend_pid),
        )
    before = player.changes.total()
    eventually(lambda: player.changes.total() > before, "they go on")
    player.stop()
    assert player.error is None


# The ledger


def test_an_order_is_booked_anew_when_it_changes_and_at_zero_when_it_is_removed() -> None:
    with Harness(order_to_ledger.flow) as h:
        h.feed(order())
        h.feed(order(total=Decimal("6.93")))
        h.feed(order(total=Decimal("6.93"), removed=True))
        h.run()
        assert h.outcomes == {"emitted": 3}
        entries = h.outputs_of("order:17")
    assert [sum(each.debit for each in entry.lines) for entry in entries] == [Decimal("5.94"), Decimal("6.93"), ZERO]
    for entry in entries:
        assert (entry.source_id, entry.currency, entry.booked_at) == ("ERP-17", "USD", AT)
        assert sum(each.debit - each.credit for each in entry.lines) == ZERO


def test_the_mapping_to_the_ledger_calls_no_function() -> None:
    lowered = order_to_ledger.entry_of.lowered(as_written(contract_of(Order).root))
    assert lowered.plan is not None
    assert {field.path for field in lowered.fields if field.way == "call"} == set()


# The billing API


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[BillingApi]:
    monkeypatch.setattr(billing_api, "FAULT_EVERY", 4)
    monkeypatch.setattr(billing_api, "_MIX", FAULTS)
    monkeypatch.setattr(billing_api, "LATE_S", 0.5)
    monkeypatch.setattr(billing, "DEADLINES", Deadlines(connect_s=1, read_s=0.3, total_s=2))
    monkeypatch.setenv("HEDDLE_SECRET_BILLING_TOKEN", TOKEN)
    made = BillingApi(TOKEN)
    monkeypatch.setattr(billing, "URL", made.url)
    with made.serving():
        yield made


def charges() -> Any:
    return billing.billing("billing-charges", OrderLine, billing.charge_of)


def test_each_change_takes_effect_once_at_an_api_that_fails_in_every_way(api: BillingApi) -> None:
    with Harness(charges()) as h:
        h.advance_to(datetime.now(UTC))  # the sink asks the machine's clock whether the API still keeps a key
        for number in range(60):
            h.feed(line(number))
            h.feed(line(number, quantity=2) if number % 2 else line(number, removed=True))
        h.run().advance(minutes=5)
        assert h.dead_letters == []
    assert set(api.injected) == set(FAULTS)
    assert api.repeated >= api.injected["cut"] + api.injected["delay"] > 0
    assert set(Counter(effect.key for effect in api.effects).values()) == {1}
    assert len(api.effects) == 120
    assert api.resources == {
        f"/charges/{number}": {"order": 17, "item": 3, "amount": "1.98", "currency": "USD"}
        for number in range(1, 60, 2)
    }


def test_a_customer_has_an_account_until_the_erp_removes_them(api: BillingApi) -> None:
    with Harness(billing.billing("billing-accounts", Customer, billing.account_of)) as h:
        h.advance_to(datetime.now(UTC))
        h.feed(customer())
        h.run().advance(minutes=1)
        assert api.resources == {"/accounts/1": {"name": "Zoë O'Neil", "email": "z@example.org", "country": "Ireland"}}
        h.feed(customer(company="№ 1 Ltd"))
        h.run().advance(minutes=1)
        assert api.resources["/accounts/1"]["name"] == "№ 1 Ltd"
        h.feed(customer(removed=True))
        h.run().advance(minutes=1)
    assert (api.resources, len(api.effects)) == ({}, 3)


def test_the_wrong_token_stops_the_sink_and_nothing_is_charged(
    api: BillingApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_BILLING_TOKEN", "whsec_another")
    with Harness(charges()) as h:
        h.feed(line())
        h.run()
        assert h.stopped is not None
        assert getattr(h.stopped, "failure_class", None) is FailureClass.AUTH
        assert h.dead_letters == []
    assert api.effects == []


def test_contracts_of_the_erp_are_kept_for_ever_one_event_for_each_row() -> None:
    for cls in (Customer, Order, OrderLine):
        topic = contract_of(cls).metadata.topic
        assert (topic.cleanup, topic.retention_hours) == ("compact", -1)
