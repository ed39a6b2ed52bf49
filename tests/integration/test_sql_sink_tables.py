"""Tables of the SQL sink on a real PostgreSQL: planned, made once, checked, refused; what each type becomes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from sql_sink_harness import APPLIED, SUPERSEDED, Database, contract_type, delivered, entry

from heddle.errors import UsageError
from heddle.local import Stack
from schemas.ledger import Entry

pytestmark = pytest.mark.stack


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


def field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "doc": f"The {name}."}


def logical(kind: str, name: str, **more: int) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


ADDRESS = {
    "type": "record",
    "name": "Address",
    "doc": "Where.",
    "fields": [field("city", "string"), field("zip", ["null", "string"])],
}
WIDE = {
    "type": "record",
    "name": "Wide",
    "doc": "One of each.",
    "fields": [
        field("select", "string"),
        field("version", "long"),
        field("flag", "boolean"),
        field("small", "int"),
        field("single", "float"),
        field("ratio", "double"),
        field("raw", "bytes"),
        field("amount", logical("bytes", "decimal", precision=30, scale=9)),
        field("rebate", ["null", logical("bytes", "decimal", precision=6, scale=2)]),
        field("day", logical("int", "date")),
        field("at", logical("long", "timestamp-micros")),
        field("local", logical("long", "local-timestamp-millis")),
        field("clock", logical("long", "time-micros")),
        field("uid", logical("string", "uuid")),
        field("stage", {"type": "enum", "name": "Stage", "doc": "s", "symbols": ["OPEN", "WON"]}),
        field("order", ["null", "string"]),
        field("home", ADDRESS),
        field("work", ["null", "Address"]),
        field("tags", {"type": "array", "items": "string"}),
        field("prices", {"type": "map", "values": logical("bytes", "decimal", precision=6, scale=2)}),
        field("places", {"type": "array", "items": ["null", "Address"]}),
    ],
}


def wide_value(cls: type[Any], **changes: Any) -> Any:
    home = sys.modules[cls.__module__].Address(city='Zü"rich', zip=None)
    values: dict[str, Any] = {
        "select": "äöü \\u0000 ✓",
        "version": 2**62,
        "flag": True,
        "small": -(2**31),
        "single": 0.5,
        "ratio": 1e300,
        "raw": b"\x00\xff",
        "amount": Decimal("-123456789012345678901.123456789"),
        "rebate": None,
        "day": date(9999, 12, 31),
        "at": datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "local": datetime(2026, 3, 29, 2, 30),
        "clock": time(23, 59, 59, 999999),
        "uid": uuid.UUID(int=7),
        "stage": "WON",
        "order": None,
        "home": home,
        "work": None,
        "tags": ("a", "b"),
        "prices": {"x": Decimal("1.20")},
        "places": (home, None),
    }
    return cls(**{**values, **changes})


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    return contract_type(tmp_path_factory.mktemp("wide"), WIDE, "select")


def wide_sink(database: Database, wide: type[Any], **options: Any) -> Any:
    return database.sink(wide, **{"table": "wide", "key": "select", "version": "version", **options})


def test_every_type_comes_back_as_it_went_in(database: Database, wide: type[Any]) -> None:
    sink = wide_sink(database, wide)
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    value = wide_value(wide)
    other = wide_value(wide, select="other", rebate=Decimal("-0.05"), order="1", work=value.home)
    assert writer.apply([delivered(value, 0), delivered(other, 1)]) == ([APPLIED, APPLIED], [])
    writer.close()
    rows = database.execute(
        "select \"select\", version, flag, small, single, ratio, raw, amount, day::text, (at at time zone 'utc')::text,"
        ' local, clock, uid, stage, rebate, "order", home, work, tags, prices, places'
        " from {schema}.wide order by version, rebate nulls first"
    )
    home = {"city": 'Zü"rich', "zip": None}
    same = (
        *(2**62, True, -(2**31), 0.5, 1e300, b"\x00\xff", value.amount),
        *("9999-12-31", "0001-01-01 00:00:00.000001", value.local, value.clock, value.uid, "WON"),
    )
    rest = (["a", "b"], {"x": "1.20"}, [home, None])
    assert rows == [
        (value.select, *same, None, None, home, None, *rest),
        ("other", *same, Decimal("-0.05"), "1", home, home, *rest),
    ]


def test_decimals_order_versions_and_name_entities_as_numbers(database: Database, wide: type[Any]) -> None:
    sink = wide_sink(database, wide, table="versioned", version="amount")
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    amounts = ("9.5", "10.25", "1E+1")
    batch = [delivered(wide_value(wide, amount=Decimal(amount)), n) for n, amount in enumerate(amounts)]
    assert writer.apply(batch)[0] == [SUPERSEDED, APPLIED, SUPERSEDED]
    assert writer.apply([delivered(wide_value(wide, amount=Decimal("9.75")), 3)])[0] == [SUPERSEDED]
    assert database.execute("select amount from {schema}.versioned") == [(Decimal("10.250000000"),)]
    writer.close()

    sink = wide_sink(database, wide, table="named", key="amount")
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    batch = [delivered(wide_value(wide, amount=Decimal(amount)), 10 + n) for n, amount in enumerate(("1.0", "1", "2"))]
    assert writer.apply(batch)[0] == [SUPERSEDED, APPLIED, APPLIED]
    assert database.execute("select amount from {schema}.named order by 1") == [(Decimal(1),), (Decimal(2),)]
    writer.close()


def test_a_nul_deep_inside_json_fails_that_record(database: Database, wide: type[Any]) -> None:
    sink = wide_sink(database, wide)
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    bad = wide_value(wide, select="bad", tags=("a\0b",))
    answers, failures = writer.apply([delivered(bad, 0, key="bad"), delivered(wide_value(wide), 1, key="good")])
    assert answers == [None, APPLIED]
    assert [(f.index, f.failure_class, f.code) for f in failures] == [(0, "contract", "untranslatable-character")]
    writer.close()


def test_columns_rename_choose_and_reach_into_records(database: Database, wide: type[Any]) -> None:
    columns = {"id": "select", "n": "version", "city": "home.city", "work_city": "work.city"}
    sink = wide_sink(database, wide, key="id", version="n", columns=columns)
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(wide_value(wide), 0)])
    writer.close()
    assert database.execute("select id, n, city, work_city from {schema}.wide") == [
        ("äöü \\u0000 ✓", 2**62, 'Zü"rich', None)
    ]


def test_a_key_of_several_columns(database: Database, wide: type[Any]) -> None:
    sink = wide_sink(database, wide, key=("stage", "uid", "day"), columns=("stage", "uid", "day", "version", "select"))
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    values = [wide_value(wide, version=v, stage=s, select=f"{s}{v}") for v, s in ((1, "WON"), (1, "OPEN"), (2, "WON"))]
    writer.apply([delivered(value, i) for i, value in enumerate(values)])
    writer.close()
    assert database.execute('select "select" from {schema}.wide order by 1') == [("OPEN1",), ("WON2",)]


def test_lines_of_plain_values_and_of_renamed_columns(database: Database, wide: type[Any]) -> None:
    plain = wide_sink(database, wide, rows="tags", columns=("select", "version", "tags"))
    plain.apply_plan()
    writer = plain.open()
    writer.bump([0])
    writer.apply([delivered(wide_value(wide), 0)])
    writer.close()
    assert database.execute("select line_no, tags from {schema}.wide order by 1") == [(1, "a"), (2, "b")]
    renamed = database.sink(columns={"entry_id": "entry_id", "booked_at": "booked_at", "dr": "lines.debit"}, table="dr")
    renamed.apply_plan()
    ledger = renamed.open()
    ledger.bump([0])
    assert ledger.apply([delivered(entry("a", amount="7.00"), 0)])[0] == [APPLIED]
    ledger.close()
    assert database.execute("select line_no, dr from {schema}.dr order by 1") == [
        (1, Decimal("7.00")),
        (2, Decimal("7.00")),
    ]


def test_a_plan_is_made_once_and_then_empty(database: Database) -> None:
    sink = database.sink()
    planned = sink.plan()
    assert planned[0] == f'create schema "{database.schema}"'
    assert sum("create table" in statement for statement in planned) == 5
    assert sink.apply_plan() == planned
    assert sink.plan() == []
    assert sink.apply_plan() == []


def test_two_that_apply_at_once_take_turns(database: Database) -> None:
    sink = database.sink()
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: len(sink.apply_plan()), range(3)))
    assert sorted(done)[:2] == [0, 0]
    assert max(done) > 0


def test_a_worker_makes_no_tables(database: Database) -> None:
    sink = database.sink()
    with pytest.raises(UsageError) as missing:
        sink.open()
    assert "heddle apply" in missing.value.hint
    assert database.execute("select 1 from pg_namespace where nspname = %s", (database.schema,)) == []


def test_a_missing_column_is_added_and_rows_before_it_stay(database: Database) -> None:
    sink = database.entries()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("old"), 0)])
    writer.close()
    database.execute("alter table {schema}.entry_line drop column source_id")
    assert sink.plan() == [f'alter table "{database.schema}"."entry_line" add column "source_id" text']
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("new"), 1)])
    writer.close()
    assert database.execute("select distinct source_id from {schema}.entry_line order by 1") == [
        ("source-new",),
        (None,),
    ]


def test_a_table_that_was_there_before_serves_when_it_can_hold_every_value(database: Database) -> None:
    database.execute(
        "create schema {schema}; create table {schema}.entry_line (entry_id varchar(40), line_no bigint,"
        " source_id varchar, kind text, booked_at timestamptz, currency text, account text, debit numeric,"
        " credit numeric(20,4), note text, id bigint generated always as identity, unique (line_no, entry_id))"
    )
    sink = database.sink()
    assert not any("entry_line" in statement and "versions" not in statement for statement in sink.plan())
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    assert writer.apply([delivered(entry("a"), 0), delivered(entry("a", 1, ("one",)), 1)])[0][1] == APPLIED
    assert [account for _, _, account, _ in database.lines()] == ["one"]
    writer.close()


def test_a_table_that_cannot_serve_is_refused_with_every_difference(database: Database) -> None:
    database.execute(
        "create schema {schema}; create table {schema}.entry_line (entry_id text, line_no int, source_id int,"
        " kind text, booked_at timestamp, currency char(3), account text, debit numeric(14,1), credit numeric(14,2),"
        " cost_centre text not null, primary key (entry_id))"
    )
    for call in (database.sink().plan, database.sink().apply_plan, database.sink().open):
        with pytest.raises(UsageError) as refused:
            call()
    text = str(refused.value)
    for part in (
        "column source_id is integer, wanted is text",
        "column booked_at is timestamp without time zone, wanted is timestamp with time zone",
        "column currency is character(3), wanted is text",
        "column debit is numeric(14,1), wanted is numeric(14,2)",
        "column cost_centre must have a value and nothing fills it",
        "no primary key or unique constraint over (entry_id, line_no)",
    ):
        assert part in text
    assert "credit" not in text


def test_tables_of_another_format_are_refused(database: Database) -> None:
    sink = database.entries()
    database.execute("comment on table {schema}.heddle_inbox is 'heddle format 99'")
    with pytest.raises(UsageError, match="heddle format 99"):
        sink.open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "entry.line.x"}, "not schema.table"),
        ({"key": "nope"}, "key='nope' is not one of its columns"),
        ({"key": ()}, "key is empty"),
        ({"key": "account"}, "key column account"),
        ({"version": "nope"}, "version='nope'"),
        ({"version": "currency"}, "cannot order the versions"),
        ({"version": "entry_id"}, "cannot order the versions"),
        ({"rows": "currency"}, "no array field"),
        ({"columns": {"entry_id": "entry_id", "booked_at": "booked_at", "x": "lines.nope"}}, "no field lines.nope"),
        ({"columns": ("entry_id", "booked_at", "currency.x")}, "no field currency.x"),
        ({"columns": {"entry_id": "entry_id", "booked_at": "booked_at", "line_no": "currency"}}, "sink's own column"),
        ({"table": "t" * 60}, "longer than 63 bytes"),
    ],
)
def test_a_declaration_that_cannot_be_right_is_refused_when_it_is_made(
    database: Database, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        database.sink(Entry, **options)
