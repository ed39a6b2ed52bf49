"""The PostgreSQL source against a real server: what is captured, in what order, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_source_harness import Capture, Database, contract_type, eventually, running_postgres
from structlog.testing import capture_logs

from heddle.broker.log import Record
from heddle.errors import ContractError, DependencyDownError, PositionLostError, Stop, UsageError
from heddle.local.postgres import Postgres
from heddle.sources.postgres import Table, puller, replication
from heddle.sources.postgres.position import RESTART
from heddle.sources.postgres.replication import lsn_of

pytestmark = pytest.mark.stack

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "long", "doc": "Key."},
    {"name": "name", "type": ["null", "string"], "default": None, "doc": "Name."},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    made = Database(server)
    made.run("create table item (id bigint primary key, name text)")
    made.publish()
    yield made
    made.close()


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Item", FIELDS, ["id"])


@pytest.fixture
def capture(database: Database, item: type[Any]) -> Iterator[Capture]:
    made = Capture(database.source(Table("public.item", emits=item)))
    yield made
    made.crash()


def told(capture: Capture) -> list[tuple[Any, ...]]:
    """Events as (id, name), tombstones as (id,)."""
    return [(draft.value["id"],) if draft.deletes else (draft.value.id, draft.value.name) for draft in capture.drafts]


def test_inserts_updates_deletes_and_a_key_change_come_in_order(database: Database, capture: Capture) -> None:
    capture.drain(database)
    database.run("insert into item values (1, 'a'), (2, 'b')")
    database.run("update item set name = 'c' where id = 1")
    database.run("update item set id = 3 where id = 2")
    database.run("delete from item where id = 1")
    capture.drain(database)
    assert told(capture) == [(1, "a"), (2, "b"), (1, "c"), (2,), (3, "b"), (1,)]
    assert len(set(capture.ids())) == 6
    assert not capture.failures


def test_rows_that_are_there_are_read_first_and_once(database: Database, capture: Capture) -> None:
    database.run("insert into item select n, 'row ' || n from generate_series(1, 4500) n")
    capture.drain(database)
    assert len(capture.drafts) == 4500
    assert len(set(capture.ids())) == 4500
    capture.crash()
    capture.drain(database)
    assert len(capture.drafts) == 4500


def test_a_crash_at_any_pull_loses_nothing_and_doubles_nothing(
    database: Database, capture: Capture, item: type[Any]
) -> None:
    """The worker dies after a pull whose transaction did not commit."""
    database.run("insert into item select n, 'old' from generate_series(1, 100) n")
    capture.batch = 7
    capture.once()
    with database.connection.transaction():
        database.run("update item set name = 'new ' || id where id % 2 = 0")
        database.run("delete from item where id % 10 = 0")
    for turn in range(45):
        before, drafts = capture.position, len(capture.drafts)
        capture.once(tell=False)
        if turn % 3 == 0:
            capture.position = before
            del capture.drafts[drafts:]
            capture.crash()
    capture.drain(database)
    rows = dict(database.run("select id, name from item"))
    assert {value.id: value.name for value in capture.state(item).values()} == rows
    assert len(set(capture.ids())) == len(capture.ids())


def test_a_large_transaction_is_split_and_its_place_in_it_is_kept(database: Database, capture: Capture) -> None:
    """The slot may move meanwhile, by what ended before: never past the commit of the transaction that is half done."""
    capture.drain(database)
    database.run("insert into item select n, 'x' from generate_series(1, 5000) n")
    capture.batch = 1000
    while len(capture.drafts) < 2000:
        capture.once()
    assert len(capture.drafts) == 2000
    commit, done = json.loads(capture.position or b"")["partial"]
    assert done == 2000
    assert json.loads(capture.position or b"")["lsn"] <= commit
    capture.crash()
    query = "select coalesce(active, false) from pg_replication_slots where database = %s"
    eventually(lambda: database.run(query, database.name) == [(False,)], "the server has heard all that we told it")
    ((confirmed,),) = database.run("select confirmed_flush_lsn::text from pg_replication_slots where database = %s",
                                   database.name)  # fmt: skip
    assert lsn_of(confirmed) <= commit
    capture.drain(database)
    assert [draft.value.id for draft in capture.drafts] == list(range(1, 5001))
    assert len(set(capture.ids())) == 5000


def test_the_place_in_a_large_transaction_is_kept_while_it_is_still_to_come(
    database: Database, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads a large transaction for a while before it sends it, and wants signs of life meanwhile."""
    capture.drain(database)
    database.run("insert into item select n, 'x' from generate_series(1, 3000) n")
    while len(capture.drafts) < 1000:
        capture.once()
    capture.crash()
    found = json.loads(capture.position or b"")
    wanted, read = [replication.Keepalive(found["lsn"] + 1, True)], replication.Stream.read
    monkeypatch.setattr(
        replication.Stream, "read", lambda stream, wait_s: wanted.pop() if wanted else read(stream, wait_s)
    )
    assert not capture.once()
    assert json.loads(capture.position or b"")["lsn"] == found["lsn"] + 1
    capture.crash()
    capture.drain(database)
    assert [draft.value.id for draft in capture.drafts] == list(range(1, 3001))


def test_a_sign_of_life_inside_of_a_transaction_moves_nothing(
    database: Database, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture.drain(database)
    capture.batch = 10
    database.run("insert into item select n, 'x' from generate_series(1, 30) n")
    while len(capture.drafts) < 10:
        capture.once()
    signs, read = [replication.Keepalive(2**60, False)], replication.Stream.read
    monkeypatch.setattr(
        replication.Stream, "read", lambda stream, wait_s: signs.pop() if signs else read(stream, wait_s)
    )
    capture.once()
    found = json.loads(capture.position or b"")
    assert signs == []
    assert found["lsn"] <= found["partial"][0]
    assert found["partial"][1] == 20


def test_an_unchanged_large_value_is_no_null(database: Database, capture: Capture, item: type[Any]) -> None:
    """Without the full old row that record alone fails; with it the value is there."""
    capture.drain(database)
    database.run("alter table item add column touched int, alter column name set storage external")
    database.run("insert into item values (1, repeat('x', 20000))")
    database.run("update item set touched = 1")
    capture.drain(database)
    assert [type(error) for error in capture.failures] == [ContractError]
    assert "did not touch" in str(capture.failures[0])
    with pytest.raises(ContractError, match="did not touch"):
        list(capture.source.convert_record(_raw(capture.raw[-1])))
    database.run("alter table item replica identity full")
    database.run("update item set touched = 2")
    capture.drain(database)
    assert len(capture.failures) == 1
    assert [len(name) for _, name in told(capture)] == [20000, 20000]


def test_what_was_diverted_converts_from_the_raw_topic(database: Database, capture: Capture) -> None:
    capture.drain(database)
    database.run("insert into item values (1, 'a'), (2, null)")
    database.run("update item set id = 5 where id = 1")
    capture.drain(database)
    again = [draft for raw in capture.raw for draft in capture.source.convert_record(_raw(raw))]
    assert again == capture.drafts


def test_new_columns_are_passed_over_and_a_missing_one_stops_after_what_is_good(
    database: Database, capture: Capture, item: type[Any]
) -> None:
    capture.drain(database)
    database.run("insert into item values (1, 'a')")
    database.run("alter table item add column extra int")
    database.run("insert into item values (2, 'b', 7)")
    with capture_logs() as logs:
        capture.drain(database)
        database.run("alter table item add column more int")
        database.run("insert into item values (20, 'b', 7, 8)")
        capture.drain(database)
    told_of = [log["columns"] for log in logs if log["event"] == "columns that the contract does not know"]
    assert told_of == [["extra"], ["more"]]
    database.run("delete from item where id = 20")
    database.run("alter table item drop column name")
    database.run("insert into item values (3, 8, 9)")
    with pytest.raises(UsageError, match="has no column name"):
        capture.drain(database)
    assert told(capture) == [(1, "a"), (2, "b"), (20, "b"), (20,)]
    capture.crash()
    capture.source = database.source(Table("public.item", emits=item, columns={"name": None}))
    capture.drain(database)
    assert told(capture)[4:] == [(3, None)]


def test_a_truncate_stops_each_time_until_it_is_declared(database: Database, capture: Capture, item: type[Any]) -> None:
    capture.drain(database)
    with database.connection.transaction():
        database.run("insert into item values (1, 'a')")
        database.run("truncate item")
        database.run("insert into item values (2, 'b')")
    for _ in range(2):
        with pytest.raises(Stop, match="truncated"):
            capture.drain(database)
        capture.crash()
    capture.source = database.source(Table("public.item", emits=item, truncates="ignore"))
    capture.drain(database)
    assert told(capture) == [(1, "a"), (2, "b")]


def test_a_deleted_row_may_be_an_event_or_nothing(database: Database, tmp_path: Path) -> None:
    kept = contract_type(tmp_path / "a", "Item", FIELDS, ["id"])
    gone = contract_type(tmp_path / "b", "Gone", [FIELDS[0]], ["id"])
    capture = Capture(database.source(Table("public.item", emits=kept, deletes=gone)))
    capture.drain(database)
    database.run("insert into item values (1, 'a')")
    database.run("delete from item")
    capture.drain(database)
    assert [type(draft.value).__name__ for draft in capture.drafts] == ["Item", "Gone"]
    capture.crash()
    capture.source = database.source(Table("public.item", emits=kept, deletes=None))
    database.run("insert into item values (2, 'a')")
    database.run("delete from item")
    capture.drain(database)
    assert [type(draft.value).__name__ for draft in capture.drafts] == ["Item", "Gone", "Item"]
    capture.crash()


def _lost(capture: Capture, database: Database, words: str) -> None:
    with pytest.raises(PositionLostError, match=words) as caught:
        capture.drain(database)
    assert "heddle snapshot erp --restart" in caught.value.hint
    capture.crash()


def test_a_slot_that_is_gone_or_made_again_stops(database: Database, capture: Capture) -> None:
    capture.drain(database)
    capture.crash()
    slot = capture.source.slot
    database.drop_slot()
    _lost(capture, database, "is gone")
    database.run("insert into item values (1, 'never seen')")
    database.run("select pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    _lost(capture, database, "was recreated, or somebody else reads it")
    database.drop_slot()
    database.run("select pg_create_physical_replication_slot(%s)", slot)
    _lost(capture, database, "physical replication")
    database.drop_slot()


def test_another_database_or_timeline_stops(database: Database, capture: Capture) -> None:
    capture.drain(database)
    capture.crash()
    position = capture.position or b""
    ((system,),) = database.run("select system_identifier::text from pg_control_system()")
    for old, new, words in (
        (system.encode(), b"123", "another database cluster"),
        (b'",1,"', b'",2,"', "timeline 1, no more on 2"),
        (database.name.encode() + b'","', b'elsewhere","', "it was elsewhere"),
    ):
        assert position.count(old) == 1
        capture.position = position.replace(old, new)
        _lost(capture, database, words)


def test_a_table_that_left_the_publication_for_a_while_stops(server: Postgres, item: type[Any]) -> None:
    database = Database(server)
    database.run("create table item (id bigint primary key, name text)")
    database.publish("for table item")
    capture = Capture(database.source(Table("public.item", emits=item)))
    capture.drain(database)
    capture.crash()
    database.run("alter publication crm drop table item")
    database.run("insert into item values (1, 'never seen')")
    with pytest.raises(UsageError, match="is not in the publication"):
        capture.drain(database)
    database.run("alter publication crm add table item")
    _lost(capture, database, "was changed")
    database.close()


def test_a_schema_that_left_the_publication_for_a_while_stops(server: Postgres, item: type[Any]) -> None:
    database = Database(server)
    database.run("create table item (id bigint primary key, name text)")
    database.publish("for tables in schema public")
    capture = Capture(database.source(Table("public.item", emits=item)))
    capture.drain(database)
    capture.crash()
    database.run("alter publication crm drop tables in schema public")
    database.run("insert into item values (1, 'never seen')")
    database.run("alter publication crm add tables in schema public")
    _lost(capture, database, "was changed")
    database.close()


def test_rows_that_came_under_another_name_are_the_tables(
    database: Database, capture: Capture, item: type[Any]
) -> None:
    """Nothing that could be asked later tells that a table was called otherwise for a while."""
    capture.drain(database)
    capture.crash()
    database.run("alter table item rename to thing")
    database.run("insert into thing values (1, 'meanwhile')")
    database.run("alter table thing rename to item")
    database.run("insert into item values (2, 'after')")
    capture.drain(database)
    assert told(capture) == [(1, "meanwhile"), (2, "after")]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_key_of_a_row_with_full_identity_may_be_made_of_other_columns(
    server: Postgres, item: type[Any], is_stopped: bool
) -> None:
    """The log does not say which columns are the key, and the catalogue says it of now."""
    database = Database(server)
    database.run("create table item (old bigint primary key, id bigint not null, name text)")
    database.run("alter table item replica identity full")
    database.publish()
    capture = Capture(database.source(Table("public.item", emits=item)))
    capture.drain(database)
    database.run("insert into item values (7, 1, 'a')")
    if is_stopped:
        capture.crash()
    else:
        capture.drain(database)
    database.run("alter table item drop column old, add column place int not null default 1, add primary key (place)")
    database.run("update item set name = 'b'")
    capture.drain(database)
    capture.crash()
    assert told(capture) == [(1, "a"), (1, "b")]
    database.close()


@pytest.mark.parametrize(
    "statements",
    ["drop table item; create table item (id bigint primary key, name text)", "alter table item rename to thing"],
)
def test_a_table_that_is_another_one_or_called_otherwise_stops(
    database: Database, capture: Capture, statements: str
) -> None:
    """Of what became of its rows the log has no word, also where all tables are published."""
    database.run("insert into item values (1, 'a')")
    capture.drain(database)
    capture.crash()
    for statement in statements.split(";"):
        database.run(statement)
    with pytest.raises((PositionLostError, UsageError)):
        capture.drain(database)
    capture.crash()


@pytest.mark.parametrize("change", ["drop publication crm", "alter publication crm set (publish = 'insert')"])
def test_a_publication_that_changes_under_the_stream_stops(
    database: Database, capture: Capture, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller, "HEARTBEAT_S", 0.05)
    capture.drain(database)
    database.run(change)
    database.run("insert into item values (1, 'a')")

    def stopped() -> bool:
        try:
            capture.once()
        except (PositionLostError, UsageError):
            return True
        return False

    eventually(stopped, "it stops")


def test_a_slot_waits_for_an_open_transaction_and_says_so(
    database: Database, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("insert into item values (1, 'a')")
    with psycopg.connect(database.dsn) as open_one, monkeypatch.context() as patch:
        patch.setattr(replication, "CREATE_SLOT_TIMEOUT_S", 0.2)
        open_one.execute("update item set name = 'b'")
        refused = capture.source.open()
        with pytest.raises(DependencyDownError, match="a transaction is open"):
            refused.begin(None)
        refused.close()
    database.drop_slot()
    capture.drain(database)
    assert told(capture) == [(1, "b")]


def test_to_restart_makes_a_new_slot_and_reads_all_again(database: Database, capture: Capture) -> None:
    database.run("insert into item values (1, 'a')")
    capture.drain(database)
    capture.crash()
    capture.position = RESTART
    capture.drain(database)
    assert told(capture) == [(1, "a"), (1, "a")]
    assert len(set(capture.ids())) == 2
    capture.crash()
    capture.drain(database)
    assert len(capture.drafts) == 2


def _raw(packed: bytes) -> Record:
    return Record("erp.raw", 0, 0, b"", packed, [], 0)


def test_a_server_that_wants_signs_of_life_gets_them(database: Database, capture: Capture) -> None:
    """Also where it waits for less time than we are used to."""
    database.run(f"alter database {database.name} set wal_sender_timeout = '400ms'")
    capture.drain(database)
    capture.crash()
    capture.once()
    ((begun, pid),) = database.run(
        "select clock_timestamp(), active_pid from pg_replication_slots where database = %s", database.name
    )
    query = "select clock_timestamp() > %s::timestamptz + interval '1.5 s'"

    def is_over() -> bool:
        capture.once()
        return bool(database.run(query, begun)[0][0])

    eventually(is_over, "some timeouts have passed")
    now = "select active_pid from pg_replication_slots where database = %s"
    assert database.run(now, database.name) == [(pid,)]


@pytest.mark.parametrize("elsewhere", ["another table", "another database"])
def test_an_idle_database_retains_no_log(
    database: Database, capture: Capture, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others write into the same server moves the slot too, by positions without records."""
    monkeypatch.setattr(puller, "HEARTBEAT_S", 0.05)
    capture.drain(database)
    dsn = database.dsn if elsewhere == "another table" else database.server.dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table elsewhere (n int)")
        connection.execute("insert into elsewhere select generate_series(1, 1000)")
        connection.execute("drop table elsewhere")
    ((end,),) = database.run("select pg_current_wal_lsn()::text")
    query = "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where database = %s"

    def moved() -> bool:
        capture.once()
        return bool(database.run(query, end, database.name)[0][0])

    eventually(moved, "the slot moves")
