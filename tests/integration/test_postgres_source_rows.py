"""Rows of the PostgreSQL source against a real server: values of all types, and tables of all kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_source_harness import Capture, Database, contract_type, eventually, running_postgres

from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.errors import UsageError
from heddle.local.postgres import Postgres
from heddle.sources.postgres import Table

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


KINDS = """
create type mood as enum ('happy', 'sad');
create domain cents as numeric(12, 2);
create domain label as text;
create table everything (
    id int primary key, b bool, big bigint, n numeric, c cents, f float8, t text, l label, m mood, u uuid, raw bytea,
    d date, tm time, ts timestamp, tz timestamptz, doc jsonb, ints int[], words text[], moods mood[], span interval
)
"""
EVERYTHING: list[dict[str, Any]] = [
    {"name": name, "type": ["null", kind], "default": None, "doc": name}
    for name, kind in (
        ("b", "boolean"),
        ("big", "long"),
        ("n", {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 20}),
        ("c", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}),
        ("f", "double"),
        ("t", "string"),
        ("l", "string"),
        ("m", "string"),
        ("u", {"type": "string", "logicalType": "uuid"}),
        ("raw", "bytes"),
        ("d", {"type": "int", "logicalType": "date"}),
        ("tm", {"type": "long", "logicalType": "time-micros"}),
        ("ts", {"type": "long", "logicalType": "local-timestamp-micros"}),
        ("tz", {"type": "long", "logicalType": "timestamp-micros"}),
        ("doc", "string"),
        ("ints", {"type": "array", "items": ["null", "int"]}),
        ("words", {"type": "array", "items": "string"}),
        ("moods", {"type": "array", "items": "string"}),
        ("span", "string"),
    )
]


def test_values_of_all_common_types_are_exact_by_stream_and_by_snapshot(database: Database, tmp_path: Path) -> None:
    for statement in KINDS.split(";"):
        database.run(statement)
    cls = contract_type(tmp_path, "Everything", [FIELDS[0], *EVERYTHING], ["id"])
    source = database.source(Table("public.everything", emits=cls))
    snapshot, stream = Capture(source), Capture(source)
    values = (
        "true, 9007199254740993, 12345678901234567890.00000000000000000001, 0.10, 0.1, 'é,\"{}', 'x', 'sad', "
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\x00ff', '2026-02-03', '23:59:59.999999', "
        "'2026-02-03 04:05:06.7', '2026-02-03 04:05:06.000007+03', '{\"a\": 1.10}', '{1,null,3}', "
        "array['a,b', 'NULL', '', '\"'], '{happy,sad}', '1 day 02:03:04'"
    )
    database.run(f"insert into everything values (1, {values})")
    database.run("insert into everything (id) values (2)")
    stream.drain(database)
    database.run("update everything set id = id + 10")
    stream.drain(database)
    stream.crash()
    database.drop_slot()
    snapshot.drain(database)
    snapshot.crash()
    assert not stream.failures
    read, updated, empty = stream.drafts[0].value, stream.drafts[3].value, stream.drafts[5].value
    assert [draft.value for draft in snapshot.drafts] == [updated, empty]
    registry = MemoryRegistry()
    registry.register(contract_of(cls))
    codec = AvroCodec[Any](contract_of(cls), registry)
    for value in (read, updated, empty):
        assert codec.decode(codec.encode(value)) == value
    assert read.big == 9007199254740993
    assert read.n == Decimal("12345678901234567890.00000000000000000001")
    assert (read.c.as_tuple().exponent, read.f, read.t, read.m) == (-2, 0.1, 'é,"{}', "sad")
    assert (read.raw, read.d, read.tm) == (b"\0\xff", date(2026, 2, 3), time(23, 59, 59, 999999))
    assert read.tz == datetime(2026, 2, 3, 1, 5, 6, 7, UTC)
    assert (read.doc, read.ints, read.words) == ('{"a": 1.10}', (1, None, 3), ("a,b", "NULL", "", '"'))
    assert (read.moods, read.span) == (("happy", "sad"), "P1DT2H3M4S")


def test_an_infinite_date_fails_its_own_record_only(database: Database, tmp_path: Path) -> None:
    database.run("create table day (id bigint primary key, d timestamptz)")
    kind = {"type": "long", "logicalType": "timestamp-micros"}
    cls = contract_type(tmp_path, "Day", [FIELDS[0], {"name": "d", "type": kind, "doc": "Day."}], ["id"])
    capture = Capture(database.source(Table("public.day", emits=cls)))
    database.run("insert into day values (1, 'infinity'), (2, '2026-01-01'), (3, '0044-03-15 BC')")
    capture.drain(database)
    database.run("insert into day values (4, '-infinity'), (5, '2026-01-01')")
    capture.drain(database)
    capture.crash()
    assert [draft.value.id for draft in capture.drafts] == [2, 5]
    assert [getattr(error, "path", "") for error in capture.failures] == ["d", "d", "d"]


def test_bytes_that_are_no_text_stop_the_source_for_a_person(server: Postgres, item: type[Any]) -> None:
    """To wait for them to become one would be to wait for ever."""
    database = Database(server)
    database.run("create database plain encoding 'SQL_ASCII' template template0 locale 'C'")
    address = database.dsn.rpartition("/")[0] + "/plain"
    with pytest.MonkeyPatch.context() as patch, psycopg.connect(address, autocommit=True) as plain:
        patch.setenv(database.secret.environment_name, address)
        plain.execute("create table item (id bigint primary key, name text)")
        plain.execute("create publication crm for all tables")
        capture = Capture(database.source(Table("public.item", emits=item)))
        assert "the database's encoding is SQL_ASCII" in capture.source.findings()[0][0]
        capture.once()
        plain.execute("insert into item values (1, convert_from('\\xff', 'SQL_ASCII'))")

        def stopped() -> bool:
            try:
                capture.once()
            except UsageError as error:
                return "invalid byte sequence" in str(error) and "heddle snapshot erp --restart" in error.hint
            return False

        eventually(stopped, "it stops")
        capture.crash()
        database.drop_slot()
    database.close()


def test_a_function_of_the_row_makes_a_field(database: Database, tmp_path: Path) -> None:
    cls = contract_type(tmp_path, "Item", [*FIELDS, {"name": "at", "type": "string", "doc": "Version."}], ["id"])
    table = Table("public.item", emits=cls, columns={"name": lambda row: f"<{row['name']}>", "at": lambda r: r.version})
    capture = Capture(database.source(table))
    database.run("insert into item values (1, 'a')")
    capture.drain(database)
    database.run("update item set name = 'b'")
    capture.drain(database)
    capture.crash()
    values = [draft.value for draft in capture.drafts]
    assert [value.name for value in values] == ["<a>", "<b>"]
    assert values[0].at < values[1].at


def test_a_partitioned_table_is_one_table(server: Postgres, item: type[Any]) -> None:
    database = Database(server)
    database.run("create table item (id bigint primary key, name text) partition by range (id)")
    database.run("create table item_low partition of item for values from (0) to (10)")
    database.run("create table item_high partition of item for values from (10) to (20)")
    database.publish("for table item with (publish_via_partition_root = true)")
    capture = Capture(database.source(Table("public.item", emits=item)))
    database.run("insert into item values (1, 'a'), (11, 'b')")
    capture.drain(database)
    database.run("update item set name = 'c'")
    database.run("update item set id = 12 where id = 1")
    capture.drain(database)
    capture.crash()
    rows = dict(database.run("select id, name from item"))
    assert {value.id: value.name for value in capture.state(item).values()} == rows == {11: "c", 12: "c"}
    database.close()


def test_a_large_value_in_a_partition_of_less_identity_is_no_null(server: Postgres, item: type[Any]) -> None:
    """The log then calls the key alone a full row: its table's identity is what it tells."""
    database = Database(server)
    database.run("create table item (id bigint primary key, name text) partition by range (id)")
    database.run("create table item_low partition of item for values from (0) to (10)")
    database.run("alter table item_low alter column name set storage external")
    database.run("alter table item replica identity full")
    database.publish("for table item with (publish_via_partition_root = true)")
    capture = Capture(database.source(Table("public.item", emits=item)))
    database.run("insert into item values (1, repeat('x', 10000))")
    capture.drain(database)
    database.run("update item set id = 2")
    capture.drain(database)
    assert [str(failure)[:13] for failure in capture.failures] == ["a large value"]
    assert capture.state(item) == {}
    for _, statement in capture.source.findings():
        database.run(statement)
    assert capture.source.findings() == []
    database.run("update item set id = 3")
    capture.drain(database)
    capture.crash()
    assert [len(value.name) for value in capture.state(item).values()] == [10000]
    database.close()


def test_rows_of_inheriting_tables_are_not_the_tables(database: Database, item: type[Any]) -> None:
    """Neither by snapshot nor by stream: the log names their own tables."""
    capture = Capture(database.source(Table("public.item", emits=item)))
    database.run("create table special (extra int) inherits (item)")
    database.run("insert into item values (1, 'a')")
    database.run("insert into special values (2, 'b', 3)")
    capture.drain(database)
    database.run("insert into special values (3, 'c', 4)")
    capture.drain(database)
    capture.crash()
    assert [draft.value.id for draft in capture.drafts] == [1]


def test_a_generated_column_is_made_by_a_function(database: Database, tmp_path: Path) -> None:
    """The log does not hold it, and neither does a snapshot read it."""
    database.run("alter table item add column twice bigint generated always as (id * 2) stored")
    fields = [*FIELDS, {"name": "twice", "type": "long", "doc": "Twice the key."}]
    cls = contract_type(tmp_path, "Item", fields, ["id"])
    database.run("insert into item values (1, 'a')")
    refused = Capture(database.source(Table("public.item", emits=cls)))
    with pytest.raises(UsageError, match="has no column twice"):
        refused.drain(database)
    refused.crash()
    database.drop_slot()
    capture = Capture(
        database.source(Table("public.item", emits=cls, columns={"twice": lambda row: int(row["id"]) * 2}))
    )
    capture.drain(database)
    database.run("insert into item values (2, 'b')")
    capture.drain(database)
    capture.crash()
    assert [draft.value.twice for draft in capture.drafts] == [2, 4]


TEXTS = {
    "int2": "-32768", "int4": "7", "int8": "9007199254740993", "numeric": "0.10", "float4": "0.1", "float8": "1e-300",
    "money": "12.50", "bool": "true", "char(3)": "a", "varchar": "é", "text": "\\\\", "name": "n", "bytea": "\\x00ff",
    "date": "2026-02-03", "time": "24:00:00", "timetz": "04:05:06.7+03", "timestamp": "0001-01-01 00:00:00",
    "timestamptz": "2026-02-03 04:05:06.000007+03", "interval": "1 mon -2 days 03:04:05.6", "jsonpath": "$.a",
    "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "json": '{"a":  1.0}', "jsonb": '{"a":  1.0}', "xid8": "7",
    "inet": "10.0.0.1/8", "cidr": "10.0.0.0/8", "macaddr": "08:00:2b:01:02:03", "bit(3)": "101", "varbit": "1",
    "point": "(1,2)", "box": "(2,2),(1,1)", "path": "[(1,1),(2,2)]", "polygon": "((1,1),(2,2))",
    "circle": "<(1,2),3>", "line": "{1,2,3}", "lseg": "[(1,1),(2,2)]", "tsvector": "'a':1", "tsquery": "'a' & 'b'",
    "pg_lsn": "0/16B3748", "int4range": "[1,5)", "numrange": "(0.1,)", "tstzrange": "[2026-01-01 00:00:00+00,)",
    "int4multirange": "{[1,2)}", "int4[]": "{{1,2},{3,NULL}}", "text[]": '{"a,b",NULL,"NULL",""}',
    "timestamptz[]": "{infinity}", "mood": "sad", "cents": "0.10", "pair": '(1,"a b")', "cents[]": "{0.10}",
}  # fmt: skip


def test_a_value_of_any_type_has_one_text_by_stream_and_by_snapshot(database: Database, item: type[Any]) -> None:
    database.run("create type mood as enum ('happy', 'sad')")
    database.run("create type pair as (a int, b text)")
    database.run("create domain cents as numeric(12, 2)")
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(TEXTS))
    database.run(f"create table anything (id bigint primary key, name text, {columns})")
    source = database.source(Table("public.anything", emits=item))
    stream, snapshot = Capture(source), Capture(source)
    stream.drain(database)
    places = ", ".join(["%s"] * len(TEXTS))
    database.run(f"insert into anything values (1, null, {places})", *TEXTS.values())
    stream.drain(database)
    stream.crash()
    database.drop_slot()
    snapshot.drain(database)
    snapshot.crash()
    (told_by_stream,), (told_by_snapshot,) = stream.raw, snapshot.raw
    assert json.loads(told_by_stream)["columns"] == json.loads(told_by_snapshot)["columns"]
    found = [text for _, text in list(json.loads(told_by_stream)["columns"].values())[2:]]
    assert None not in found
    assert not [text for text in found if isinstance(text, list)]
