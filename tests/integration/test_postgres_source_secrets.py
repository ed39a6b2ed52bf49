"""Database sources while their password is rotated on the server: nothing restarts, nothing is missed or told twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from outbox_harness import FIELDS, TABLE, Publishing
from postgres_source_harness import Capture, Database, contract_type, eventually, running_postgres
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from heddle.errors import AuthError, DependencyDownError
from heddle.local.postgres import Postgres
from heddle.secrets import reference
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Found
from heddle.sources.postgres import Table
from heddle.sources.postgres import puller as capture_puller
from heddle.sources.postgres.session import Session

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Balance", FIELDS, ["account"])


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    made = Database(server)
    yield made
    made.close()


class Store:
    """A login of its own, its password, and a store that answers what it was told last, behind the usual cache."""

    name = "store"

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self._database = database
        self.role = f"reader_{uuid.uuid4().hex[:12]}"
        database.run(f"create role {self.role} login superuser password 'first-password'")
        self.dsn = self._with("first-password")
        self.asked = 0
        self.cached = Cached(self, refresh_s=3600)
        monkeypatch.setattr(reference, "providers", lambda: (self.cached,))

    def look_up(self, _: str) -> Found | None:
        self.asked += 1
        return Found(self.dsn)

    def advice(self, name: str) -> str:
        return f"put {name} there"

    def rotate(self, password: str, *, told: bool = True, cut: bool = True) -> None:
        """On the server; in the store if it is `told`; sessions of the old login end if they are `cut`."""
        self._database.run(f"alter role {self.role} password '{password}'")
        if told:
            self.dsn = self._with(password)
        if cut:
            self._database.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", self.role)

    def sessions(self) -> set[int]:
        found = self._database.run("select pid from pg_stat_activity where usename = %s", self.role)
        return {pid for (pid,) in found}

    def _with(self, password: str) -> str:
        parts: dict[str, Any] = {**conninfo_to_dict(self._database.dsn), "user": self.role, "password": password}
        return make_conninfo(**parts)


@pytest.fixture
def store(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store(database, monkeypatch)
    yield made
    made.rotate("last-password")
    database.run(f"drop owned by {made.role} cascade")
    eventually(lambda: not made.sessions(), "its sessions have ended")
    database.drop_slot()
    database.run(f"drop role {made.role}")


def test_refused_credentials_are_asked_for_once_more(database: Database, store: Store) -> None:
    Session("erp", database.secret).close()
    store.rotate("second-password")
    session = Session("erp", database.secret)
    assert session.rows("select current_user::text") == [(store.role,)]
    assert store.asked == 2
    session.close()


def test_credentials_that_nobody_renewed_stop_the_source(database: Database, store: Store) -> None:
    Session("erp", database.secret).close()
    store.rotate("second-password", told=False)
    with pytest.raises(AuthError, match="password authentication failed") as refused:
        Session("erp", database.secret)
    assert store.asked == 2
    assert "first-password" not in f"{refused.value!r}{refused.value.hint}"


def test_a_session_leaves_its_old_login_between_transactions(database: Database, store: Store) -> None:
    session = Session("erp", database.secret)
    before = store.sessions()
    store.rotate("second-password", cut=False)
    store.cached.forget_all()  # as its refresh time does
    with psycopg.connect(database.dsn) as other:
        other.execute("set transaction isolation level repeatable read")
        exported = other.execute("select pg_export_snapshot()").fetchall()[0][0]
        with session.seeing(exported):
            assert session.rows("select 1") == [(1,)]
            assert store.sessions() == before, "a transaction ends where it began"
    assert session.rows("select 2") == [(2,)]
    eventually(lambda: len(store.sessions()) == 1 and not store.sessions() & before, "the old login is given up")
    session.close()


def test_a_capture_goes_on_under_the_new_login(
    database: Database, store: Store, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_puller, "HEARTBEAT_S", 0.0)
    database.run("create table balance (account text primary key, version bigint not null)")
    database.run("alter table balance replica identity full")
    database.publish("for table balance")
    capture = Capture(database.source(Table("public.balance", emits=kind)))
    database.run("insert into balance values ('a', 1)")
    capture.drain(database)
    before = store.sessions()
    store.rotate("second-password", cut=False)
    database.run("insert into balance values ('b', 1)")
    capture.drain(database)
    assert store.sessions() == before, "the value is fresh: nobody was told of another"
    store.cached.forget_all()
    database.run("insert into balance values ('c', 1)")
    with pytest.raises(DependencyDownError, match="the secret has changed"):
        capture.drain(database)
    capture.crash()  # the worker lets go of it, and begins again at its position
    capture.drain(database)
    eventually(lambda: not store.sessions() & before, "the old login is given up")
    store.rotate("third-password")
    with pytest.raises(DependencyDownError):
        capture.drain(database)
    capture.crash()
    database.run("insert into balance values ('d', 1)")
    capture.drain(database)
    capture.crash()
    assert [draft.value.account for draft in capture.drafts] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("read_by", ["polling", "capture"])
def test_an_outbox_goes_on_under_the_new_login(
    database: Database, store: Store, kind: type[Any], read_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.delivery.patience.WAIT_MIN_S", 0.01)
    monkeypatch.setattr(capture_puller, "HEARTBEAT_S", 0.1)
    database.run(TABLE)
    captured: dict[str, Any] = {}
    if read_by == "capture":
        database.run("create publication outbox for table outbox with (publish = 'insert')")
        captured = {"read_by": "capture", "publication": "outbox", "slot": f"s_{database.name}"}
    publishing = Publishing(database, kind, **captured)
    with psycopg.connect(database.dsn, autocommit=True) as application:
        worker = publishing.worker()
        before = set[int]()
        for version, cut in enumerate([False, True, False], start=1):
            publishing.put(application, "a", version)
            publishing.publish(worker)
            before |= store.sessions()
            store.rotate(f"password-of-{version}", cut=cut)
        assert store.asked == 2, "when it was refused, and not before"
        store.cached.forget_all()
        publishing.put(application, "a", 4)
        publishing.publish(worker)
        eventually(lambda: not store.sessions() & before, "the old login is given up")
    publishing.close()
    assert publishing.published() == [("a", version) for version in (1, 2, 3, 4)]
