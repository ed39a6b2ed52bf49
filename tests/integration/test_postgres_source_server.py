"""The PostgreSQL source and its server: a slot that is lost for real, a failover, and settings that are not so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_source_harness import Capture, Database, contract_type, eventually, running_postgres

from heddle.errors import DependencyDownError, PositionLostError
from heddle.local import postgres
from heddle.local.postgres import Postgres
from heddle.sources.postgres import Table, checks, puller
from heddle.sources.postgres.position import RESTART

pytestmark = pytest.mark.stack

FIELDS: list[dict[str, Any]] = [{"name": "id", "type": "long", "doc": "Key."}]


@contextmanager
def options(**more: str) -> Iterator[None]:
    """Of servers that are started meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "_OPTIONS", postgres._OPTIONS | more)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Lets a slot keep little."""
    with (
        options(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB", max_wal_senders="3"),
        running_postgres(tmp_path_factory.mktemp("postgres")) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Item", FIELDS, ["id"])


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    made = Database(server)
    made.run("create table item (id bigint primary key)")
    made.publish()
    yield made
    made.close()


@pytest.fixture
def capture(database: Database, item: type[Any]) -> Iterator[Capture]:
    made = Capture(database.source(Table("public.item", emits=item)))
    yield made
    made.crash()


def outrun(database: Database) -> None:
    """More log than a slot may keep."""
    for _ in range(6):
        database.run("select pg_logical_emit_message(false, 'other', 'x')")
        database.run("select pg_switch_wal()")
    database.run("checkpoint")
    status = "select wal_status from pg_replication_slots where database = %s"
    eventually(lambda: database.run(status, database.name) == [("lost",)], "the slot is lost")


def test_a_slot_that_was_lost_while_nobody_read_it_stops_until_all_is_read_anew(
    database: Database, capture: Capture
) -> None:
    database.run("insert into item values (1)")
    capture.drain(database)
    capture.crash()
    database.run("insert into item values (2)")
    outrun(database)
    with pytest.raises(PositionLostError, match="is lost: more WAL came than max_slot_wal_keep_size keeps") as caught:
        capture.drain(database)
    assert "heddle snapshot erp --restart" in caught.value.hint
    slot = capture.source.slot
    assert (f"slot {slot} is lost", "run `heddle snapshot` with --restart") in capture.source.findings()
    capture.crash()
    capture.position = RESTART
    capture.drain(database)
    assert [draft.value.id for draft in capture.drafts] == [1, 1, 2]


def test_a_slot_that_is_lost_under_its_reader_stops(
    database: Database, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads, and confirms nothing: as when Kafka does not answer for hours."""
    monkeypatch.setattr(puller, "HEARTBEAT_S", 0.05)
    capture.drain(database)
    database.run("insert into item values (1)")
    eventually(lambda: capture.once(tell=False), "it is read")
    outrun(database)

    def stopped() -> bool:
        try:
            capture.once(tell=False)
        except DependencyDownError:
            capture.crash()
        except PositionLostError:
            return True
        return False

    eventually(stopped, "it stops")


def test_a_slot_that_nobody_read_for_too_long_says_so(database: Database, capture: Capture) -> None:
    capture.drain(database)
    capture.crash()
    database.run("alter system set idle_replication_slot_timeout = '1s'")
    database.run("select pg_reload_conf()")
    try:

        def is_lost() -> bool:
            database.run("checkpoint")
            return bool(database.run("select 1 from pg_replication_slots where invalidation_reason = 'idle_timeout'"))

        eventually(is_lost, "the slot is lost")
    finally:
        database.run("alter system reset idle_replication_slot_timeout")
        database.run("select pg_reload_conf()")
    with pytest.raises(PositionLostError, match="nobody read it for longer than idle_replication_slot_timeout"):
        capture.drain(database)


def test_a_slot_that_is_about_to_be_lost_is_named(
    database: Database, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives it up at a checkpoint, and until then it may still be read."""
    capture.drain(database)
    capture.crash()
    assert capture.source.findings() == []
    monkeypatch.setattr(checks, "ALMOST_LOST", 1000)
    ((message, _),) = capture.source.findings()
    assert message.startswith(f"slot {capture.source.slot} is about to be lost: ")


def test_that_all_senders_are_in_use_is_named_to_who_needs_one(database: Database, capture: Capture) -> None:
    capture.drain(database)
    with (
        psycopg.connect(database.dsn, replication="database"),  # type: ignore[arg-type]
        psycopg.connect(database.dsn, replication="database"),  # type: ignore[arg-type]
    ):
        assert capture.source.findings() == []  # it has one
        capture.crash()
        senders = "select count(*) from pg_stat_replication"
        eventually(lambda: database.run(senders) == [(2,)], "the server has noticed")
        with psycopg.connect(database.dsn, replication="database"):  # type: ignore[arg-type]
            ((message, _),) = capture.source.findings()
    assert message == "all 3 of max_wal_senders are in use"


def test_a_standby_is_named_and_one_that_was_promoted_stops(
    server: Postgres, database: Database, capture: Capture
) -> None:
    database.run("insert into item values (1)")
    capture.drain(database)
    capture.crash()
    database.connection.close()
    server.stop()
    (server._cluster / "standby.signal").touch()
    server.start()
    assert ("the server is a standby", "name the primary in the secret") in capture.source.findings()
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        assert connection.execute("select pg_promote()").fetchone() == (True,)
        connection.execute("insert into item values (2)")
    with pytest.raises(PositionLostError, match=r"no more on [0-9]+: it failed over") as caught:
        capture.once()
    assert "heddle snapshot erp --restart" in caught.value.hint
    capture.position = RESTART
    database.connection = psycopg.connect(database.dsn, autocommit=True)
    capture.drain(database)
    assert [draft.value.id for draft in capture.drafts] == [1, 1, 2]


def test_settings_that_are_not_so_are_named_with_what_to_run(
    item: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MIN_VERSION", 990_000)
    with (
        options(wal_level="replica", max_wal_senders="0", max_replication_slots="1", max_slot_wal_keep_size="-1"),
        running_postgres(tmp_path / "other") as server,
    ):
        database = Database(server)
        database.run("create table item (id bigint primary key)")
        database.publish()
        database.run("select pg_create_physical_replication_slot('somebody')")
        found = database.source(Table("public.item", emits=item)).findings()
        database.run("select pg_drop_replication_slot('somebody')")
        database.close()
    assert [message.split(":")[0] for message, _ in found] == [
        "the server's version is 18",
        "wal_level is replica",
        "all 1 replication slots are taken",
        "max_wal_senders is 0",
        "max_slot_wal_keep_size is not set",
    ]
    assert [run.split(";")[0] for _, run in found] == [
        "capture needs PostgreSQL 15 or newer",
        "alter system set wal_level = 'logical'",
        "raise max_replication_slots, or drop one that is unused",
        "alter system set max_wal_senders = 10",
        "alter system set max_slot_wal_keep_size = '50GB'",
    ]
