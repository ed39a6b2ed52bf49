"""Outcomes of the SQL sink on a real PostgreSQL: what is new, what is known, what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, SUPERSEDED, Database, delivered, entry

from heddle.errors import FailureClass, UsageError
from heddle.integration import Applied, PartitionFencedError, SinkWriter
from heddle.local import Stack
from heddle.sinks.pruning import prune
from schemas.ledger import Entry

pytestmark = pytest.mark.stack


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture
def writer(database: Database) -> Iterator[SinkWriter[Entry]]:
    yield from _open(database)


def _open(database: Database, **options: str) -> Iterator[SinkWriter[Entry]]:
    writer = database.entries(**options).open()
    writer.bump(range(4))
    yield writer
    writer.close()


def test_new_events_are_applied_as_rows(database: Database, writer: SinkWriter[Entry]) -> None:
    answers, failures = writer.apply([delivered(entry("a"), 0), delivered(entry("b", accounts=("x", "y", "z")), 1)])
    assert (answers, failures) == ([APPLIED, APPLIED], [])
    assert [(e, n, account) for e, n, account, _ in database.lines()] == [
        ("a", 1, "cash"),
        ("a", 2, "sales"),
        ("b", 1, "x"),
        ("b", 2, "y"),
        ("b", 3, "z"),
    ]


def test_the_same_batch_again_is_recovered_and_changes_nothing(database: Database, writer: SinkWriter[Entry]) -> None:
    batch = [delivered(entry("a"), 0), delivered(entry("b"), 1)]
    writer.apply(batch)
    before = database.execute("select *, xmin::text from {schema}.entry_line order by 1, line_no")
    assert writer.apply(batch) == ([RECOVERED, RECOVERED], [])
    assert database.execute("select *, xmin::text from {schema}.entry_line order by 1, line_no") == before


def test_the_same_identity_elsewhere_is_a_duplicate_in_and_across_partitions_and_batches(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    first, again = delivered(entry("a"), 0, id="one"), delivered(entry("a"), 1, id="one")
    assert writer.apply([first, again]) == ([APPLIED, DUPLICATE], [])
    elsewhere = delivered(entry("a"), 0, id="one", partition=3)
    assert writer.apply([elsewhere, delivered(entry("a"), 7, id="one")]) == ([DUPLICATE, DUPLICATE], [])
    assert len(database.lines()) == 2


def test_an_older_version_is_superseded_and_an_equal_one_follows_the_log(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    writer.apply([delivered(entry("a", 5, ("five",)), 0)])
    assert writer.apply([delivered(entry("a", 4, ("four",)), 1)])[0] == [SUPERSEDED]
    assert writer.apply([delivered(entry("a", 5, ("other-five",)), 2)])[0] == [APPLIED]
    assert [account for _, _, account, _ in database.lines()] == ["other-five"]
    versions = [delivered(entry("a", v, (f"v{v}-{n}",)), 10 + n) for n, v in enumerate((6, 8, 7, 8))]
    assert writer.apply(versions)[0] == [SUPERSEDED, SUPERSEDED, SUPERSEDED, APPLIED]
    assert [account for _, _, account, _ in database.lines()] == ["v8-3"]


def test_a_replayed_event_gives_way_to_what_is_applied_in_its_version(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    writer.apply([delivered(entry("a", 5, ("live",)), 9)])
    assert writer.apply([delivered(entry("a", 5, ("late",)), 0, replayed=True)])[0] == [SUPERSEDED]
    assert writer.apply([delivered(entry("a", 4, ("late",)), 1, replayed=True)])[0] == [SUPERSEDED]
    assert [account for _, _, account, _ in database.lines()] == ["live"]
    assert writer.apply([delivered(entry("a", 6, ("newer",)), 2, replayed=True)])[0] == [APPLIED]
    assert [account for _, _, account, _ in database.lines()] == ["newer"]
    assert writer.apply([delivered(entry("a", 6, ("log",)), 10)])[0] == [APPLIED]
    assert [account for _, _, account, _ in database.lines()] == ["log"]


def test_a_replayed_event_is_recognised_by_the_inbox(database: Database, writer: SinkWriter[Entry]) -> None:
    applied = delivered(entry("a", 5, ("cash",)), 0, id="one")
    writer.apply([applied])
    elsewhere = delivered(entry("a", 5, ("cash",)), 7, id="one", replayed=True)
    assert writer.apply([applied._replace(replayed=True), elsewhere])[0] == [RECOVERED, DUPLICATE]


@pytest.mark.parametrize(
    ("events", "answers", "left"),
    [
        ("r5 l5", [SUPERSEDED, APPLIED], "l5-1"),
        ("l5 r5", [APPLIED, SUPERSEDED], "l5-0"),
        ("r5 r5", [APPLIED, SUPERSEDED], "r5-0"),
        ("r5 l5 r5 l5", [SUPERSEDED, SUPERSEDED, SUPERSEDED, APPLIED], "l5-3"),
        ("l5 r6 l5", [SUPERSEDED, APPLIED, SUPERSEDED], "r6-1"),
        ("r5 l4", [APPLIED, SUPERSEDED], "r5-0"),
    ],
)
def test_inside_one_batch_a_replayed_event_gives_way_too(
    database: Database, writer: SinkWriter[Entry], events: str, answers: list[Applied], left: str
) -> None:
    """r = replayed, l = live, then the version."""
    batch = [
        delivered(entry("a", int(event[1]), (f"{event}-{i}",)), i, replayed=event[0] == "r")
        for i, event in enumerate(events.split())
    ]
    assert writer.apply(batch) == (answers, [])
    assert [account for _, _, account, _ in database.lines()] == [left]


def test_an_event_known_already_does_not_hide_a_new_one_of_equal_version(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    known = delivered(entry("a", 5, ("known",)), 0, id="known")
    writer.apply([known])
    fresh = delivered(entry("a", 5, ("fresh",)), 1)
    assert writer.apply([fresh, delivered(entry("a", 5, ("known",)), 2, id="known")])[0] == [APPLIED, DUPLICATE]
    assert [account for _, _, account, _ in database.lines()] == ["fresh"]


def test_all_rows_of_an_entity_are_replaced_together(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 1, ("p", "q", "r", "s")), 0), delivered(entry("b", 1, ("keep", "me")), 1)])
    writer.apply([delivered(entry("a", 2, ("P", "Q")), 2)])
    assert [(e, n, account) for e, n, account, _ in database.lines()] == [
        ("a", 1, "P"),
        ("a", 2, "Q"),
        ("b", 1, "keep"),
        ("b", 2, "me"),
    ]
    versions = database.execute("select distinct booked_at from {schema}.entry_line where entry_id = 'a'")
    assert versions == [(entry("a", 2).booked_at,)]


def test_an_entity_without_rows_keeps_its_version(database: Database, writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a", 3), 0)])
    assert writer.apply([delivered(entry("a", 4, ()), 1)])[0] == [APPLIED]
    assert writer.apply([delivered(entry("a", 3, ("late",)), 2)])[0] == [SUPERSEDED]
    assert database.lines() == []


def test_one_identity_and_revision_with_another_body_is_a_contract_failure(
    database: Database, writer: SinkWriter[Entry]
) -> None:
    writer.apply([delivered(entry("a"), 0, id="one", body=b"right")])
    wrong = delivered(entry("a", 9, ("wrong",)), 1, id="one", body=b"wrong")
    later = delivered(entry("a", 10, ("later",)), 2)
    other = delivered(entry("b"), 3)
    answers, failures = writer.apply([wrong, later, other])
    assert answers == [None, None, APPLIED]
    assert [(f.index, f.failure_class, f.code) for f in failures] == [(0, FailureClass.CONTRACT, "identity-conflict")]
    assert [(e, account) for e, _, account, _ in database.lines()] == [
        ("a", "cash"),
        ("a", "sales"),
        ("b", "cash"),
        ("b", "sales"),
    ]


def test_an_identity_conflict_inside_one_batch_keeps_the_first(database: Database, writer: SinkWriter[Entry]) -> None:
    first = delivered(entry("a", 1, ("first",)), 0, id="one", body=b"1")
    second = delivered(entry("a", 2, ("second",)), 1, id="one", body=b"2")
    answers, failures = writer.apply([first, second])
    assert answers == [APPLIED, None]
    assert [f.code for f in failures] == ["identity-conflict"]
    assert [account for _, _, account, _ in database.lines()] == ["first"]


def test_one_identity_with_another_revision_is_a_duplicate(writer: SinkWriter[Entry]) -> None:
    writer.apply([delivered(entry("a"), 0, id="one", revision="old.0", body=b"old")])
    assert writer.apply([delivered(entry("a", 9), 1, id="one", revision="new.0", body=b"new")]) == ([DUPLICATE], [])


def test_bad_rows_fail_alone_and_later_events_of_their_key_wait(database: Database) -> None:
    writer = next(_open(database))
    database.execute("alter table {schema}.entry_line add constraint no_bribes check (account <> 'bribes')")
    bad, waiting = {17, 400, 401, 1_023}, {1_996, 1_997, 1_998, 1_999}
    batch = [delivered(entry(f"e{i}", accounts=("bribes",) if i in bad else ("cash",)), i) for i in range(1_996)]
    # Older versions of the failed entities, so that these alone could be written.
    batch += [delivered(entry(f"e{i}", -1), 5_000 + i) for i in sorted(bad)]
    answers, failures = writer.apply(batch)
    assert {f.index for f in failures} == bad
    assert {(f.failure_class, f.code, f.path) for f in failures} == {("contract", "check-violation", "no_bribes")}
    assert [i for i, answer in enumerate(answers) if answer is None] == sorted(bad | waiting)
    assert {answer for answer in answers if answer is not None} == {APPLIED}
    assert len(database.lines()) == 2_000 - len(bad | waiting)
    writer.close()


def test_a_stopping_sink_applies_nothing_of_a_key_after_its_failed_event(database: Database) -> None:
    """Also `stop` holds keys: the worker stops at the failure, and what came after it must not have taken effect."""
    writer = next(_open(database, order="stop"))
    database.execute("alter table {schema}.entry_line add check (account <> 'bribes')")
    batch = [delivered(entry("a", 3, ("bribes",)), 0), delivered(entry("a", 2), 1), delivered(entry("b"), 2)]
    answers, failures = writer.apply(batch)
    assert (answers, [f.index for f in failures]) == ([None, None, APPLIED], [0])
    writer.close()


@pytest.mark.parametrize("order", ["continue", "supersede"])
def test_without_parking_later_events_of_a_failed_key_go_on(database: Database, order: str) -> None:
    writer = next(_open(database, order=order))
    database.execute("alter table {schema}.entry_line add check (account <> 'bribes')")
    batch = [
        delivered(entry("a", 3, ("bribes",)), 0, id="bad"),
        delivered(entry("a", 2, ("fine",)), 1),
        delivered(entry("a", 3, ("fine",)), 2, id="bad", revision="r2.0"),
    ]
    answers, failures = writer.apply(batch[:2])
    assert (answers, [f.index for f in failures]) == ([None, APPLIED], [0])
    assert writer.apply(batch)[0] == [None, RECOVERED, APPLIED]
    writer.close()


REFUSING_TRIGGER = """
create function {schema}.refuse() returns trigger language plpgsql as $$
begin if new.account = 'badly badly' then ACTION; end if; return new; end $$;
create trigger refuse before insert on {schema}.entry_line for each row execute function {schema}.refuse()
"""
FOREIGN_KEY = """
create table {schema}.account (name text primary key);
insert into {schema}.account values ('fine');
alter table {schema}.entry_line add constraint known foreign key (account) references {schema}.account
"""


@pytest.mark.parametrize(
    ("ddl", "code", "path", "failure_class"),
    [
        (
            "alter table {schema}.entry_line alter account type varchar(6)",
            "string-data-right-truncation",
            "",
            FailureClass.CONTRACT,
        ),
        (
            "create unique index one_bad on {schema}.entry_line (account) where account = 'badly badly'",
            "unique-violation",
            "one_bad",
            FailureClass.CONTRACT,
        ),
        (FOREIGN_KEY, "foreign-key-violation", "known", FailureClass.TRANSIENT),
        (f"{FOREIGN_KEY} deferrable initially deferred", "foreign-key-violation", "known", FailureClass.TRANSIENT),
        (
            REFUSING_TRIGGER.replace("ACTION", "raise exception 'badly' using errcode = 'ZZ001'"),
            "sqlstate-zz001",
            "",
            FailureClass.UNKNOWN,
        ),
        (REFUSING_TRIGGER.replace("ACTION", "perform 1 / 0"), "division-by-zero", "", FailureClass.CONTRACT),
        (
            "alter table {schema}.entry_line alter account drop not null;"
            "alter table {schema}.entry_line add must text not null generated always as"
            " (case when account <> 'badly badly' then account end) stored",
            "not-null-violation",
            "must",
            FailureClass.CONTRACT,
        ),
    ],
)
def test_each_refusal_is_named_without_content(
    database: Database, ddl: str, code: str, path: str, failure_class: FailureClass
) -> None:
    writer = next(_open(database))
    database.execute(ddl)
    bad = delivered(entry("bad", accounts=("badly badly", "badly badly")), 1)
    answers, failures = writer.apply([delivered(entry("a", accounts=("fine",)), 0), bad])
    assert answers == [APPLIED, None]
    assert [(f.index, f.code, f.path, f.failure_class) for f in failures] == [(1, code, path, failure_class)]
    assert "badly" not in failures[0].message
    writer.close()


def test_a_column_too_small_for_its_number_fails_that_record(database: Database) -> None:
    writer = next(_open(database))
    database.execute("alter table {schema}.entry_line alter debit type numeric(4,2)")
    answers, failures = writer.apply([delivered(entry("a"), 0), delivered(entry("b", amount="123456.00"), 1)])
    assert answers == [APPLIED, None]
    assert [f.code for f in failures] == ["numeric-value-out-of-range"]
    writer.close()


def test_nul_in_text_fails_that_record(writer: SinkWriter[Entry]) -> None:
    batch = [
        delivered(entry("a", accounts=("ca\0sh",)), 0),
        delivered(entry("a", 1), 1),
        delivered(entry("b"), 2, id="nul\0id"),
        delivered(entry("c"), 3),
    ]
    answers, failures = writer.apply(batch)
    assert answers == [None, None, None, APPLIED]
    assert [(f.index, f.code, f.path) for f in failures] == [
        (0, "nul-in-text", "lines[].account"),
        (2, "nul-in-text", "ce_id, ce_source or heddle-lineage"),
    ]


def test_a_key_too_long_for_an_index_fails_that_record(writer: SinkWriter[Entry]) -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12_000))
    answers, failures = writer.apply([delivered(entry(noise), 0, id="long"), delivered(entry("b"), 1)])
    assert answers == [None, APPLIED]
    assert [f.code for f in failures] == ["program-limit-exceeded"]


def test_nothing_is_applied_without_the_fence(database: Database) -> None:
    writer = database.entries().open()
    with pytest.raises(PartitionFencedError):
        writer.apply([delivered(entry("a"), 0)])
    writer.bump([0])
    assert writer.apply([delivered(entry("a"), 0)])[0] == [APPLIED]
    writer.release([0])
    with pytest.raises(PartitionFencedError):
        writer.apply([delivered(entry("a"), 1)])
    writer.close()


def test_a_later_owner_fences_an_earlier_one_for_its_partitions_only(database: Database) -> None:
    sink = database.entries()
    former, owner = sink.open(), sink.open()
    former.bump([0, 1])
    owner.bump([1])
    with pytest.raises(PartitionFencedError):
        former.apply([delivered(entry("a"), 0), delivered(entry("b"), 0, partition=1)])
    assert database.lines() == []
    assert former.apply([delivered(entry("a"), 0)])[0] == [APPLIED]
    assert owner.apply([delivered(entry("b"), 0, partition=1)])[0] == [APPLIED]
    former.close()
    owner.close()


def test_pruning_keeps_its_bound_and_never_goes_back(database: Database) -> None:
    sink = database.entries()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("a"), 0), delivered(entry("b"), 1)])
    assert (sink.pruned_before(), writer.pruned_before()) == (None, None)
    past = datetime.now(UTC) - timedelta(days=1)
    assert sink.prune_inbox(past) == 0
    future = datetime.now(UTC) + timedelta(days=1)
    assert sink.prune_inbox(future) == 2
    assert sink.prune_inbox(past) == 0
    assert (sink.pruned_before(), writer.pruned_before()) == (future, future)
    writer.close()
    with pytest.raises(UsageError, match="no zone"):
        sink.prune_inbox(datetime(2026, 1, 1))


def test_pruning_by_the_rule_keeps_the_rewind_horizon(database: Database) -> None:
    sink = database.entries()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("a"), 0), delivered(entry("b"), 1)])
    writer.close()
    database.execute(
        "update {schema}.heddle_inbox set applied_at = applied_at - interval '11 days' where ce_id = 'a-0'"
    )
    windows = {"duplicate_window": timedelta(days=3), "rewind_horizon": timedelta(days=7)}
    now = datetime.now(UTC)
    unresolved = now - timedelta(days=9)
    assert prune(sink, now=now, oldest_unresolved_origin_time=unresolved, **windows) == 0
    assert sink.pruned_before() == unresolved - timedelta(days=3)
    assert prune(sink, now=now, oldest_unresolved_origin_time=None, **windows) == 1
