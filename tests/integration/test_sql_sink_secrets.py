"""The SQL sink while its secret rotates: the new value takes over between batches, on the server's word at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sql_sink_harness import APPLIED, Database, delivered, entry

from heddle.errors import AuthError, DependencyDownError
from heddle.local import Stack
from heddle.secrets import reference, secret
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Found
from heddle.sinks.sql import SqlSink
from heddle.sinks.sql.session import Session
from schemas.ledger import Entry

pytestmark = pytest.mark.stack


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@dataclass
class Role:
    """A login that may do what the sink does."""

    name: str
    dsn: str


@pytest.fixture
def role(database: Database) -> Iterator[Callable[[], Role]]:
    made: list[Role] = []

    def make() -> Role:
        name = f"sink_{uuid.uuid4().hex[:12]}"
        database.execute(f"create role {name} login superuser password 'first'")
        parts = conninfo_to_dict(database.dsn)
        made.append(Role(name, make_conninfo(**{**parts, "user": name, "password": "first"})))
        return made[-1]

    yield make
    for each in made:
        database.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{each.name}'")
        database.execute(f"drop owned by {each.name} cascade; drop role {each.name}")


class Store:
    """A secret store that answers what the test last put there, through the cache that every store is behind."""

    name = "store"

    def __init__(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dsn = dsn
        self.asked = 0
        self.is_down = False
        cached = Cached(self, refresh_s=3600)
        monkeypatch.setattr(reference, "providers", lambda: (cached,))

    def look_up(self, name: str) -> Found | None:
        self.asked += name == "ledger/dsn"
        if self.is_down:
            raise DependencyDownError("the store does not answer")
        return Found(self.dsn)

    def advice(self, name: str) -> str:
        return f"put {name} there"


def sink(database: Database) -> SqlSink[Entry]:
    made = database.sink()
    made.apply_plan()
    return SqlSink(
        "ledger", reads=Entry, table=made.layout.full_name, key="entry_id", version="booked_at", rows="lines",
        dsn=secret("ledger/dsn"), owner="finance",
    )  # fmt: skip


def logged_in(database: Database) -> list[str]:
    """Whose sessions the sink has."""
    found = database.execute(
        "select usename::text from pg_stat_activity where application_name = 'heddle/ledger' and usename like 'sink%%'"
    )
    return [name for (name,) in found]


def change_password(database: Database, role: Role, password: str) -> str:
    """Rotated at the server, with its sessions ended; what to log in with from now on."""
    database.execute(f"alter role {role.name} password '{password}'")
    database.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role.name}'")
    return make_conninfo(**{**conninfo_to_dict(role.dsn), "password": password})


def test_a_new_value_takes_over_with_the_next_batch(
    database: Database, role: Callable[[], Role], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = role(), role()
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", old.dsn)
    writer = sink(database).open()
    writer.bump([0])
    assert writer.apply([delivered(entry("a"), 0)]) == ([APPLIED], [])
    assert logged_in(database) == [old.name]
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", new.dsn)
    assert writer.apply([delivered(entry("b"), 1)]) == ([APPLIED], [])
    assert logged_in(database) == [new.name], "the old login is given up"
    assert [line[0] for line in database.lines()] == ["a", "a", "b", "b"]
    writer.close()


def test_a_transaction_ends_on_the_connection_that_it_began_on(
    database: Database, role: Callable[[], Role], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = role(), role()
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", old.dsn)
    session = Session("ledger", secret("ledger/dsn"), "any", str)
    with session.transaction() as connection:
        monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", new.dsn)
        with session.transaction() as inner:
            assert inner is connection
    with session.transaction() as later:
        assert _user(later) == new.name
    session.close()


def test_refused_credentials_are_asked_for_anew_and_the_batch_goes_on(
    database: Database, role: Callable[[], Role], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = role()
    store = Store(own.dsn, monkeypatch)
    writer = sink(database).open()
    writer.bump([0])
    assert writer.apply([delivered(entry("a"), 0)]) == ([APPLIED], [])
    assert store.asked == 1
    store.dsn = change_password(database, own, "second")
    with pytest.raises(DependencyDownError):  # the broken connection; the worker comes again with the same batch
        writer.apply([delivered(entry("b"), 1)])
    assert writer.apply([delivered(entry("b"), 1)]) == ([APPLIED], [])
    assert store.asked == 2
    writer.close()


def test_credentials_that_nobody_renewed_are_refused_after_one_more_question(
    database: Database, role: Callable[[], Role], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = role()
    store = Store(own.dsn, monkeypatch)
    made = sink(database)
    made.pruned_before()
    change_password(database, own, "second")
    with pytest.raises(AuthError, match="password authentication failed") as refused:
        made.pruned_before()
    assert store.asked == 2
    assert "first" not in f"{refused.value!r}{refused.value.hint}"
    store.is_down = True
    with pytest.raises(AuthError, match="password authentication failed"):
        made.pruned_before()


def _user(connection: psycopg.Connection[tuple[str]]) -> str:
    row = connection.execute(sql.SQL("select current_user::text")).fetchone()
    assert row is not None
    return row[0]
