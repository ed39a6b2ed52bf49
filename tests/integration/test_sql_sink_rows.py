"""The SQL sink with one row per event: the row itself carries the entity's version."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, START, SUPERSEDED, Database, delivered, entry

from heddle.integration import SinkWriter
from heddle.local import Stack
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

COLUMNS = {"entry_id": "entry_id", "booked_at": "booked_at", "currency": "currency", "lines": "lines"}


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture
def writer(database: Database) -> Iterator[SinkWriter[Entry]]:
    sink = database.sink(rows=None, table="booking", columns=COLUMNS)
    sink.apply_plan()
    writer = sink.open()
    writer.bump([0, 1])
    yield writer
    writer.close()


def accounts(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("select entry_id, lines -> 0 ->> 'account' from {schema}.booking order by 1")


def test_versions_rise_and_equal_ones_follow_the_log(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 5, ("five",)), 0)])
    assert writer.apply([delivered(entry("a", 4, ("four",)), 1)])[0] == [SUPERSEDED]
    assert accounts(database) == [("a", "five")]
    tied = [delivered(entry("a", 5, (f"tie-{n}",)), 2 + n) for n in range(3)]
    assert writer.apply(tied)[0] == [SUPERSEDED, SUPERSEDED, APPLIED]
    assert accounts(database) == [("a", "tie-2")]
    mixed = [delivered(entry("a", v, (f"v{v}",)), 10 + v) for v in (7, 9, 8)]
    assert writer.apply(mixed)[0] == [SUPERSEDED, APPLIED, SUPERSEDED]
    assert accounts(database) == [("a", "v9")]


def test_a_replayed_event_gives_way_in_its_version(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 5, ("live",)), 0)])
    late, other = delivered(entry("a", 5, ("late",)), 1, replayed=True), delivered(entry("b", 1), 2, replayed=True)
    assert writer.apply([late, other])[0] == [SUPERSEDED, APPLIED]
    tied = [delivered(entry("b", 1, (name,)), 3 + n, replayed=name != "l") for n, name in enumerate("rlr")]
    assert writer.apply(tied)[0] == [SUPERSEDED, APPLIED, SUPERSEDED]
    assert accounts(database) == [("a", "live"), ("b", "l")]
    assert writer.apply([delivered(entry("a", 6, ("newer",)), 9, replayed=True)])[0] == [APPLIED]


def test_known_identities_change_nothing(database: Database, writer: SinkWriter[Entry]) -> None:
    batch = [delivered(entry("a"), 0), delivered(entry("b"), 1, id="b")]
    writer.apply(batch)
    again = [*batch, delivered(entry("b"), 2, id="b", partition=1), delivered(entry("b"), 3, id="b", body=b"x")]
    answers, failures = writer.apply(again)
    assert answers == [RECOVERED, RECOVERED, DUPLICATE, None]
    assert [(f.index, f.code) for f in failures] == [(3, "identity-conflict")]
    assert accounts(database) == [("a", "cash"), ("b", "cash")]


def test_a_row_from_before_without_version_is_taken_over(database: Database, writer: SinkWriter[Entry]) -> None:
    database.execute("alter table {schema}.booking alter booked_at drop not null, alter lines drop not null")
    database.execute("insert into {schema}.booking values ('a', null, 'EUR', null), ('b', %s, 'EUR', null)", (START,))
    older = delivered(entry("b", -5), 1)
    assert writer.apply([delivered(entry("a", -5), 0), older])[0] == [APPLIED, SUPERSEDED]
    assert accounts(database) == [("a", "cash"), ("b", None)]


def test_a_batch_of_bad_rows_is_sorted_out_within_the_batch_deadline(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    database.execute(f"alter table {{schema}}.booking add check (booked_at < '{START + timedelta(hours=1)}')")
    batch = [delivered(entry(f"e{i}", 7_200 if i % 3 else 0), i) for i in range(1_000)]
    began = time.monotonic()
    answers, failures = writer.apply(batch)
    assert time.monotonic() - began < 30
    assert [f.index for f in failures] == [i for i in range(1_000) if i % 3]
    assert answers == [None if i % 3 else APPLIED for i in range(1_000)]
    assert len(accounts(database)) == 334
