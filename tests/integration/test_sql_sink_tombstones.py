"""Tombstones at the SQL sink, on a real PostgreSQL: rows are deleted once, in their place, and do not come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, START, SUPERSEDED, Database, delivered, entry

from heddle.errors import FailureClass, UsageError
from heddle.integration import PartitionFencedError, SinkWriter
from heddle.local import Stack
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

ROW: dict[str, Any] = {"rows": None, "columns": ("entry_id", "booked_at", "currency")}
LINES: dict[str, Any] = {}


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture(params=[ROW, LINES], ids=["a row per event", "rows per event"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"on_tombstone": "delete", **request.param}


@pytest.fixture
def writer(database: Database, options: dict[str, Any]) -> Iterator[SinkWriter[Entry]]:
    with closing(database.entries(**options).open()) as writer:
        writer.bump(range(4))
        yield writer


def gone(name: str, offset: int, **options: Any) -> Any:
    return delivered(None, offset, key=name, **options)


def there(database: Database) -> list[str]:
    rows = database.execute("select distinct entry_id from {schema}.entry_line order by 1")
    return [name for (name,) in rows]


def test_the_rows_of_an_entity_that_is_gone_are_deleted(database: Database, writer: SinkWriter[Entry]) -> None:
    assert writer.apply([delivered(entry(name), n) for n, name in enumerate("abc")])[1] == []
    assert writer.apply([gone("b", 3)]) == ([APPLIED], [])
    assert there(database) == ["a", "c"]


def test_it_is_deleted_in_its_place_among_the_events_of_its_key(database: Database, writer: SinkWriter[Entry]) -> None:
    batch = [
        delivered(entry("a", 1), 0), gone("a", 1), delivered(entry("a", 2), 2), delivered(entry("b", 1), 3),
        gone("b", 4), gone("c", 5), delivered(entry("c", 1), 6),
    ]  # fmt: skip
    assert writer.apply(batch) == ([APPLIED] * 7, [])
    assert there(database) == ["a", "c"]
    assert writer.apply(batch) == ([RECOVERED] * 7, [])
    assert there(database) == ["a", "c"]


def test_of_one_identity_only_the_first_deletes(database: Database, writer: SinkWriter[Entry]) -> None:
    assert writer.apply([delivered(entry("a", 1), 0), gone("a", 1, id="t")])[0] == [APPLIED, APPLIED]
    assert writer.apply([delivered(entry("a", 2), 2), gone("a", 3, id="t"), gone("a", 4, id="t")]) == (
        [APPLIED, DUPLICATE, DUPLICATE],
        [],
    )
    assert writer.apply([gone("b", 5, id="u"), gone("b", 6, id="u")])[0] == [APPLIED, DUPLICATE]
    assert there(database) == ["a"]


def test_an_older_event_that_comes_late_does_not_bring_it_back(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 5), 0), gone("a", 1)])
    late = [delivered(entry("a", 4), 2), delivered(entry("a", 5), 3, replayed=True)]
    assert [writer.apply([each])[0] for each in late] == [[SUPERSEDED], [SUPERSEDED]]
    assert there(database) == []
    assert writer.apply([delivered(entry("a", 6), 4)])[0] == [APPLIED]
    assert there(database) == ["a"]


def test_a_live_event_of_the_same_version_follows_the_log(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 5), 0), gone("a", 1)])
    assert writer.apply([delivered(entry("a", 5), 2)])[0] == [APPLIED]
    assert there(database) == ["a"]


def test_a_tombstone_out_of_its_keys_order_is_not_guessed_at(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 5), 9)])
    applied, (failure,) = writer.apply([gone("a", 1, replayed=True)])
    assert (applied, failure.failure_class, failure.code) == ([None], FailureClass.CONTRACT, "tombstone-out-of-order")
    assert there(database) == ["a"]


@pytest.mark.parametrize("key", ["a/b", "%61", "a\0"])
def test_a_key_of_another_make_fails_that_record_alone(database: Database, writer: SinkWriter[Entry], key: str) -> None:
    writer.apply([delivered(entry("a", 1), 0)])
    applied, (failure,) = writer.apply([gone(key, 1), gone("a", 2)])
    assert (applied, failure.index, failure.failure_class) == ([None, APPLIED], 0, FailureClass.CONTRACT)
    assert there(database) == []


def test_rows_that_the_database_will_not_give_up_fail_their_record_and_hold_its_key(database: Database) -> None:
    with closing(database.entries(**ROW, on_tombstone="delete").open()) as writer:
        writer.bump(range(4))
        writer.apply([delivered(entry(name), n) for n, name in enumerate("abc")])
        database.execute(
            "create table {schema}.uses (entry_id text references {schema}.entry_line); "
            "insert into {schema}.uses values ('b')"
        )
        batch = [gone("a", 3), gone("b", 4), gone("c", 5), delivered(entry("b", 9), 6), delivered(entry("a", 9), 7)]
        applied, (failure,) = writer.apply(batch)
    assert applied == [APPLIED, None, APPLIED, None, APPLIED]
    assert (failure.index, failure.code) == (1, "foreign-key-violation")
    assert there(database) == ["a", "b"]


def test_what_failed_holds_the_tombstone_behind_it(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 1), 0)])
    bad = delivered(entry("a\0", 2), 1, key="a")
    applied, (failure,) = writer.apply([bad, gone("a", 2)])
    assert (applied, failure.index) == ([None, None], 0)
    assert there(database) == ["a"]


def test_a_former_owner_deletes_nothing(database: Database, options: dict[str, Any]) -> None:
    sink = database.entries(**options)
    with closing(sink.open()) as first, closing(sink.open()) as second:
        first.bump([0])
        first.apply([delivered(entry("a"), 0)])
        second.bump([0])
        with pytest.raises(PartitionFencedError):
            first.apply([gone("a", 1)])
    assert there(database) == ["a"]


def test_a_crash_before_the_commit_leaves_it_all_to_the_next_try(
    database: Database, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone's inbox row and the deletion are one transaction."""
    sink = database.entries(**options)
    with closing(sink.open()) as writer:
        writer.bump([0])
        writer.apply([delivered(entry("a"), 0)])
        database.execute(
            "create function {schema}.refuse() returns trigger language plpgsql as "
            "$$ begin raise exception using errcode = '40001'; end $$; "
            "create trigger refuse before delete on {schema}.entry_line for each row execute function {schema}.refuse()"
        )
        with pytest.raises(Exception, match="ledger"):
            writer.apply([gone("a", 1)])
        assert there(database) == ["a"]
        database.execute("drop trigger refuse on {schema}.entry_line")
        assert writer.apply([gone("a", 1)]) == ([APPLIED], [])
    assert there(database) == []


def test_random_lives_end_as_the_log_says(database: Database, writer: SinkWriter[Entry]) -> None:
    """Batches of any size, each run once or twice, against a dict."""
    dice, log, lives = random.Random(5), [], dict[str, int]()
    for offset in range(600):
        name = dice.choice("abcdefgh")
        if dice.random() < 0.35:
            log.append(gone(name, offset))
            lives.pop(name, None)
        else:
            log.append(delivered(entry(name, offset), offset))
            lives[name] = offset
    start = 0
    while start < len(log):
        batch = log[start : start + dice.randint(1, 60)]
        answers, failures = writer.apply(batch)
        assert failures == []
        assert set(answers) <= {APPLIED, SUPERSEDED}
        if dice.random() < 0.3:
            assert set(writer.apply(batch)[0]) == {RECOVERED}
        start += len(batch)
    found = database.execute("select entry_id, booked_at from {schema}.entry_line group by 1, 2")
    assert {name: int((moment - START).total_seconds()) for name, moment in found} == lives


def test_ignored_or_parked_it_needs_no_table_of_its_own(database: Database) -> None:
    for on_tombstone in ("park", "ignore"):
        statements = database.sink(**ROW, on_tombstone=on_tombstone).plan()
        assert not any("heddle_versions" in statement for statement in statements)
    assert any("heddle_versions" in s for s in database.sink(**ROW, on_tombstone="delete").plan())


def test_a_key_that_is_not_the_contracts_own_is_refused(database: Database) -> None:
    with pytest.raises(UsageError, match="no tombstone says which rows"):
        database.sink(key="source_id", on_tombstone="delete")
