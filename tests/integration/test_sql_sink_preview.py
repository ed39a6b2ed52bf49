"""What the SQL sink says that it would do: what it then does, and nothing before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, SUPERSEDED, Database, Link, delivered, entry, proxied

from heddle.errors import DependencyDownError, Failure, FailureClass
from heddle.integration import Delivered, SinkWriter
from heddle.local import Stack
from heddle.preview import Preview, PreviewableSink, Rows
from heddle.sinks.sql import SqlSink
from heddle.sinks.sql.preview import IDLE_TIMEOUT_S, LONGEST_WAIT_S, MAX_EVENTS_AT_ONCE, MAX_ROWS_OF_ENTITY
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

DEADLINE_S = 20.0
NO_BRIBES = "alter table {schema}.entry_line add constraint no_bribes check (account <> 'bribes')"
TABLES = ("entry_line", "heddle_versions_entry_line", "heddle_inbox", "heddle_epochs", "heddle_inbox_bounds")


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture
def sink(database: Database) -> SqlSink[Entry]:
    sink = database.entries()
    database.execute(NO_BRIBES)
    return sink


@pytest.fixture
def writer(sink: SqlSink[Entry]) -> Iterator[SinkWriter[Entry]]:
    writer = sink.open()
    writer.bump([0, 1])
    yield writer
    writer.close()


def everything(database: Database) -> list[Any]:
    """All rows of all tables, with the transaction that wrote each."""
    query = "select xmin::text, t::text from {{schema}}.{} as t"
    return database.execute(" union all ".join(query.format(table) for table in TABLES) + " order by 2")


def accounts(rows: Rows | None) -> list[str]:
    assert rows is not None
    return [row["account"] for row in rows.shown]


def summary(previews: list[Preview]) -> list[Any]:
    return [p.answer.code if isinstance(p.answer, Failure) else p.answer for p in previews]


def test_each_outcome_is_foretold_and_nothing_stays(
    database: Database, sink: SqlSink[Entry], writer: SinkWriter[Entry]
) -> None:
    applied = delivered(entry("a", 5, ("live",)), 0, id="applied")
    writer.apply([applied])
    before = everything(database)
    batch = [
        applied,
        applied._replace(record=applied.record._replace(offset=9)),
        delivered(entry("a", 5, ("late",)), 1, replayed=True),
        delivered(entry("a", 6, ("newer",)), 2),
        delivered(entry("b", 1, ("bribes",)), 3),
        delivered(entry("b", 0, ("fine",)), 4),
        delivered(entry("c", 1, ("n\0",)), 5),
        delivered(entry("d", 1, ("x", "y"), amount="1234.50"), 6),
    ]
    previews = sink.preview(batch)
    assert summary(previews) == [
        RECOVERED, DUPLICATE, SUPERSEDED, APPLIED, "check-violation", None, "nul-in-text", APPLIED
    ]  # fmt: skip
    refused = previews[4].answer
    assert isinstance(refused, Failure)
    assert (refused.index, refused.failure_class, refused.path) == (4, FailureClass.CONTRACT, "no_bribes")
    assert [accounts(previews[3].now), accounts(previews[3].then)] == [["live"], ["newer"]]
    assert [accounts(previews[4].now), accounts(previews[4].then)] == [[], []]
    assert previews[7].then == Rows(
        tuple(
            {
                "entry_id": "d",
                "source_id": "source-d",
                "kind": "INVOICE",
                "booked_at": entry("d", 1).booked_at,
                "currency": "EUR",
                "line_no": number,
                "account": account,
                "debit": Decimal("1234.50"),
                "credit": Decimal("0.00"),
            }
            for number, account in enumerate("xy", 1)
        ),
        2,
    )
    assert everything(database) == before


def test_a_key_of_several_columns_and_a_row_per_event(database: Database) -> None:
    columns = ("entry_id", "kind", "booked_at", "source_id")
    sink = database.sink(rows=None, table="booking", key=("entry_id", "booked_at"), version="v", columns={
        **{name: name for name in columns}, "v": "booked_at",
    })  # fmt: skip
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("a", 1), 0)])
    first, second = sink.preview([delivered(entry("a", 1), 1), delivered(entry("a", 2), 2)])
    assert (first.answer, second.answer) == (APPLIED, APPLIED)
    assert first.now == first.then
    assert (second.now, second.then and second.then.count) == (Rows(), 1)
    writer.close()


def test_without_parking_a_later_event_of_a_failed_key_would_go_on(database: Database) -> None:
    sink = database.entries(order="supersede")
    database.execute(NO_BRIBES)
    batch = [delivered(entry("a", 3, ("bribes",)), 0), delivered(entry("a", 2, ("fine",)), 1)]
    previews = sink.preview(batch)
    assert summary(previews) == ["check-violation", APPLIED]
    assert [accounts(p.then) for p in previews] == [["fine"], ["fine"]]


def test_a_constraint_that_waits_for_the_commit_is_asked(database: Database, sink: SqlSink[Entry]) -> None:
    database.execute(
        "create table {schema}.account (name text primary key); insert into {schema}.account values ('fine');"
        "alter table {schema}.entry_line add constraint known foreign key (account) references {schema}.account"
        " deferrable initially deferred"
    )
    previews = sink.preview([delivered(entry("a", 1, ("fine",)), 0), delivered(entry("b", 1, ("new",)), 1)])
    assert summary(previews) == [APPLIED, "foreign-key-violation"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_preview_says_what_the_sink_then_does(
    database: Database, sink: SqlSink[Entry], writer: SinkWriter[Entry], data: st.DataObject
) -> None:
    database.execute("truncate {schema}.entry_line, {schema}.heddle_versions_entry_line, {schema}.heddle_inbox")
    for round_ in range(2):
        batch = data.draw(st.lists(_events(round_), min_size=1, max_size=12, unique_by=lambda d: d.record.offset))
        before = everything(database)
        previews = sink.preview(batch)
        assert everything(database) == before
        answers, failures = writer.apply(batch)
        failed = {failure.index: failure.code for failure in failures}
        assert summary(previews) == [failed.get(i, answer) for i, answer in enumerate(answers)]
        rows = database.lines()
        for event, preview in zip(batch, previews, strict=True):
            entity = event.event.value.entry_id
            assert accounts(preview.then) == [account for owner, _, account, _ in rows if owner == entity]


@st.composite
def _events(draw: st.DrawFn, round_: int) -> Delivered[Entry]:
    """An entity has one Kafka key, as with every contract."""
    offset = draw(st.integers(0, 40)) + 100 * round_
    entity = draw(st.sampled_from("abc"))
    lines = draw(st.lists(st.sampled_from(("x", "y", "bribes", "n\0", "z")), max_size=2))
    identity = draw(st.sampled_from([f"new-{offset}", f"new-{offset}", "p", "q"]))
    body, replayed = draw(st.sampled_from((b"1", b"1", b"2"))), draw(st.booleans())
    value = entry(entity, draw(st.integers(0, 3)), tuple(lines))
    return delivered(value, offset, id=identity, body=body, replayed=replayed)


def test_many_rows_are_counted_and_the_first_shown(sink: SqlSink[Entry]) -> None:
    names = tuple(f"account-{n}" for n in range(MAX_ROWS_OF_ENTITY + 50))
    [preview] = sink.preview([delivered(entry("a", 1, names), 0)])
    assert preview.then is not None
    assert preview.then.count == len(names)
    assert accounts(preview.then) == list(names[:MAX_ROWS_OF_ENTITY])


def test_events_of_a_key_are_tried_together_however_many_there_are(sink: SqlSink[Entry]) -> None:
    keys = MAX_EVENTS_AT_ONCE + 20
    batch = [delivered(entry(f"e{i % keys}", i // keys, (f"v{i // keys}",)), i) for i in range(3 * keys)]
    previews = sink.preview(batch)
    assert [p.answer for p in previews] == [SUPERSEDED] * (2 * keys) + [APPLIED] * keys
    assert {tuple(accounts(p.then)) for p in previews} == {("v2",)}


def test_no_event_is_no_preview(sink: SqlSink[Entry]) -> None:
    assert isinstance(sink, PreviewableSink)
    assert sink.preview([]) == []


def test_a_running_sink_is_neither_fenced_nor_refused(
    database: Database, sink: SqlSink[Entry], writer: SinkWriter[Entry]
) -> None:
    epochs = database.execute("select * from {schema}.heddle_epochs order by partition")
    batch = [delivered(entry("a", 1, ("live",)), 0)]
    sink.preview(batch)
    assert database.execute("select * from {schema}.heddle_epochs order by partition") == epochs
    assert writer.apply(batch) == ([APPLIED], [])


def test_a_running_sink_waits_for_no_preview_that_stands_still(database: Database, writer: SinkWriter[Entry]) -> None:
    """The previewing process freezes between the effect and its roll-back, with its locks in hand."""
    batch = [delivered(entry("a", 1), 0)]
    frozen, thaw = threading.Event(), threading.Event()
    merged = False

    def freeze_after_merge(data: bytes, _link: Link) -> bool:
        nonlocal merged
        if merged and not frozen.is_set():
            frozen.set()
            return thaw.wait(DEADLINE_S)
        merged = merged or b"with fresh as" in data
        return True

    with proxied(database.dsn) as proxy, ThreadPoolExecutor(1) as pool:
        previewing = database.sink(dsn=proxy.dsn)
        proxy.hook = freeze_after_merge
        preview = pool.submit(previewing.preview, batch)
        assert frozen.wait(DEADLINE_S)
        began = time.monotonic()
        assert writer.apply(batch) == ([APPLIED], [])
        assert time.monotonic() - began < IDLE_TIMEOUT_S + 1
        thaw.set()
        with pytest.raises(DependencyDownError):
            preview.result(DEADLINE_S)


def test_rows_that_somebody_holds_are_not_waited_for(
    database: Database, sink: SqlSink[Entry], writer: SinkWriter[Entry]
) -> None:
    writer.apply([delivered(entry(name, 1, ("now",)), n) for n, name in enumerate("abcde")])
    batch = [delivered(entry(name, 2, ("then",)), 10 + n) for n, name in enumerate("abcde")]
    with psycopg.connect(database.dsn) as other:
        held = 'update "{}".heddle_versions_entry_line set booked_at = booked_at where entry_id = %s'
        other.execute(held.format(database.schema), ("c",))
        began = time.monotonic()
        previews = sink.preview(batch)
        assert time.monotonic() - began < LONGEST_WAIT_S
        other.rollback()
    assert [p.answer for p in previews] == [APPLIED, APPLIED, None, APPLIED, APPLIED]
    assert [p.then is None for p in previews] == [False, False, True, False, False]
    assert [accounts(p.now) for p in previews] == [["now"]] * 5
    assert [bool(p.obstacle) for p in previews] == [False, False, True, False, False]
    assert "another transaction holds locks on" in previews[2].obstacle


def test_a_table_in_somebodys_hands_is_given_up_soon(database: Database, sink: SqlSink[Entry]) -> None:
    batch = [delivered(entry(f"e{i}"), i) for i in range(2 * MAX_EVENTS_AT_ONCE)]
    with psycopg.connect(database.dsn) as other:
        other.execute(f'lock table "{database.schema}".entry_line in access exclusive mode')
        began = time.monotonic()
        previews = sink.preview(batch)
        assert time.monotonic() - began < 2 * LONGEST_WAIT_S
        other.rollback()
    assert {(p.answer, p.now, p.then) for p in previews} == {(None, None, None)}
    assert all("locks" in p.obstacle for p in previews)
