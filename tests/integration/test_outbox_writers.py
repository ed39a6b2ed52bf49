"""Applications' ways to write to the outbox, in their own transactions, and the columns they may write into."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from outbox_harness import FIELDS, TABLE, Publishing
from postgres_source_harness import Database, contract_type, running_postgres
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from heddle.contracts import contract_of
from heddle.local.postgres import Postgres

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("contract"), "Balance", FIELDS, ["account"])


@pytest.fixture
def publishing(server: Postgres, kind: type[Any]) -> Iterator[Publishing]:
    database = Database(server)
    database.run(TABLE)
    made = Publishing(database, kind)
    yield made
    made.close()
    database.close()


def test_psycopg_plain_and_async_in_the_callers_transaction(publishing: Publishing) -> None:
    outbox, kind, dsn = publishing.outbox, publishing.kind, publishing.database.dsn

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await outbox.put_async(connection, kind(account="a", version=2))
            await outbox.delete_async(connection, kind, {"account": "b"})
            await connection.commit()
            await outbox.put_async(connection, kind(account="a", version=3))
            await connection.rollback()

    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        outbox.put(cursor, kind(account="a", version=1))
    asyncio.run(write())
    publishing.publish(publishing.worker())
    records = publishing.read(contract_of(kind).topic)
    assert [(record.key, record.value is None) for record in records] == [
        (b"default/a", False),
        (b"default/a", False),
        (b"default/b", True),
    ]


def test_sqlalchemy_connections_and_sessions(publishing: Publishing) -> None:
    outbox, kind = publishing.outbox, publishing.kind
    address = publishing.database.dsn.replace("postgresql://", "postgresql+psycopg://")

    async def write() -> None:
        engine = create_async_engine(address)
        async with engine.begin() as connection:
            await outbox.put_async(connection, kind(account="a", version=4))
        async with AsyncSession(engine) as session, session.begin():
            await outbox.put_async(session, kind(account="a", version=5))
        await engine.dispose()

    engine = create_engine(address)
    with engine.begin() as connection:
        outbox.put(connection, kind(account="a", version=1))
    with Session(engine) as session, session.begin():
        outbox.put(session, kind(account="a", version=2))
    with Session(engine) as session:
        outbox.put(session, kind(account="a", version=3))
        session.rollback()
    engine.dispose()
    asyncio.run(write())
    publishing.publish(publishing.worker())
    assert publishing.published() == [("a", 1), ("a", 2), ("a", 4), ("a", 5)]


@pytest.mark.parametrize("column", ["json", "jsonb", "text", "varchar"])
def test_payload_columns_that_are_written_and_read(publishing: Publishing, column: str) -> None:
    publishing.database.run(f"alter table outbox alter column payload type {column} using payload::text::{column}")
    connection = publishing.connect()
    publishing.put(connection, 'quo"ted\\', 2**63 - 1)
    connection.commit()
    publishing.publish(publishing.worker())
    assert publishing.published() == [('quo"ted\\', 2**63 - 1)]


def test_a_bytea_payload_is_read_and_refuses_the_helper(publishing: Publishing) -> None:
    publishing.database.run("alter table outbox alter column payload type bytea using null")
    connection = publishing.connect()
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        publishing.put(connection, "a", 1)
    connection.rollback()
    publishing.database.run(
        "insert into outbox (id, aggregatetype, aggregateid, type, payload) "
        "values (gen_random_uuid(), 'x', 'a', %s, %s)",
        contract_of(publishing.kind).name,
        b'{"account": "a", "version": 1}',
    )
    publishing.publish(publishing.worker())
    assert publishing.published() == [("a", 1)]
