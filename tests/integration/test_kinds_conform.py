"""Heddle's own kinds pass the conformance checks that others' kinds are told to run, on real upstreams and targets."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import psycopg
import pytest
from http_sink_harness import sink_of
from http_target import Fault, Target
from outbox_harness import FIELDS as BALANCE
from outbox_harness import TABLE
from postgres_source_harness import Database, contract_type, eventually, running_postgres
from rest_harness import FAST, source
from rest_server import Api, RestServer
from sql_sink_harness import START, Link, Proxy, entry, proxied
from sql_sink_harness import Database as Target_

from heddle import Draft, Endpoint, HttpSink, Outbox, OutboxSource, PostgresSource, RestSource, SqlSink, Table
from heddle.local import Stack
from heddle.local.postgres import Postgres
from heddle.sources.rest import Cursor, Feed, PolledRow, Resource
from heddle.testing.conformance import PulledSourceConformance, SinkConformance
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

ENTITIES = 3
ITEM: list[dict[str, Any]] = [
    {"name": "id", "type": "long", "doc": "Key."},
    {"name": "version", "type": "string", "doc": "What it is."},
    {"name": "since", "type": {"type": "int", "logicalType": "date"}, "doc": "A day."},
]


class TestSqlSink(SinkConformance):
    """Its target is behind a proxy, which can be cut, slowed down, and made to lose answers."""

    @pytest.fixture(autouse=True)
    def target_of_its_own(self, stack: Stack) -> Iterator[None]:
        self.database = Target_(stack.dsn)
        self.database.entries()
        with proxied(stack.dsn) as self.proxy:
            yield
        self.database.clean()

    def sink(self) -> SqlSink[Any]:
        return self.database.sink(dsn=self.proxy.dsn)

    def value(self, entity: int, version: int) -> Entry:
        return entry(str(entity), version)

    def poison(self, entity: int) -> Entry:
        return entry(str(entity), accounts=("ca\0sh",))

    def held(self) -> dict[int, int]:
        rows = self.database.execute("select distinct entry_id, booked_at from {schema}.entry_line")
        assert len({entity for entity, _ in rows}) == len(rows), "rows of two versions of one entity"
        return {int(entity): (booked_at - START).seconds for entity, booked_at in rows}

    def down(self) -> Any:
        return hooked(self.proxy, cut)

    def slow(self) -> Any:
        return hooked(self.proxy, late)

    def lost(self) -> Any:
        return hooked(self.proxy, answerless)


@contextlib.contextmanager
def hooked(proxy: Proxy, hook: Any) -> Iterator[None]:
    before, proxy.hook = proxy.hook, hook
    yield
    proxy.hook = before


def cut(_: bytes, link: Link) -> bool:
    link.cut()
    return False


def late(_: bytes, link: Link) -> bool:
    threading.Event().wait(0.05)
    return True


def answerless(data: bytes, link: Link) -> bool:
    link.mute = b"COMMIT" in data
    return True


class TestHttpSink(SinkConformance):
    unsupported: ClassVar = {
        "zombie": "a call cannot be fenced: a former owner's is the same under the same idempotency key"
    }

    @pytest.fixture(autouse=True)
    def target_of_its_own(self) -> Iterator[None]:
        self.target = Target()
        self.target.answer = lambda seen: (422, {}, b"{}") if seen.json["version"] is None else None
        yield
        self.target.stop()

    def sink(self) -> HttpSink[Entry]:
        return sink_of(self.target.url, call=Endpoint("POST", "/v1/entries", body=posting))

    def value(self, entity: int, version: int) -> Entry:
        return entry(str(entity), version)

    def poison(self, entity: int) -> Entry:
        return entry(str(entity), accounts=())

    def held(self) -> dict[int, int]:
        return {int(seen.json["entry"]): seen.json["version"] for seen in self.target.effects}

    def doubled(self) -> int:
        return sum(count - 1 for count in Counter(seen.body for seen in self.target.effects).values())

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        self.target.stop()
        yield
        self.target.start()

    def slow(self) -> Any:
        return self.at_fault(Fault(delay_s=10))

    def lost(self) -> Any:
        return self.at_fault(Fault(cut=True))

    @contextlib.contextmanager
    def at_fault(self, fault: Fault) -> Iterator[None]:
        self.target.fault = lambda _: fault
        yield
        self.target.fault = lambda _: Fault()


def posting(entry: Entry) -> dict[str, Any]:
    return {"entry": entry.entry_id, "version": (entry.booked_at - START).seconds if entry.lines else None}


def entries(row: PolledRow) -> list[Draft[Entry]]:
    return [Draft(entry(row.id, int(row.value["name"])), row.event_id, row.changed_at)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Item", ITEM, ["id"])


@pytest.fixture(scope="module")
def balance(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Balance", BALANCE, ["account"])


class TestPostgresSource(PulledSourceConformance):
    @pytest.fixture(autouse=True)
    def upstream_of_its_own(self, server: Postgres, item: type[Any]) -> Iterator[None]:
        self.database, self.item = Database(server), item
        self.database.run("create table item (id bigint primary key, version text, since date default '2026-01-01')")
        self.database.publish()
        yield
        self.database.close()

    def source(self) -> PostgresSource:
        return self.database.source(Table("public.item", emits=self.item))

    def start(self) -> bytes | None:
        """Behind the snapshot of an empty table."""
        positions: list[bytes] = []
        with contextlib.closing(self.source().open()) as puller:
            puller.begin(None)

            def streams() -> bool:
                pull = puller.pull(10, 0.05)
                positions.extend([] if pull is None else [pull.position])
                return bool(positions) and pull is None

            eventually(streams, "the snapshot has ended")
            puller.confirm(positions[-1])
        return positions[-1]

    def change(self, number: int) -> None:
        self.database.run(
            "insert into item (id, version) values (%s, %s) on conflict (id) do update set version = excluded.version",
            number % ENTITIES,
            str(number),
        )

    def poison(self) -> None:
        self.database.run("insert into item values (9, 'bad', 'infinity')")


class TestOutboxSource(PulledSourceConformance):
    @pytest.fixture(autouse=True)
    def upstream_of_its_own(self, server: Postgres, balance: type[Any]) -> Iterator[None]:
        self.database, self.balance = Database(server), balance
        self.database.run(TABLE)
        yield
        self.database.close()

    def source(self) -> OutboxSource:
        return OutboxSource("bank", dsn=self.database.secret, emits=self.balance, owner="tests")

    def change(self, number: int) -> None:
        with psycopg.connect(self.database.dsn) as application:
            Outbox().put(application, self.balance(account=f"a{number % ENTITIES}", version=number))

    def poison(self) -> None:
        self.database.run(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload) "
            "select gen_random_uuid(), aggregatetype, 'bad', type, '{}' from outbox limit 1"
        )


class TestRestSource(PulledSourceConformance):
    """A feed of changes, a page for each pull."""

    batch_slack = 20

    @pytest.fixture(autouse=True)
    def upstream_of_its_own(self) -> Iterator[None]:
        self.api = Api()
        self.server = RestServer(self.api)
        self.declared = source(
            self.server,
            Resource(
                "deals", path="changes", rows="data", paging=Cursor("cursor", at="cursor"), follow=Feed(restart="full"),
                convert=entries, every_s=0, limit=FAST,
            ),
            emits=Entry,
        )  # fmt: skip
        yield
        self.server.close()

    def source(self) -> RestSource:
        return self.declared

    def change(self, number: int) -> None:
        self.api.now += 1
        self.api.put(number % ENTITIES, str(number))

    def poison(self) -> None:
        self.api.now += 1
        self.api.put(9, "")
