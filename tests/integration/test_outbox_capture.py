"""The outbox read by change capture, against a real PostgreSQL: Debezium's table as it is, whoever dies."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from outbox_harness import (
    FIELDS,
    TABLE,
    Crash,
    Publishing,
    by_account,
    crashing,
    die,
    progress_of,
    write_at_random,
)
from postgres_source_harness import Database, contract_type, eventually, running_postgres
from structlog.testing import capture_logs

from heddle.contracts import contract_of
from heddle.errors import FormatError, PositionLostError, UsageError
from heddle.integration import Outcome
from heddle.local.postgres import Postgres
from heddle.operations.restart import restart_source
from heddle.sources.outbox import OutboxSource, pruning
from heddle.sources.postgres import puller, replication

pytestmark = pytest.mark.stack

STEPS = ["begin", "pull", "pulled", "confirm", "confirmed"]

# docs/how-to/publish-through-an-outbox.md and Debezium's documentation of its outbox event router.
PLAIN_TABLE = """
create table outbox (
    id uuid not null primary key,
    aggregatetype character varying(255) not null,
    aggregateid character varying(255) not null,
    type character varying(255) not null,
    payload jsonb
)
"""
PUBLICATION = "create publication outbox for table outbox with (publish = 'insert')"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Balance", FIELDS, ["account"])


@pytest.fixture(scope="module")
def shared(server: Postgres) -> Iterator[Database]:
    made = Database(server)
    made.connection.prepare_threshold = None  # tables are made anew under its statements
    yield made
    made.close()


@pytest.fixture
def database(shared: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """With an empty outbox of Debezium's kind, and nothing else."""
    monkeypatch.setattr(puller, "HEARTBEAT_S", 0.05)
    shared.run("drop publication if exists outbox")
    shared.run("drop schema public cascade")
    shared.run("create schema public")
    shared.run(PLAIN_TABLE)
    shared.run(PUBLICATION)
    yield shared
    shared.drop_slot()


@pytest.fixture
def numbered(database: Database) -> Database:
    """With the table that our documentation has."""
    database.run("drop table outbox")
    database.run(TABLE)
    database.run("alter publication outbox add table outbox")
    return database


@pytest.fixture
def publishing(database: Database, kind: type[Any]) -> Iterator[Publishing]:
    made = publishing_by_capture(database, kind)
    yield made
    made.close()


def publishing_by_capture(database: Database, kind: type[Any], **more: Any) -> Publishing:
    return Publishing(
        database, kind, read_by="capture", publication="outbox", slot=f"s_{database.name}", **more
    )  # fmt: skip


def begin(publishing: Publishing, **more: Any) -> Any:
    """A worker that streams: what is written from now on comes from the log."""
    worker = publishing.worker(**more)
    publishing.publish(worker, lambda: streams(publishing))
    return worker


def streams(publishing: Publishing) -> bool:
    query = "select 1 from pg_replication_slots where slot_name = %s and active"
    return bool(publishing.database.run(query, f"s_{publishing.database.name}"))


def count(publishing: Publishing) -> int:
    return int(publishing.database.run("select count(*) from outbox")[0][0])


def empty(publishing: Publishing, worker: Any, events: int) -> None:
    """Turns until so many events are published and their rows are gone."""
    publishing.publish(worker, lambda: len(publishing.published()) >= events and count(publishing) == 0)


# Debezium's table


def test_rows_come_as_they_were_committed_and_are_deleted_then(publishing: Publishing) -> None:
    worker = begin(publishing)
    late, early = publishing.connect(), publishing.connect()
    publishing.put(late, "a", 1)
    publishing.put(early, "b", 1)
    early.commit()
    publishing.publish(worker, lambda: publishing.published() == [("b", 1)])  # an open transaction holds up nobody
    undone = publishing.connect()
    publishing.put(undone, "c", 1)
    undone.rollback()
    late.commit()
    empty(publishing, worker, 2)
    assert publishing.published() == [("b", 1), ("a", 1)]


def test_a_row_that_is_deleted_where_it_was_written_is_published(publishing: Publishing) -> None:
    """As Debezium's documentation advises: the table never holds anything."""
    worker = begin(publishing)
    connection = publishing.connect()
    for version in (1, 2):
        publishing.put(connection, "a", version)
        connection.execute("delete from outbox")
        connection.commit()
    empty(publishing, worker, 2)
    assert publishing.published() == [("a", 1), ("a", 2)]


def test_ids_times_and_tombstones(publishing: Publishing) -> None:
    worker = begin(publishing)
    connection = publishing.connect()
    event_id = publishing.outbox.put(connection, publishing.kind(account="a", version=1))
    publishing.outbox.delete(connection, publishing.kind, {"account": "a"})
    connection.commit()
    name = contract_of(publishing.kind).name
    publishing.database.run("insert into outbox values (gen_random_uuid(), 'balance', 'b', %s, null)", name)
    publishing.publish(worker, lambda: len(publishing.ids()) == 3 and count(publishing) == 0)
    records = publishing.read(contract_of(publishing.kind).topic)
    assert publishing.ids()[0] == str(event_id).encode()
    assert [record.value is None for record in records] == [False, True, True]
    assert [record.key for record in records] == [b"default/a", b"default/a", b"default/b"]


@pytest.mark.parametrize("payload", ["json", "text", "bytea"])
def test_payloads_of_any_column_and_a_time_of_its_own(publishing: Publishing, payload: str) -> None:
    run = publishing.database.run
    run("alter table outbox drop column payload")
    run(f"alter table outbox add column payload {payload}, add column created_at timestamptz, add column trace text")
    worker = begin(publishing)
    value = "convert_to(%s, 'UTF8')" if payload == "bytea" else f"%s::{payload}"
    run(
        f"insert into outbox (id, aggregatetype, aggregateid, type, payload, created_at) values "
        f"(gen_random_uuid(), 'balance', 'é', %s, {value}, '2026-02-03 04:05:06.7+00')",
        contract_of(publishing.kind).name,
        '{"account": "é", "version": 1}',
    )
    empty(publishing, worker, 1)
    assert publishing.published() == [("é", 1)]
    headers = dict(publishing.read(contract_of(publishing.kind).topic)[0].headers)
    assert (headers["ce_time"] or b"").startswith(b"2026-02-03T04:05:06.7")


def test_a_changed_row_publishes_nothing_and_is_told_of_once(publishing: Publishing) -> None:
    publishing.database.run("alter publication outbox set (publish = 'insert, update, delete, truncate')")
    worker = begin(publishing)
    connection = publishing.connect()
    with capture_logs() as logs:
        publishing.put(connection, "a", 1)
        connection.execute("update outbox set aggregatetype = 'other'")
        connection.execute("update outbox set aggregatetype = 'third'")
        connection.execute("truncate outbox")
        connection.commit()
        empty(publishing, worker, 1)
    assert publishing.published() == [("a", 1)]
    assert [log["event"] for log in logs if "changed" in log["event"]] == [
        "a row of the outbox was changed, which publishes nothing"
    ]


def test_rows_that_do_not_convert_are_kept_raw_and_their_aggregate_waits(publishing: Publishing) -> None:
    worker = begin(publishing)
    connection = publishing.connect()
    connection.execute("insert into outbox values (gen_random_uuid(), 'x', 'a', 'unknown', '{}')")
    connection.execute("insert into outbox values (gen_random_uuid(), 'x', 'a', 'unknown', '{}')")
    publishing.put(connection, "b", 1)
    connection.commit()
    empty(publishing, worker, 1)
    assert worker.counts.by_outcome[Outcome.DIVERTED] == 2
    assert len(publishing.read(publishing.source.raw_topic)) == 2


# Exactly once, whoever dies


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(
    numbered: Database, kind: type[Any], step: str, after: int
) -> None:
    """The first rows are there before the slot is."""
    publishing = publishing_by_capture(numbered, kind)
    expected = [(f"k{number % 3}", number) for number in range(16)]
    connection = publishing.connect()
    for account, version in expected[:8]:
        publishing.put(connection, account, version)
    connection.commit()
    if step == "begin":
        after = 0
    worker = publishing.worker(max_records=3)
    with crashing(publishing.source, step, after), pytest.raises(Crash):
        publishing.publish(worker, lambda: False)
    die(worker)
    for account, version in expected[8:]:
        publishing.put(connection, account, version)
        connection.commit()
    successor = publishing.worker(max_records=4)
    empty(publishing, successor, 16)
    assert publishing.published() == expected
    assert len(set(publishing.ids())) == 16
    publishing.close()


def test_a_row_is_there_until_its_event_is(publishing: Publishing) -> None:
    worker = begin(publishing)
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    with crashing(publishing.source, "confirm", armed=lambda: bool(publishing.published())), pytest.raises(Crash):
        publishing.publish(worker, lambda: False)
    assert count(publishing) == 1
    die(worker)
    successor = publishing.worker()
    empty(publishing, successor, 1)
    assert publishing.published() == [("a", 1)]


def test_a_row_that_is_listed_and_not_published_yet_is_not_deleted(publishing: Publishing) -> None:
    """The list is made between two pulls, and the log is behind."""
    worker = begin(publishing, max_records=1)
    connection = publishing.connect()
    for version in range(20):
        publishing.put(connection, "a", version)
        connection.commit()
    seen = 0
    while seen < 20:
        worker.turn(publishing.stop)
        published = len(publishing.published())
        assert count(publishing) >= 20 - published
        seen = published
    empty(publishing, worker, 20)


def test_writers_that_commit_late_and_readers_that_die_publish_every_row_once_and_in_order(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PRUNE_ROWS", 7)
    publishing.database.run("create table account (name text primary key, version bigint not null)")
    publishing.database.run("insert into account select unnest(string_to_array('a,b,c,d,e,f', ',')), 0")
    die(begin(publishing))
    finished = [threading.Event() for _ in range(4)]
    threads = [
        threading.Thread(target=write_at_random, args=(publishing, seed, 90, done), daemon=True)
        for seed, done in enumerate(finished)
    ]
    for thread in threads:
        thread.start()
    dice, crashes = random.Random(7), 0

    def is_done() -> bool:
        return all(done.is_set() for done in finished) and count(publishing) == 0

    while not is_done():
        worker = publishing.worker(max_records=dice.choice([1, 3, 50]))
        step = dice.choice(STEPS[1:])
        try:
            with crashing(publishing.source, step, dice.randint(0, 8), progress_of(worker)):
                publishing.publish(worker, is_done)
        except Crash:
            crashes += 1
        die(worker)
    for thread in threads:
        thread.join(30)
    versions = dict(publishing.database.run("select name, version from account"))
    assert by_account(publishing.published()) == {name: list(range(1, last + 1)) for name, last in versions.items()}
    assert len(set(publishing.ids())) == sum(versions.values())
    assert crashes > 3


# What is there when the slot is made


def test_what_is_there_comes_first_in_the_order_of_its_numbers(numbered: Database, kind: type[Any]) -> None:
    publishing = publishing_by_capture(numbered, kind)
    old, young = publishing.connect(), publishing.connect()
    old.execute("select pg_current_xact_id()")
    publishing.put(young, "a", 1)
    young.commit()
    publishing.put(old, "a", 2)
    publishing.put(old, "b", 1)
    old.commit()
    worker = publishing.worker(max_records=2)
    worker.turn(publishing.stop)
    publishing.publish(worker, lambda: len(publishing.published()) == 2)
    publishing.put(young, "a", 3)
    young.commit()
    empty(publishing, worker, 4)
    assert publishing.published() == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
    publishing.close()


def test_rows_without_an_order_are_refused_and_leave_no_slot(publishing: Publishing) -> None:
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    worker = publishing.worker()
    with pytest.raises(UsageError, match="in which order they came") as caught:
        publishing.publish(worker, lambda: False)
    assert "seq and xid" in caught.value.hint
    slots = "select 1 from pg_replication_slots where database = %s"
    assert publishing.database.run(slots, publishing.database.name) == []
    die(worker)
    publishing.database.run("delete from outbox")
    worker = begin(publishing)
    publishing.put(connection, "a", 2)
    connection.commit()
    empty(publishing, worker, 1)
    assert publishing.published() == [("a", 2)]


def test_a_slot_waits_for_an_open_transaction_and_says_so(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_one = publishing.connect()
    open_one.execute("select pg_current_xact_id()")
    publishing.put(open_one, "a", 1)
    worker = publishing.worker()
    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(replication, "CREATE_SLOT_TIMEOUT_S", 0.2)
        publishing.turns(worker, 2)
    assert "a transaction is open" in next(log["error"] for log in logs if log["event"].startswith("paused"))
    open_one.execute("delete from outbox")
    open_one.commit()
    publishing.publish(worker, lambda: streams(publishing))
    publishing.put(open_one, "a", 2)
    open_one.commit()
    publishing.publish(worker, lambda: publishing.published() == [("a", 2)])


def test_rows_of_another_time_are_refused(numbered: Database, kind: type[Any]) -> None:
    """Restored with their old transaction ids: they would be deleted unread."""
    publishing = publishing_by_capture(numbered, kind)
    numbered.run(
        "insert into outbox (id, aggregatetype, aggregateid, type, xid) values "
        "(gen_random_uuid(), 'x', 'a', 'x', '999999999')"
    )
    with pytest.raises(UsageError, match="not that of the transaction"):
        publishing.publish(publishing.worker(), lambda: False)
    assert count(publishing) == 1
    publishing.close()


def test_a_slot_that_is_somebody_elses_is_left_alone_until_it_is_asked_for(publishing: Publishing) -> None:
    run, slot = publishing.database.run, f"s_{publishing.database.name}"
    run("select pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    worker = publishing.worker()
    with pytest.raises(UsageError, match="which this source did not make"):
        publishing.publish(worker, lambda: False)
    worker.close()
    restart_source(publishing.source, publishing.broker)
    worker = begin(publishing)
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    empty(publishing, worker, 1)


# What has to be so


def test_a_slot_that_was_made_again_stops(publishing: Publishing) -> None:
    worker = begin(publishing)
    publishing.turns(worker)
    die(worker)
    publishing.database.drop_slot()
    publishing.database.run("insert into outbox values (gen_random_uuid(), 'x', 'a', 'x', '{}')")
    publishing.database.run(
        "select pg_create_logical_replication_slot(%s, 'pgoutput')", f"s_{publishing.database.name}"
    )
    worker = publishing.worker()
    with pytest.raises(PositionLostError, match="was recreated"):
        publishing.publish(worker, lambda: False)
    assert count(publishing) == 1


def test_a_position_of_the_other_way_of_reading_is_not_gone_on_with(numbered: Database, kind: type[Any]) -> None:
    polling, capturing = Publishing(numbered, kind), publishing_by_capture(numbered, kind)
    capturing.broker = polling.broker
    connection = polling.connect()
    polling.put(connection, "a", 1)
    connection.commit()
    worker = polling.worker()
    polling.publish(worker)
    worker.close()
    worker = capturing.worker()
    with pytest.raises(FormatError) as caught:
        capturing.publish(worker, lambda: False)
    assert "read_by=" in caught.value.hint
    worker.close()
    restart_source(capturing.source, capturing.broker)
    polling.put(connection, "a", 2)
    connection.commit()
    worker = capturing.worker()
    empty(capturing, worker, 2)
    assert capturing.published() == [("a", 1), ("a", 2)]
    worker.close()
    polling_again = polling.worker()
    with pytest.raises(FormatError) as caught:
        polling.publish(polling_again, lambda: False)
    assert "read_by=" in caught.value.hint
    polling.close()
    capturing.close()


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        ("drop publication outbox", "is not in a publication outbox"),
        ("alter publication outbox drop table outbox", "is not in a publication outbox"),
        ("alter publication outbox set (publish = 'update')", "leaves inserts out"),
        ("alter table outbox drop constraint outbox_pkey", "has no primary key"),
        ("alter publication outbox set table outbox (id, type)", "leaves out aggregatetype, aggregateid, payload"),
        ("alter publication outbox set table outbox where (type <> 'x')", "leaves rows of public.outbox out"),
        ("alter table outbox drop column type", "no column type"),
        (
            "drop table outbox; create table outbox (id uuid primary key, aggregatetype text, aggregateid text, "
            "type text, payload json) partition by hash (id); alter publication outbox add table outbox",
            "is partitioned",
        ),
    ],
)
def test_what_would_be_deleted_unread_or_never_read_is_refused(
    publishing: Publishing, statements: str, told: str
) -> None:
    for statement in statements.split("; "):
        publishing.database.run(statement)
    found = [(message, run) for message, run in publishing.source.findings() if told in message]
    assert len(found) == 1
    with pytest.raises(UsageError, match=told):
        publishing.publish(publishing.worker(), lambda: False)
    ((_, remedy),) = found
    if remedy.startswith(("create ", "alter publication")):
        publishing.database.run(remedy)
        assert not [message for message, _ in publishing.source.findings() if told in message]


def test_a_publication_that_changes_while_it_runs_stops(publishing: Publishing) -> None:
    worker = begin(publishing)
    publishing.turns(worker)
    publishing.database.run("alter publication outbox set (publish = 'insert, update')")

    def stopped() -> bool:
        try:
            worker.turn(publishing.stop)
        except PositionLostError:
            return True
        return False

    eventually(stopped, "it stops")


def test_a_row_that_was_not_published_is_not_deleted(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publication is changed between two looks at it."""
    monkeypatch.setattr(puller.CapturePuller, "_look", lambda _: None)
    worker = begin(publishing)
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    publishing.publish(worker, lambda: publishing.published() == [("a", 1)])
    publishing.database.run("alter publication outbox drop table outbox")
    publishing.put(connection, "a", 2)
    connection.commit()
    with pytest.raises(PositionLostError, match="no more in the publication"):
        publishing.publish(worker, lambda: False)
    assert [account for (account,) in publishing.database.run("select payload->>'version' from outbox")][-1] == "2"


def test_a_declaration_that_cannot_be_right_is_refused(database: Database, kind: type[Any]) -> None:
    def declared(**more: Any) -> OutboxSource:
        return OutboxSource("bank", dsn=database.secret, emits=kind, owner="tests", **more)

    with pytest.raises(UsageError, match="needs publication= and slot="):
        declared(read_by="capture")
    with pytest.raises(UsageError, match="needs publication= and slot="):
        declared(read_by="capture", publication="outbox", slot="Not One")
    with pytest.raises(UsageError, match="of a capture, and it polls"):
        declared(publication="outbox")
    with pytest.raises(UsageError, match="none of polling, capture"):
        declared(read_by="magic")


def test_its_position_is_plain_json(publishing: Publishing) -> None:
    worker = begin(publishing)
    publishing.turns(worker)
    (*_, record) = publishing.read(publishing.source.position_topic)
    position = json.loads(record.value or b"")["position"]
    assert position["backlog"] is None
    assert position["capture"]["slot"][3] == f"s_{publishing.database.name}"
