"""The outbox against a real PostgreSQL: what obvious ways lose or turn round, and that ours does neither."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
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
from postgres_source_harness import Database, contract_type, running_postgres
from structlog.testing import capture_logs

from heddle.broker.log import Outgoing
from heddle.contracts import contract_of
from heddle.delivery.pull import packed_position
from heddle.errors import PositionLostError, UsageError
from heddle.integration import Outcome
from heddle.local.postgres import Postgres
from heddle.operations.restart import restart_source
from heddle.secrets import secret
from heddle.sources.outbox import puller
from heddle.sources.outbox.position import Position

pytestmark = pytest.mark.stack

STEPS = ["pull", "pulled", "convert", "commit", "confirm", "confirmed"]


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
def database(shared: Database) -> Database:
    """With an empty outbox, and nothing else."""
    shared.run("drop schema public cascade")
    shared.run("create schema public")
    shared.run(TABLE)
    return shared


@pytest.fixture
def publishing(database: Database, kind: type[Any]) -> Iterator[Publishing]:
    made = Publishing(database, kind)
    yield made
    made.close()


def begun(publishing: Publishing) -> psycopg.Connection[Any]:
    """A connection whose transaction has its id."""
    connection = publishing.connect()
    connection.execute("select pg_current_xact_id()")
    return connection


# Why it is read as it is


def test_reading_behind_the_last_number_loses_what_commits_late_and_the_window_does_not(publishing: Publishing) -> None:
    late, early = publishing.connect(), publishing.connect()
    publishing.put(late, "a", 1)
    publishing.put(early, "b", 1)
    early.commit()
    worker = publishing.worker()
    publishing.turns(worker)
    behind_last = "select aggregateid from outbox where seq > %s"
    assert publishing.database.run(behind_last, 0) == [("default/b",)]
    late.commit()
    assert publishing.database.run(behind_last, 2) == []  # who had read number 2 never sees number 1
    publishing.publish(worker)
    assert sorted(publishing.published()) == [("a", 1), ("b", 1)]


def test_the_bound_of_ended_transactions_alone_turns_changes_round_and_lowering_it_does_not(
    publishing: Publishing,
) -> None:
    old = begun(publishing)
    open_between = begun(publishing)
    young = begun(publishing)
    publishing.put(young, "a", 1)
    young.commit()
    publishing.put(old, "a", 2)
    publishing.put(old, "b", 1)
    old.commit()
    ended = publishing.database.run(
        "select payload->>'version' from outbox where xid < pg_snapshot_xmin(pg_current_snapshot()) "
        "and aggregateid = 'default/a'"
    )
    assert ended == [("2",)]  # complete as a window, and yet version 1 would come after version 2
    worker = publishing.worker()
    publishing.turns(worker)
    assert publishing.published() == []
    open_between.rollback()
    publishing.publish(worker)
    assert by_account(publishing.published()) == {"a": [1, 2], "b": [1]}


def test_the_bound_is_lowered_until_no_split_is_left(publishing: Publishing) -> None:
    """Lowering it for one aggregate can split another one."""
    first, second, open_between, third = (begun(publishing) for _ in range(4))
    publishing.put(third, "a", 1)
    third.commit()
    publishing.put(second, "b", 1)
    publishing.put(second, "a", 2)
    second.commit()
    publishing.put(first, "b", 2)
    first.commit()
    worker = publishing.worker()
    publishing.turns(worker)
    assert publishing.published() == []
    open_between.commit()
    publishing.publish(worker)
    assert by_account(publishing.published()) == {"a": [1, 2], "b": [1, 2]}


def test_rows_without_an_aggregates_type_are_of_one_aggregate_as_others_are(publishing: Publishing) -> None:
    """Their key is the same, so their order has to be kept."""
    publishing.database.run("alter table outbox alter column aggregatetype drop not null")
    old, open_between, young = (begun(publishing) for _ in range(3))
    for writer, version in ((young, 1), (old, 2)):
        publishing.put(writer, "a", version)
        writer.execute("update outbox set aggregatetype = null where xid = pg_current_xact_id()")
        writer.commit()
    worker = publishing.worker()
    publishing.turns(worker)
    open_between.rollback()
    publishing.publish(worker)
    assert publishing.published() == [("a", 1), ("a", 2)]


def test_what_is_before_a_split_is_not_held_back(publishing: Publishing) -> None:
    settled = publishing.connect()
    publishing.put(settled, "c", 1)
    settled.commit()
    old, open_between, young = (begun(publishing) for _ in range(3))
    publishing.put(young, "a", 1)
    young.commit()
    publishing.put(old, "a", 2)
    old.commit()
    worker = publishing.worker()
    publishing.publish(worker, lambda: publishing.published() == [("c", 1)])
    open_between.commit()
    publishing.publish(worker)
    assert publishing.published() == [("c", 1), ("a", 1), ("a", 2)]


def test_a_later_change_does_not_hold_back_the_one_before_it(publishing: Publishing) -> None:
    early = publishing.connect()
    publishing.put(early, "a", 1)
    early.commit()
    open_between, late = begun(publishing), begun(publishing)
    publishing.put(late, "a", 2)
    late.commit()
    worker = publishing.worker()
    publishing.publish(worker, lambda: publishing.published() == [("a", 1)])
    open_between.commit()
    publishing.publish(worker)
    assert publishing.published() == [("a", 1), ("a", 2)]


def test_rows_that_wait_for_an_open_transaction_are_told_of(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller, "STALLED_S", 0.0)
    blocking, connection = begun(publishing), publishing.connect()
    worker = publishing.worker()
    with capture_logs() as logs:
        publishing.turns(worker)
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    publishing.put(connection, "a", 1)
    connection.commit()
    with capture_logs() as logs:
        publishing.turns(worker)
    (warning, *_) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert str(blocking.info.backend_pid) in warning["oldest"][0]
    blocking.rollback()


def test_inside_a_window_rows_go_by_number_and_not_by_transaction(publishing: Publishing) -> None:
    old, young = begun(publishing), begun(publishing)
    publishing.put(young, "a", 1)
    young.commit()
    publishing.put(old, "a", 2)
    old.commit()
    by_transaction = publishing.database.run("select payload->>'version' from outbox order by xid, seq")
    assert by_transaction == [("2",), ("1",)]
    publishing.publish(publishing.worker())
    assert publishing.published() == [("a", 1), ("a", 2)]


def test_what_was_rolled_back_is_not_published(publishing: Publishing) -> None:
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.rollback()
    publishing.put(connection, "a", 2)
    with connection.transaction(force_rollback=True):
        publishing.put(connection, "a", 3)
    publishing.put(connection, "a", 4)
    connection.commit()
    publishing.publish(publishing.worker())
    assert publishing.published() == [("a", 2), ("a", 4)]


# Exactly once, whoever dies


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(
    publishing: Publishing, step: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [(f"k{number % 3}", number) for number in range(10)]
    connection = publishing.connect()
    for account, version in expected:
        publishing.put(connection, account, version)
        connection.commit()
    worker = publishing.worker(max_records=3)
    with crashing(publishing.source, step, after), monkeypatch.context() as patched:
        if step == "convert":
            drafts, event = worker._drafts, worker._drafts.event
            patched.setattr(drafts, "event", lambda *a: (publishing.source.hook("convert"), event(*a))[1])
        if step == "commit":
            send = worker._producer.send_offsets
            patched.setattr(
                worker._producer, "send_offsets", lambda *a: (publishing.source.hook("commit"), send(*a))[1]
            )
        with pytest.raises(Crash):
            publishing.publish(worker)
    die(worker)
    successor = publishing.worker(max_records=4)
    publishing.publish(successor)
    publishing.turns(successor)
    assert publishing.published() == expected
    assert len(set(publishing.ids())) == 10


def test_rows_are_there_until_their_events_are_and_a_successor_deletes_what_a_dead_leader_left(
    publishing: Publishing,
) -> None:
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    worker = publishing.worker()
    with crashing(publishing.source, "confirm"), pytest.raises(Crash):
        publishing.publish(worker)
    assert publishing.published() == [("a", 1)]
    assert len(publishing.rows()) == 1
    worker.abandon()
    successor = publishing.worker()
    publishing.publish(successor)
    assert publishing.published() == [("a", 1)]


def test_more_rows_than_one_statement_deletes(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "PRUNE_ROWS", 3)
    connection = publishing.connect()
    for version in range(10):
        publishing.put(connection, "a", version)
    connection.commit()
    publishing.publish(publishing.worker())
    assert publishing.published() == [("a", version) for version in range(10)]


def test_a_window_that_is_half_done_is_gone_on_with_while_others_write(publishing: Publishing) -> None:
    connection = publishing.connect()
    for version in range(5):
        publishing.put(connection, "a", version)
    connection.commit()
    worker = publishing.worker(max_records=2)
    publishing.publish(worker, lambda: len(publishing.published()) == 2)
    worker.close()
    publishing.put(connection, "a", 5)
    connection.commit()
    publishing.publish(publishing.worker("1", max_records=2))
    assert publishing.published() == [("a", version) for version in range(6)]


def test_writers_that_commit_late_and_out_of_order_and_readers_that_die_publish_every_row_once_and_in_order(
    publishing: Publishing,
) -> None:
    publishing.database.run("create table account (name text primary key, version bigint not null)")
    publishing.database.run("insert into account select unnest(string_to_array('a,b,c,d,e,f', ',')), 0")
    finished = [threading.Event() for _ in range(5)]
    threads = [
        threading.Thread(target=write_at_random, args=(publishing, seed, 60, done), daemon=True)
        for seed, done in enumerate(finished)
    ]
    for thread in threads:
        thread.start()
    rng, crashes = random.Random(7), 0

    def is_done() -> bool:
        return all(done.is_set() for done in finished) and not publishing.rows()

    while not is_done():
        worker = publishing.worker(max_records=rng.choice([1, 3, 50]))
        step = rng.choice(["pull", "pulled", "confirm", "confirmed"])
        try:
            with crashing(publishing.source, step, rng.randint(0, 12), progress_of(worker)):
                publishing.publish(worker, is_done)
        except Crash:
            crashes += 1
        die(worker)
    for thread in threads:
        thread.join(30)
    versions = dict(publishing.database.run("select name, version from account"))
    assert by_account(publishing.published()) == {name: list(range(1, last + 1)) for name, last in versions.items()}
    assert len(set(publishing.ids())) == sum(versions.values())
    assert crashes > 5


# What does not convert


def test_rows_that_do_not_convert_are_kept_raw_and_their_aggregate_waits(publishing: Publishing) -> None:
    insert = (
        "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (gen_random_uuid(), %s, %s, %s, %s)"
    )
    contract = contract_of(publishing.kind).name
    name = contract.removesuffix(".v1")
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.execute(insert, (name, "default/b", contract, '{"account": "b", "version": "many"}'))
    connection.execute(insert, (name, "default/c", "Unheard", "{}"))
    connection.execute(insert, (name, "default/d", contract, "[1]"))
    publishing.put(connection, "b", 2)
    publishing.put(connection, "a", 2)
    connection.commit()
    worker = publishing.worker()
    publishing.publish(worker)
    assert publishing.published() == [("a", 1), ("a", 2)]
    assert worker.counts.by_outcome[Outcome.DIVERTED] == 4
    raw = publishing.read(publishing.source.raw_topic)
    assert len(raw) == 4
    held = list(publishing.source.convert_record(raw[3]))
    assert [(draft.value.account, draft.value.version) for draft in held] == [("b", 2)]


# Whose position it is


def lost(publishing: Publishing, match: str) -> None:
    worker = publishing.worker("9")
    with pytest.raises(PositionLostError, match=match):
        publishing.turns(worker)


def test_another_table_of_the_same_name_is_not_gone_on_with(publishing: Publishing) -> None:
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    worker = publishing.worker()
    publishing.publish(worker)
    worker.close()
    publishing.database.run("alter table outbox rename to former")
    publishing.database.run(TABLE)
    lost(publishing, "not the table that was read")
    publishing.workers[-1].close()
    publishing.put(connection, "a", 2)
    connection.commit()
    restart_source(publishing.source, publishing.broker)
    publishing.publish(publishing.worker("1"))
    assert publishing.published() == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("change", ["timeline", "ids"])
def test_after_a_failover_or_a_restore_what_the_table_holds_is_read_again(publishing: Publishing, change: str) -> None:
    """Its transaction ids may be below the bound."""
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    worker = publishing.worker()
    publishing.publish(worker)
    stored = publishing.read(publishing.source.position_topic)[-1]
    worker.close()
    assert stored.value is not None
    packed = stored.value.partition(b'"position":')[2][:-1]
    found = Position.unpack(packed)
    assert found is not None
    publishing.put(connection, "a", 2)
    connection.commit()
    ((newest,),) = publishing.database.run("select pg_snapshot_xmax(pg_current_snapshot())::text")
    if change == "timeline":
        far = Position(found.table, "0000000F", int(newest))
    else:
        far = Position(found.table, found.timeline, int(newest) + 1_000_000)
    write(publishing, packed_position(publishing.source, far.pack()))
    publishing.publish(publishing.worker("1"))
    assert publishing.published() == [("a", 1), ("a", 2)]


def write(publishing: Publishing, outgoing: Outgoing) -> None:
    producer = publishing.broker.producer("tool")
    producer.init(30)
    producer.begin()
    producer.produce([outgoing])
    producer.commit(30)
    producer.close()


# The table


DEBEZIUM = """
create table outbox (id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
                     type varchar(255) not null, payload jsonb)
"""


def test_a_table_of_debeziums_convention_says_what_it_lacks_and_serves_with_it(
    database: Database, kind: type[Any]
) -> None:
    database.run("drop table outbox")
    database.run(DEBEZIUM)
    publishing = Publishing(database, kind, types={"BalanceChanged": kind})
    insert = "insert into outbox values (gen_random_uuid(), 'balance', %s, 'BalanceChanged', %s)"
    database.run(insert, "a", '{"account": "a", "version": 1}')
    refused = publishing.worker()
    with pytest.raises(UsageError, match="no column seq") as raised:
        publishing.turns(refused)
    refused.close()
    for statement in re.findall(r"alter table [^;]*", str(raised.value)):
        database.run(statement)
    database.run(insert, "a", '{"account": "a", "version": 2}')
    database.run(insert, "b", None)
    publishing.publish(publishing.worker("1"))
    records = publishing.read(contract_of(kind).topic)
    assert [record.key for record in records] == [b"default/a", b"default/a", b"default/b"]
    assert [record.value is None for record in records] == [False, False, True]
    publishing.close()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("alter table outbox alter column xid drop default", "not the writer's transaction"),
        ("alter table outbox alter column seq set cache 20", "is cached"),
        ("alter table outbox alter column payload type xml using null", "payload is xml"),
        ("drop table outbox", "no table public.outbox"),
        ("alter table outbox alter column seq drop identity", "neither an identity"),
        ("alter table outbox drop column created_at", "no column created_at"),
    ],
)
def test_a_table_that_cannot_keep_the_promise_is_refused(publishing: Publishing, statement: str, told: str) -> None:
    publishing.database.run(statement)
    with pytest.raises(UsageError, match=told):
        publishing.turns(publishing.worker())
    assert any(re.search(told, message) for message, _ in publishing.source.findings())


def test_a_role_that_may_read_and_delete_is_enough(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    role = f"r{publishing.database.name}"
    publishing.database.run(f"create role {role} login password 'secret'")
    publishing.database.run(f"grant usage on schema public to {role}")
    publishing.database.run(f"grant select on outbox to {role}")
    publishing.source.dsn = secret(f"{role}/dsn")
    where = publishing.database.dsn.rpartition("@")[2]
    monkeypatch.setenv(publishing.source.dsn.environment_name, f"postgresql://{role}:secret@{where}")
    ((message, run),) = publishing.source.findings()
    assert message == f"{role} may not read and delete rows"
    publishing.database.run(run)
    assert publishing.source.findings() == []
    connection = publishing.connect()
    publishing.put(connection, "a", 1)
    connection.commit()
    worker = publishing.worker()
    publishing.publish(worker)
    assert publishing.published() == [("a", 1)]
    worker.close()
    publishing.database.run(f"drop owned by {role}")
    publishing.database.run(f"drop role {role}")
