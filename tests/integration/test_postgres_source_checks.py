"""What `heddle check --sources` finds in a database, and that what it says to run mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from postgres_source_harness import Capture, Database, contract_type, running_postgres

from heddle.errors import AuthError, UsageError
from heddle.local.postgres import Postgres
from heddle.sources.postgres import PostgresSource, Table

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
    yield made
    made.close()


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Item", FIELDS, ["id"])


def said(source: PostgresSource) -> list[str]:
    return [message for message, _ in source.findings()]


def test_what_it_says_to_run_mends_it(database: Database, item: type[Any]) -> None:
    database.run("create table item (id bigint primary key, name text)")
    source = database.source(Table("public.item", emits=item))
    first = source.findings()
    assert [message for message, _ in first] == [
        "there is no publication crm",
        "public.item: name may be large, and an update that leaves it alone would not hold it",
    ]
    for _, statement in first:
        database.run(statement)
    assert source.findings() == []
    capture = Capture(source)
    database.run("insert into item values (1, 'a')")
    capture.drain(database)
    capture.crash()
    assert [draft.value.name for draft in capture.drafts] == ["a"]


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("create table item (id bigint, name varchar(9)); create publication crm for all tables", "a primary key"),
        ("create table item (id bigint primary key); create publication crm for all tables", "has no column name"),
        (
            "create table item (id bigint primary key, name varchar(9) generated always as ('x') stored);"
            "create publication crm for all tables",
            "name is generated",
        ),
        (
            "create table item (id bigint primary key, name varchar(9)) partition by range (id);"
            "create publication crm for table item",
            "is partitioned",
        ),
        (
            "create table item (id bigint primary key, name text) partition by range (id);"
            "create table low partition of item for values from (0) to (10);"
            "alter table item replica identity full;"
            "create publication crm for table item with (publish_via_partition_root = true)",
            "name may be large",
        ),
        (
            "create table item (id bigint primary key, name varchar(9)) partition by range (id);"
            "create table low partition of item for values from (0) to (10);"
            "alter table item replica identity full;"
            "create publication crm for table item with (publish_via_partition_root = true)",
            "its partitions public.low do not have its full replica identity",
        ),
        (
            "create table item (id bigint primary key, name varchar(9)) partition by range (id);"
            "create table low partition of item for values from (0) to (10);"
            "alter table low replica identity nothing;"
            "create publication crm for table item with (publish_via_partition_root = true)",
            "^public.low has replica identity nothing",
        ),
        ("create table item (id bigint primary key, name varchar(9)); create publication crm", "not in the publ"),
        (
            "create table item (id bigint primary key, name varchar(9)); create publication crm for table item (id)",
            "the publication crm leaves name of public.item out",
        ),
        (
            "create table item (id bigint primary key, name varchar(9));"
            "create publication crm for all tables with (publish = 'insert')",
            "leaves kinds of changes out",
        ),
        (
            "create table item (id bigint, name varchar(9) primary key); create publication crm for all tables",
            "the contract's key has id",
        ),
        ("create publication crm for all tables", "there is no table public.item"),
        (
            "create table item (id bigint primary key, name varchar(9)); create publication crm for all tables;"
            "alter table item replica identity nothing",
            "replica identity nothing",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_named(database: Database, item: type[Any], statements: str, words: str) -> None:
    for statement in statements.split(";"):
        database.run(statement)
    found = said(database.source(Table("public.item", emits=item)))
    assert [message for message in found if re.search(words, message)], found


def test_a_role_without_rights_is_named(database: Database, item: type[Any]) -> None:
    database.run("create table item (id bigint primary key, name varchar(9))")
    database.publish()
    with weak_role(database):
        found = said(database.source(Table("public.item", emits=item)))
    assert found == ["the role weak may not replicate", "public.item may not be read by the source's role"]


@contextmanager
def weak_role(database: Database) -> Iterator[None]:
    database.run("create role weak login password 'weak'")
    try:
        weak = psycopg.conninfo.make_conninfo(database.dsn, user="weak", password="weak")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(database.secret.environment_name, weak)
            yield
    finally:
        database.run("drop owned by weak")
        database.run("drop role weak")


def test_a_role_of_a_managed_server_may_replicate(database: Database, item: type[Any]) -> None:
    database.run("create table item (id bigint primary key, name varchar(9))")
    database.publish()
    for name in ("rds_replication", "cloudsqlreplication"):
        database.run(f"create role {name}")
        try:
            with weak_role(database):
                database.run("grant select on item to weak")
                database.run(f"grant {name} to weak")
                assert said(database.source(Table("public.item", emits=item))) == []
        finally:
            database.run(f"drop role {name}")


def test_rows_that_the_role_may_not_see_are_an_error_and_no_gap(database: Database, item: type[Any]) -> None:
    database.run("create table item (id bigint primary key, name varchar(9))")
    database.run("insert into item values (1, 'a')")
    database.run("alter table item enable row level security")
    database.publish()
    source = database.source(Table("public.item", emits=item))
    with weak_role(database):
        database.run("alter role weak replication")
        database.run("grant select on item to weak")
        assert said(source) == [
            "public.item: row-level security hides rows from the source's role, and the log does not"
        ]
        capture = Capture(source)
        with pytest.raises(AuthError, match="row-level security"):
            capture.drain(database)
        capture.crash()
        database.run("alter role weak bypassrls")
        assert said(source) == []
        capture.drain(database)
        capture.crash()
        assert [draft.value.id for draft in capture.drafts] == [1]
        database.drop_slot()


def test_a_declaration_that_cannot_be_right_is_refused(database: Database, item: type[Any]) -> None:
    with pytest.raises(UsageError, match=r"is not schema\.table"):
        Table("item", emits=item)
    with pytest.raises(UsageError, match="columns= names colour"):
        Table("public.item", emits=item, columns={"colour": "x"})
    table = Table("public.item", emits=item)
    with pytest.raises(UsageError, match="names a table twice"):
        database.source(table, table)
    with pytest.raises(UsageError, match="lower-case letters"):
        PostgresSource("erp", dsn=database.secret, publication="p", slot="No", tables=[table], owner="tests")
    with pytest.raises(UsageError, match="does not capture"):
        database.source(table).request_snapshot("public.other")
