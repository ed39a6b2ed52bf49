"""Snapshots while the table changes: read in chunks, merged with the stream, resumed, asked for again."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
import pytest
from postgres_source_harness import Capture, Database, contract_type, eventually, running_postgres

from heddle.local.postgres import Postgres
from heddle.sources.postgres import Table, puller, window
from heddle.sources.postgres.session import Session
from heddle.sources.postgres.window import Streamed, emit, prefix_of

pytestmark = pytest.mark.stack

FIELDS: list[dict[str, Any]] = [
    {"name": "shop", "type": "string", "doc": "Key."},
    {"name": "number", "type": "long", "doc": "Key."},
    {"name": "version", "type": "long", "doc": "Rises with every change."},
]
ROWS = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Order", FIELDS, ["shop", "number"])


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    made = Database(server)
    # The index has another order of columns than the table.
    made.run("create table ord (number bigint, shop text, version bigint not null, primary key (shop, number))")
    made.run("insert into ord select n, 's' || n %% 3, 0 from generate_series(1, %s) n", ROWS)
    made.publish()
    yield made
    made.close()


@pytest.fixture
def capture(database: Database, order: type[Any]) -> Iterator[Capture]:
    made = Capture(database.source(Table("public.ord", emits=order)))
    yield made
    made.crash()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "CHUNK_ROWS", 20)


@contextmanager
def changing(database: Database, seed: int) -> Iterator[None]:
    """Random transactions all the while. A row's version counts on for ever, also through its deletion."""
    stop = threading.Event()

    def change() -> None:
        chance, version = random.Random(seed), 0
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            while not stop.is_set():
                with connection.transaction(force_rollback=chance.random() < 0.1):
                    for _ in range(chance.randrange(1, 4)):
                        version += 1
                        number = chance.randrange(1, ROWS + 30)
                        row = (number, f"s{number % 3}", version)
                        if chance.random() < 0.3:
                            connection.execute("delete from ord where number = %s and shop = %s", row[:2])
                        else:
                            connection.execute(
                                "insert into ord values (%s, %s, %s) on conflict (shop, number) "
                                "do update set version = excluded.version",
                                row,
                            )

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def in_order(capture: Capture) -> None:
    """No row's version ever falls. A tombstone has none, and what comes after it is newer than what was before."""
    newest: dict[tuple[str, int], int] = {}
    for draft in capture.drafts:
        if not draft.deletes:
            key = (draft.value.shop, draft.value.number)
            assert draft.value.version >= newest.get(key, 0), f"{key} goes back"
            newest[key] = draft.value.version


def same(capture: Capture, database: Database, order: type[Any]) -> None:
    held = {(v.shop, v.number): v.version for v in capture.state(order).values()}
    assert held == {(s, n): v for s, n, v in database.run("select shop, number, version from ord")}


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_under_change_loses_nothing_and_reorders_nothing(
    database: Database, capture: Capture, order: type[Any], seed: int
) -> None:
    chance = random.Random(seed)
    capture.batch = 17
    with changing(database, seed):
        for turn in range(150):
            before, drafts = capture.position, len(capture.drafts)
            told = chance.random() < 0.5
            capture.once(tell=told)
            if turn % 25 == 24:
                capture.crash()
                if not told:  # the last pull's transaction did not commit
                    capture.position = before
                    del capture.drafts[drafts:]
            if turn == 75:
                ask(database, "again")
    capture.drain(database)
    same(capture, database, order)
    in_order(capture)
    ids = capture.ids()
    assert len(set(ids)) == len(ids)
    assert not capture.failures


def ask(database: Database, snapshot: str) -> None:
    session = Session("tests", database.secret)
    emit(session, prefix_of(f"s_{database.name}"), {"snapshot": snapshot, "table": "public.ord"})
    session.close()


def test_a_table_is_read_again_when_asked_once_for_each_asking(
    database: Database, capture: Capture, order: type[Any]
) -> None:
    capture.drain(database)
    first = set(capture.ids())
    assert len(first) == ROWS
    ask(database, "one")
    ask(database, "one")
    capture.drain(database)
    second = set(capture.ids()) - first
    assert len(second) == ROWS
    assert len(capture.drafts) == 2 * ROWS
    same(capture, database, order)


def test_a_snapshot_goes_on_behind_its_last_chunk(database: Database, capture: Capture) -> None:
    eventually(lambda: capture.once() and len(capture.drafts) >= 100, "some chunks")
    capture.crash()
    snapshots = orjson.loads(capture.position or b"")["snapshots"]
    assert [each[:2] for each in snapshots] == [["initial", "public.ord"]]
    assert snapshots[0][2] is not None
    capture.drain(database)
    assert len(capture.drafts) == ROWS


def test_a_table_that_is_declared_later_is_read_then(database: Database, capture: Capture, order: type[Any]) -> None:
    database.run("create table late (number bigint, shop text, version bigint not null, primary key (shop, number))")
    database.run("insert into late values (1, 'late', 1)")
    capture.drain(database)
    capture.crash()
    capture.source = database.source(Table("public.ord", emits=order), Table("public.late", emits=order))
    capture.drain(database)
    assert len(capture.drafts) == ROWS + 1
    assert capture.drafts[-1].value.shop == "late"


@contextmanager
def hanging_commit(database: Database) -> Iterator[None]:
    """A commit of row 3 that is in the log, and that nobody sees yet: it waits for a standby that never comes."""
    done = threading.Event()

    def change() -> None:
        with psycopg.connect(database.dsn, autocommit=True, application_name="hanging") as connection:
            version = 1000
            while not done.is_set():  # until the server has taken its new setting in
                version += 1
                connection.execute("update ord set version = %s where number = 3", (version,))

    database.run("alter system set synchronous_standby_names = 'nobody'")
    database.run("select pg_reload_conf()")
    thread = threading.Thread(target=change)
    thread.start()
    try:
        query = "select 1 from pg_stat_activity where application_name = 'hanging' and wait_event = 'SyncRep'"
        eventually(lambda: bool(database.run(query)), "the commit hangs")
        yield
    finally:
        done.set()
        database.run("alter system reset synchronous_standby_names")
        database.run("select pg_reload_conf()")
        thread.join()


def test_a_chunk_that_does_not_see_a_streamed_commit_is_read_again(
    database: Database, capture: Capture, order: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL logs a commit before others see it. A row as it was before would come behind it."""
    monkeypatch.setenv(database.secret.environment_name, f"{database.dsn}?options=-csynchronous_commit%3Dlocal")
    database.run("set synchronous_commit = local")
    capture.drain(database)
    with hanging_commit(database):
        ((visible,),) = database.run("select version from ord where number = 3")
        eventually(
            lambda: not capture.once() and max(draft.value.version for draft in capture.drafts) > visible,
            "the commit is streamed",
        )
        ask(database, "again")
        for _ in range(30):
            capture.once()
        in_order(capture)
    capture.drain(database)
    in_order(capture)
    same(capture, database, order)


def meanwhile(patch: pytest.MonkeyPatch, database: Database, *statements: str) -> None:
    """Run once, when a chunk was read and its high mark is still to be written."""
    waiting = list(statements)

    def emitting(session: Session, prefix: str, content: dict[str, object]) -> int:
        while waiting and content.get("end") == "high":
            database.run(waiting.pop(0))
        return emit(session, prefix, content)

    patch.setattr(window, "emit", emitting)


def test_a_row_whose_own_key_changes_under_a_chunk_does_not_come_back(
    database: Database, order: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key in the contract stays, so no tombstone of the old one follows."""
    database.run("alter table ord drop constraint ord_pkey, add column id serial primary key, replica identity full")
    capture = Capture(database.source(Table("public.ord", emits=order)))
    meanwhile(monkeypatch, database, "update ord set id = id + 1000, version = 1 where id = 3")
    capture.drain(database)
    capture.crash()
    in_order(capture)
    same(capture, database, order)


def test_a_chunk_is_read_again_when_the_tables_key_changes_under_it(
    database: Database, capture: Capture, order: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(
        monkeypatch, database, "alter table ord drop constraint ord_pkey, add primary key (number, shop)",
        "update ord set version = 1 where number = 3",
    )  # fmt: skip
    capture.drain(database)
    in_order(capture)
    same(capture, database, order)


def test_rows_that_are_truncated_under_a_chunk_do_not_come_back(
    database: Database, order: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = Capture(database.source(Table("public.ord", emits=order, truncates="ignore")))
    meanwhile(monkeypatch, database, "truncate ord")
    capture.drain(database)
    capture.crash()
    assert capture.drafts == []


def test_a_large_part_of_a_key_that_an_update_left_alone_is_taken_from_the_old_key(
    database: Database, capture: Capture, order: type[Any]
) -> None:
    database.run("alter table ord alter column shop set storage external")
    database.run("insert into ord values (1000, repeat('s', 2500), 0)")
    capture.drain(database)
    database.run("update ord set number = 1001, version = 1 where number = 1000")
    capture.drain(database)
    assert capture.failures == []
    same(capture, database, order)


def test_transactions_in_progress_are_recognised_by_their_short_id() -> None:
    streamed = Streamed()
    streamed.add(7)
    assert streamed.holds_any("5:9:6,7")
    assert streamed.holds_any(f"5:9:{(3 << 32) + 7}")
    assert not streamed.holds_any("5:9:6,8")
    assert not streamed.holds_any("9:9:")


def test_what_others_write_into_the_log_is_passed_over(database: Database, capture: Capture) -> None:
    prefix = prefix_of(capture.source.slot)
    wrong = {"snapshot": 1, "table": "public.ord"}, {"snapshot": "x", "table": "unknown"}, {"mark": "x", "end": "low"}
    ours = [orjson.dumps({"v": 1, **content}).decode() for content in wrong]
    for content in ("no json", "[]", '{"v": 2}', *ours):
        for transactional in ("true", "false"):
            database.run(f"select pg_logical_emit_message({transactional}, %s, %s)", prefix, content)
    capture.drain(database)
    assert len(capture.drafts) == ROWS


def test_a_row_filter_holds_for_snapshots_too(database: Database, order: type[Any]) -> None:
    database.run("drop publication crm")
    database.publish("for table ord where (shop = 's1')")
    capture = Capture(database.source(Table("public.ord", emits=order)))
    capture.drain(database)
    capture.crash()
    assert len(capture.drafts) == ROWS // 3
    assert {draft.value.shop for draft in capture.drafts} == {"s1"}
