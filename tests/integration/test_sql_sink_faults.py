"""The SQL sink when the connection, the server or a former owner misbehaves: nothing twice, nothing lost, no zombie."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, Database, Link, Proxy, delivered, entry, proxied

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.integration import Delivered, PartitionFencedError, SinkWriter
from heddle.local import Stack
from heddle.sinks.sql.session import IDLE_IN_TRANSACTION_TIMEOUT_S
from heddle.sinks.sql.writer import TRIES
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

DEADLINE_S = 20.0
GROUP_SESSION_TIMEOUT_S = 6.0


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with proxied(database.dsn) as proxy:
        yield proxy


def batch(count: int = 50) -> list[Delivered[Entry]]:
    return [delivered(entry(f"e{i}"), i) for i in range(count)]


def until_applied(writer: SinkWriter[Any], events: Sequence[Delivered[Any]]) -> list[Any]:
    """What a worker does while the database is away."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return list(writer.apply(events)[0])
        except DependencyDownError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)


def at(marker: bytes, do: Callable[[bytes, Link], bool]) -> Callable[[bytes, Link], bool]:
    """A hook that acts on the first message that holds `marker`, and passes everything else on."""
    done = threading.Event()

    def hook(data: bytes, link: Link) -> bool:
        if marker in data and not done.is_set():
            done.set()
            return do(data, link)
        return True

    return hook


def open_through(database: Database, proxy: Proxy) -> SinkWriter[Any]:
    database.entries()
    writer = database.sink(dsn=proxy.dsn).open()
    writer.bump([0])
    return writer


def test_a_commit_whose_answer_is_lost_is_recovered_and_not_repeated(database: Database, proxy: Proxy) -> None:
    writer = open_through(database, proxy)

    def lose_the_answer(_data: bytes, link: Link) -> bool:
        link.mute = True
        return True

    proxy.hook = at(b"COMMIT", lose_the_answer)
    with pytest.raises(DependencyDownError):
        writer.apply(batch())
    assert len(database.lines()) == 100
    again = [*batch(), delivered(entry("e0"), 900, id="e0-0"), delivered(entry("new"), 901)]
    assert writer.apply(again) == ([RECOVERED] * 50 + [DUPLICATE, APPLIED], [])
    assert len(database.lines()) == 102
    writer.close()


def test_a_commit_that_never_arrived_leaves_nothing_and_is_made_again(database: Database, proxy: Proxy) -> None:
    writer = open_through(database, proxy)

    def cut(_data: bytes, link: Link) -> bool:
        link.cut()
        return False

    proxy.hook = at(b"COMMIT", cut)
    with pytest.raises(DependencyDownError):
        writer.apply(batch())
    assert database.lines() == []
    assert writer.apply(batch()) == ([APPLIED] * 50, [])
    assert len(database.lines()) == 100
    writer.close()


def test_a_backend_ended_in_the_middle_of_a_batch_takes_the_whole_batch_with_it(
    database: Database, proxy: Proxy
) -> None:
    writer = open_through(database, proxy)

    def terminate(_data: bytes, _link: Link) -> bool:
        ended = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where state like %s and query like %s"
        assert database.execute(ended, ("idle in transaction%", f"%{database.schema}%")) == [(True,)]
        return True

    proxy.hook = at(b"with fresh as", terminate)
    with pytest.raises(DependencyDownError, match=r"admin-shutdown|broke"):
        writer.apply(batch())
    assert database.lines() == []
    assert writer.apply(batch()) == ([APPLIED] * 50, [])
    writer.close()


@pytest.mark.parametrize("delivered_before_kill", [True, False])
def test_postgres_killed_inside_commit_is_exactly_once_after_its_restart(
    stack: Stack, database: Database, proxy: Proxy, delivered_before_kill: bool
) -> None:
    writer = open_through(database, proxy)
    killed = threading.Event()

    def kill(data: bytes, link: Link) -> bool:
        if delivered_before_kill:
            link.mute = True
            link.server.sendall(data)
        stack.postgres.kill()
        killed.set()
        return False

    proxy.hook = at(b"COMMIT", kill)
    try:
        with pytest.raises(DependencyDownError):
            writer.apply(batch())
        assert killed.wait(DEADLINE_S)
        with pytest.raises(DependencyDownError):
            writer.apply(batch())
    finally:
        stack.postgres.start()
    answers = until_applied(writer, batch())
    assert answers in ([APPLIED] * 50, [RECOVERED] * 50)
    assert until_applied(writer, batch()) == [RECOVERED] * 50
    assert len(database.lines()) == 100
    writer.close()


def test_what_was_answered_survives_a_kill_right_after(stack: Stack, database: Database) -> None:
    """Also where the address says synchronous_commit = off: offsets pass on the strength of the answer."""
    database.entries()
    writer = database.sink(dsn=make_conninfo(database.dsn, options="-c synchronous_commit=off")).open()
    writer.bump([0])
    try:
        assert writer.apply(batch()) == ([APPLIED] * 50, [])
        stack.postgres.kill()
    finally:
        stack.postgres.start()
    assert len(database.lines()) == 100
    assert until_applied(writer, batch()) == [RECOVERED] * 50
    writer.close()


@pytest.mark.parametrize("frozen_at", [b"with fresh as", b"COMMIT"])
def test_a_frozen_zombie_neither_blocks_its_successor_nor_writes_after_it(
    database: Database, proxy: Proxy, frozen_at: bytes
) -> None:
    """The former owner stands still inside its batch, with the fence shared: at the merge, and at the commit."""
    zombie = open_through(database, proxy)
    owner = database.sink().open()
    frozen, thaw = threading.Event(), threading.Event()

    def freeze(_data: bytes, _link: Link) -> bool:
        frozen.set()
        return thaw.wait(DEADLINE_S)

    proxy.hook = at(frozen_at, freeze)
    with ThreadPoolExecutor(1) as pool:
        late: Future[Any] = pool.submit(zombie.apply, batch())
        assert frozen.wait(DEADLINE_S)
        began = time.monotonic()
        owner.bump([0])
        assert time.monotonic() - began < GROUP_SESSION_TIMEOUT_S
        thaw.set()
        with pytest.raises(DependencyDownError):
            late.result(DEADLINE_S)
    assert database.lines() == []
    with pytest.raises(PartitionFencedError):
        zombie.apply(batch())
    assert owner.apply(batch()) == ([APPLIED] * 50, [])
    assert len(database.lines()) == 100
    zombie.close()
    owner.close()


def test_a_zombie_frozen_inside_its_copy_does_not_hold_the_fence(database: Database, proxy: Proxy) -> None:
    """The server never times out a client that stops in the middle of a COPY, so nothing may be locked by then."""
    zombie = open_through(database, proxy)
    owner = database.sink().open()
    frozen, thaw = threading.Event(), threading.Event()

    def freeze(_data: bytes, _link: Link) -> bool:
        frozen.set()
        return thaw.wait(DEADLINE_S)

    proxy.hook = at(b"PGCOPY", freeze)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(zombie.apply, batch())
        assert frozen.wait(DEADLINE_S)
        began = time.monotonic()
        owner.bump([0])
        assert time.monotonic() - began < IDLE_IN_TRANSACTION_TIMEOUT_S / 2
        thaw.set()
        with pytest.raises(PartitionFencedError):
            late.result(DEADLINE_S)
    assert owner.apply(batch()) == ([APPLIED] * 50, [])
    zombie.close()
    owner.close()


def test_a_bump_waits_for_a_batch_that_is_committing(database: Database, proxy: Proxy) -> None:
    """A former owner that is only slow keeps its batch; the successor sees it as duplicates, never as new."""
    former = open_through(database, proxy)
    owner = database.sink().open()
    held, go = threading.Event(), threading.Event()

    def hold(_data: bytes, _link: Link) -> bool:
        held.set()
        return go.wait(DEADLINE_S)

    proxy.hook = at(b"COMMIT", hold)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(former.apply, batch())
        assert held.wait(DEADLINE_S)
        bump = pool.submit(owner.bump, [0])
        with pytest.raises(TimeoutError):
            bump.result(0.3)
        go.set()
        assert slow.result(DEADLINE_S) == ([APPLIED] * 50, [])
        bump.result(DEADLINE_S)
    assert owner.apply(batch()) == ([RECOVERED] * 50, [])
    former.close()
    owner.close()


def test_a_deadlock_is_tried_again(database: Database, proxy: Proxy) -> None:
    """Another program locks our rows in another order: one of the two is ended by the server, and we go on."""
    writer = open_through(database, proxy)
    writer.apply([delivered(entry("a"), 0), delivered(entry("b"), 1)])
    held, merging = threading.Event(), threading.Event()

    def merge_after_lock(_data: bytes, _link: Link) -> bool:
        merging.set()
        return held.wait(DEADLINE_S)

    proxy.hook = at(b"with fresh as", merge_after_lock)
    update = "update {}.heddle_versions_entry_line set booked_at = booked_at where entry_id = %s"
    statement = update.format(f'"{database.schema}"')
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database.dsn) as other:
        other.execute("set deadlock_timeout = '10s'")
        late = pool.submit(writer.apply, [delivered(entry("a", 1), 2), delivered(entry("b", 1), 3)])
        assert merging.wait(DEADLINE_S)
        other.execute(statement, ("b",))
        held.set()
        wait_until(database, "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%fresh%'")
        other.execute(statement, ("a",))
        other.rollback()
        assert late.result(DEADLINE_S) == ([APPLIED] * 2, [])
    writer.close()


def test_what_never_stops_to_deadlock_is_a_dependency_that_is_down(database: Database) -> None:
    writer = database.entries().open()
    writer.bump([0])
    database.execute(
        "create table {schema}.tries (n int); create function {schema}.collide() returns trigger language plpgsql"
        " as $$ begin raise 'collided' using errcode = '40P01'; end $$;"
        " create trigger collide before insert on {schema}.entry_line"
        " for each row execute function {schema}.collide()"
    )
    with pytest.raises(DependencyDownError, match=f"deadlock-detected .* {TRIES} times in a row"):
        writer.apply(batch(1))
    database.execute("drop trigger collide on {schema}.entry_line")
    assert writer.apply(batch(1)) == ([APPLIED], [])
    writer.close()


def test_refused_credentials_stop_and_nobody_there_waits(database: Database) -> None:
    parts = conninfo_to_dict(database.dsn)
    wrong = make_conninfo(**{**parts, "password": "not-the-password"})
    with pytest.raises(AuthError, match="password authentication failed") as refused:
        database.sink(dsn=wrong).open()
    assert "not-the-password" not in str(refused.value)
    with pytest.raises(DependencyDownError, match="does not answer"):
        database.sink(dsn=make_conninfo(**{**parts, "port": "1"})).open()
    with pytest.raises(UsageError, match="does not exist"):
        database.sink(dsn=make_conninfo(**{**parts, "dbname": "nowhere"})).open()
    with pytest.raises(UsageError, match="not a PostgreSQL address"):
        database.sink(dsn="mysql://hidden-password@db/x").open()


def test_a_role_without_rights_is_refused_and_not_a_bad_record(database: Database) -> None:
    database.entries()
    role = f"{database.schema}_reader"
    parts = conninfo_to_dict(database.dsn)
    database.execute(f"create role {role} login password 'reader'")
    try:
        database.execute(f"grant usage on schema {{schema}} to {role}")
        sink = database.sink(dsn=make_conninfo(**{**parts, "user": role, "password": "reader"}))
        writer = sink.open()
        with pytest.raises(AuthError, match="insufficient-privilege"):
            writer.bump([0])
        writer.close()
    finally:
        database.execute(f"drop owned by {role}")
        database.execute(f"drop role {role}")


def test_a_table_that_changed_under_the_worker_stops_it(database: Database) -> None:
    writer = database.entries().open()
    writer.bump([0])
    database.execute("alter table {schema}.entry_line drop column account")
    with pytest.raises(UsageError, match="undefined-column"):
        writer.apply(batch(1))
    writer.close()


def wait_until(database: Database, query: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not database.execute(query):
        assert time.monotonic() < deadline, query
        threading.Event().wait(0.02)
