"""What a real server sends, read by our decoder and by an independent one (pypgoutput): both see the same."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from postgres_source_harness import Database, running_postgres

from heddle.local.postgres import Postgres
from heddle.sources.postgres.pgoutput import (
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    Relation,
    Row,
    Truncate,
    Unchanged,
    Update,
    decode,
)
from heddle.sources.postgres.replication import Stream
from heddle.sources.postgres.tables import EPOCH_2000

pytestmark = pytest.mark.stack

TABLES = """
create type mood as enum ('happy', 'sad');
create table plain (id int primary key, name text, large text, n numeric, tz timestamptz, doc jsonb, words text[]);
create table whole (id int, name text, large text, m mood, raw bytea);
create table indexed (a text not null, b int not null, c text, unique (a, b));
create table parted (id int, name text, primary key (id)) partition by hash (id);
create table parted_0 partition of parted for values with (modulus 2, remainder 0);
create table parted_1 partition of parted for values with (modulus 2, remainder 1);
alter table whole replica identity full;
alter table indexed replica identity using index indexed_a_b_key;
alter table plain alter column large set storage external;
alter table whole alter column large set storage external;
create publication crm for all tables with (publish_via_partition_root = true)
"""
TEXTS = ("", "a", "é\u2028漢", "line\nline", "\\", "'", "{}", "NULL", "x" * 300)


@pytest.fixture(scope="module")
def oracle() -> ModuleType:
    """Its one module that decodes; the package itself wants a driver that we have no use for."""
    path = Path(sys.prefix) / "oracles" / "pypgoutput" / "decoders.py"
    assert path.exists(), "the independent decoder is not installed: run `make install`"
    spec = importlib.util.spec_from_file_location("pypgoutput_decoders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[bytes]]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield recorded(server)


def recorded(server: Postgres) -> list[bytes]:
    """All that the server says of some thousand random statements."""
    database = Database(server)
    for statement in TABLES.split(";"):
        database.run(statement)
    slot = f"s_{database.name}"
    database.run("select pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    work(database, random.Random(5))
    database.run("select pg_logical_emit_message(true, 'the', 'end')")
    found: list[bytes] = []
    with closing(Stream("tests", database.secret)) as stream:
        stream.start(slot, 0, "crm")
        is_over = False
        while not is_over or found[-1][:1] != b"C":
            data = stream.read(60.0)
            assert data is not None, "the server falls silent"
            if isinstance(data, bytes):
                found.append(data)
                is_over = is_over or data[:1] == b"M"
    database.close()
    return found


def work(database: Database, dice: random.Random) -> None:
    def text() -> str | None:
        return dice.choice((None, *TEXTS))

    def large() -> str | None:
        return dice.choice((None, "L" * 9000, "small"))

    with database.connection.transaction():
        for made in range(1000, 3500):
            number = dice.randrange(60)
            match dice.randrange(11):
                case 0 | 1:
                    value = (number, text(), large(), dice.choice(("NaN", "0.10", "-1e30", None)))
                    database.run(
                        "insert into plain values (%s, %s, %s, %s, 'infinity', '{\"a\": 1.0}', array['a,b', null]) "
                        "on conflict (id) do update set name = excluded.name",
                        *value,
                    )
                case 2:
                    database.run("update plain set id = %s where id = %s", made, number)
                case 3:
                    database.run("delete from plain where id = %s", number)
                case 4:
                    database.run("insert into whole values (%s, %s, %s, 'sad', '\\x00ff')", number, text(), large())
                case 5:
                    database.run("update whole set name = %s where id = %s", text(), number)
                case 6:
                    database.run("delete from whole where id = %s", number)
                case 7:
                    database.run(
                        "insert into indexed values (%s, %s, %s) on conflict do nothing", text() or "-", number, text()
                    )
                case 8:
                    database.run("update indexed set b = %s where b = %s and a = %s", made, number, text())
                case 9:
                    database.run("insert into parted values (%s, %s) on conflict do nothing", number, text())
                case _:
                    database.run("update parted set id = %s where id = %s", made, number)
    database.run("alter table plain add column extra int default 7, drop column n")
    database.run("update plain set extra = 8 where id < 20")
    database.run("alter table whole rename column name to title")
    database.run("delete from whole")
    database.run("truncate plain, whole restart identity cascade")
    database.run("delete from indexed")


def theirs(module: ModuleType, data: bytes) -> Any:
    """In our form. Its numbers are signed, and its texts decoded."""
    kinds = {"B": "Begin", "C": "Commit", "R": "Relation", "I": "Insert", "U": "Update", "D": "Delete", "T": "Truncate"}
    found = getattr(module, kinds[chr(data[0])])(data)
    match chr(data[0]):
        case "B":
            return "begin", found.lsn, found.commit_ts, found.tx_xid
        case "C":
            return "commit", found.lsn_commit, found.lsn, found.commit_ts
        case "R":
            columns = [(c.name, c.type_id, bool(c.part_of_pkey), c.atttypmod) for c in found.columns]
            head = found.relation_id, found.namespace, found.relation_name, found.replica_identity_setting
            return "relation", *head, columns
        case "I":
            return "insert", found.relation_id, tuples(found.new_tuple)
        case "U":
            old = None if found.old_tuple is None else tuples(found.old_tuple)
            return "update", found.relation_id, found.optional_tuple_identifier, old, tuples(found.new_tuple)
        case "D":
            return "delete", found.relation_id, found.message_type, tuples(found.old_tuple)
        case _:
            return "truncate", found.relation_ids


def ours(message: Message) -> Any:
    match message:
        case Begin(lsn, time_us, xid):
            return "begin", lsn, EPOCH_2000 + timedelta(microseconds=time_us), xid
        case Commit(lsn, end, time_us):
            return "commit", lsn, end, EPOCH_2000 + timedelta(microseconds=time_us)
        case Relation(oid, schema, table, identity, columns):
            return "relation", oid, schema, table, identity, [(c.name, c.oid, c.is_key, c.modifier) for c in columns]
        case Insert(relation, new):
            return "insert", relation, texts(new)
        case Update(relation, old, is_full, new):
            kind = None if old is None else "O" if is_full else "K"
            return "update", relation, kind, None if old is None else texts(old), texts(new)
        case Delete(relation, old, is_full):
            return "delete", relation, "O" if is_full else "K", texts(old)
        case Truncate(relations):
            return "truncate", list(relations)
    raise AssertionError(message)


def tuples(found: Any) -> list[tuple[str, str | None]]:
    assert len(found.column_data) == found.n_columns
    return [(value.col_data_category, value.col_data) for value in found.column_data]


def texts(row: Row) -> list[tuple[str, str | None]]:
    return [
        ("u", None) if isinstance(value, Unchanged) else ("n", None) if value is None else ("t", value.decode())
        for value in row
    ]


def test_both_decoders_see_the_same(messages: list[bytes], oracle: ModuleType) -> None:
    seen: Counter[str] = Counter()
    for data in messages:
        message = decode(data)
        kind = chr(data[0])
        seen[kind] += 1
        if kind == "Y":  # names a type: theirs has none of it
            continue
        if isinstance(message, Emitted):
            assert (message.prefix, message.content) == ("the", b"end")
            continue
        assert ours(message) == theirs(oracle, data)
    assert seen.keys() == set("BCRIUDTMY")
    assert seen["I"] + seen["U"] + seen["D"] > 1500


def test_the_messages_hold_all_that_can_be_in_them(messages: list[bytes]) -> None:
    """Else that both see the same says little."""
    found = [decode(data) for data in messages]
    updates = [message for message in found if isinstance(message, Update)]
    assert any(message.old is None for message in updates)
    assert any(message.old is not None and not message.old_is_full for message in updates)
    assert any(message.old_is_full for message in updates)
    assert any(isinstance(value, Unchanged) for message in updates for value in message.new)
    deletes = [message for message in found if isinstance(message, Delete)]
    assert {message.old_is_full for message in deletes} == {True, False}
    relations = [message for message in found if isinstance(message, Relation)]
    assert {message.identity for message in relations} >= {"d", "f", "i"}
    assert len({message.columns for message in relations if message.table == "plain"}) == 2
    assert {message.table for message in relations} >= {"plain", "whole", "indexed", "parted"}
