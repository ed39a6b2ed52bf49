"""Entries as lines of a file: byte by byte the same, and not trusted when they come back."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.broker.log import Headers, Outgoing, Record
from heddle.broker.murmur2 import partition_of
from heddle.delivery.acts import imported
from heddle.delivery.command import MAX_SLICE_BYTES, Action, Command, Foreign, Kind, PlanHeader
from heddle.delivery.envelope import Envelope, State, original_of
from heddle.delivery.subscription import Subscription
from heddle.errors import ContractError, Failure, FailureClass, UsageError
from heddle.operations.dead_letters import transfer
from heddle.operations.dead_letters.entries import EntryView, Shelf, view_of
from heddle.operations.dead_letters.importing import (
    Gathered,
    Incoming,
    Limits,
    Present,
    imported_meanwhile,
    origin_of,
    place_in,
    same_key,
    without_identity,
)
from heddle.operations.dead_letters.plan import Place, ReplayPlan, changes
from heddle.operations.dead_letters.plan_files import PlanFiles
from heddle.operations.dead_letters.transfer import (
    UnreadableLinesError,
    export_line,
    import_plan,
    read_line,
    read_lines,
)

TOPIC_ID = "hT9xQm4BabcdEFGHijklmn"
FAILURE = Failure(0, FailureClass.CONTRACT, "lookup", "price", "no such product: ä\n", ContractError("no\udcff"))
NOW_MS = 1_767_225_600_123
LEDGER = Envelope("ledger", "ledger.dlq", TOPIC_ID, "1" * 64, lambda: NOW_MS)
STORE = Envelope("store", "store.dlq", "other", "2" * 64, lambda: NOW_MS)
HEADER = PlanHeader("store", Action.IMPORT)
ROOMY = Limits(10_000_000, 10_000_000)

names = st.text(max_size=8).filter(lambda name: not name.startswith("heddle-"))
header_lists = st.lists(st.tuples(names | st.sampled_from(["a", "ce_id", "heddle-lineage"]), st.none() | st.binary()))
records = st.builds(
    Record, st.just("orders"), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.none() | st.binary(),
    st.none() | st.binary(), header_lists, st.integers(-1, 2**62),
)  # fmt: skip


def shelf_of(name: str, topic_id: str, partitions: int = 3) -> Shelf:
    return Shelf(Subscription(name, "orders"), partitions, topic_id)


def viewed(outgoing: Outgoing, shelf: Shelf, version: int = 7) -> EntryView:
    """As it is read again."""
    stored = Record(outgoing.topic, outgoing.partition, version, outgoing.key, outgoing.value, [*outgoing.headers], 99)
    return view_of(stored, shelf, keep_body=True)


def gathered(present: Present | None = None, limits: Limits = ROOMY) -> Gathered:
    return Gathered(shelf_of("store", "other"), present or Present({}, ()), limits)


def entry(outgoing: Outgoing) -> EntryView:
    return viewed(outgoing, shelf_of("store", "other"))


def exported(record: Record, state: State = State.DEAD) -> bytes:
    return export_line(viewed(LEDGER.failed(record, FAILURE, state), shelf_of("ledger", TOPIC_ID)))


def sent(plan: ReplayPlan) -> list[tuple[int, Foreign]]:
    """What the owner gets of it."""
    commands = [
        Command(Kind.ACT, "j", plan.header, plan.slice_hashes, "", 0, "", (), i, s) for i, s in enumerate(plan.slices)
    ]
    parts = [Command.unpack(command.pack()).slice for command in commands]
    return [(part.partition, foreign) for part in parts if part is not None for foreign in part.foreign]


def bodies(record: Record) -> tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]], int]:
    return record.key, record.value, record.headers, record.timestamp_ms


@given(records)
def test_an_entry_comes_through_a_file_into_another_subscription_as_it_was(record: Record) -> None:
    line = exported(record)
    ((partition, foreign),) = sent(import_plan(gathered(), read_lines(io.BytesIO(line)), HEADER).plan)
    _, change = imported(foreign, partition, STORE, 5)
    there = entry(change.outgoing)
    assert there.record is not None
    assert bodies(original_of(there.record)) == bodies(record)
    here = viewed(LEDGER.failed(record, FAILURE, State.DEAD), shelf_of("ledger", TOPIC_ID))
    for fact in ("failure_class", "code", "path", "fingerprint", "exception", "message", "stack", "attempts"):
        assert getattr(there, fact) == getattr(here, fact), fact
    assert there.first_failed_ms == NOW_MS
    assert there.state is State.DEAD
    assert partition == (record.partition % 3 if record.key is None else partition_of(record.key, 3))
    again = read_line(export_line(there)).incoming.foreign
    assert (again.origin, again.offset) == (foreign.origin, foreign.offset)


def test_an_edited_entry_takes_its_edited_body_along_and_leaves_the_first_in_the_file() -> None:
    outgoing = LEDGER.failed(Record("orders", 0, 1, b"k", None, [], 5), FAILURE, State.DEAD)
    edited = LEDGER.edited(Record("ledger.dlq", 0, 7, outgoing.key, outgoing.value, [*outgoing.headers], 9), b"new")
    line = export_line(viewed(edited, shelf_of("ledger", TOPIC_ID)))
    document = json.loads(line)
    assert (document["value"], document["before_edits"]) == ("bmV3", {"value": None})
    made = import_plan(gathered(), [read_line(line)], HEADER)
    assert made.edited == 1
    assert [foreign.value for _, foreign in sent(made.plan)] == [b"new"]


RECORD = Record("orders", 1, 4, b"k", b"v", [("a", b"1"), ("a", None)], 1_767_225_600_000)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(exported(RECORD)) | fields).encode()


def told(**facts: str) -> dict[str, dict[str, str]]:
    envelope_of_it: dict[str, str] = json.loads(exported(RECORD))["envelope"]
    return {"envelope": envelope_of_it | {f"heddle-{name.replace('_', '-')}": text for name, text in facts.items()}}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"?", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON"),
        (b'{"v":2}', "not of format version 1"),
        (b"{}", "not of format version 1"),
        (changed(v=True), "not of format version 1"),
        (changed(topic="a/b"), "topic is not"),
        (changed(topic_id=""), "topic_id is not"),
        (changed(entry="a\x1b[2J"), "entry is not"),
        (changed(partition=-1), "partition is no number"),
        (changed(partition=True), "partition is no number"),
        (changed(partition=2**31), "partition is no number"),
        (changed(offset="4"), "offset is no number"),
        (changed(offset=1.5), "offset is no number"),
        (changed(timestamp_ms=2**63), "timestamp_ms is no number"),
        (changed(key="a"), "key is not base64"),
        (changed(value=5), "value is not base64"),
        (changed(value="YQ==\n"), "value is not base64"),
        (changed(headers={}), "headers is no list"),
        (changed(headers=[["a"]]), "not a pair"),
        (changed(headers=[[1, None]]), "not a pair"),
        (changed(headers=[["heddle-state", "YQ=="]]), "reserved"),
        (changed(headers=[["a", "?"]]), "a header's value is not base64"),
        (changed(state="gone"), "state is none"),
        (changed(state=["dead"]), "state is none"),
        (changed(state="discarded"), "state is none"),
        (changed(envelope=[]), "envelope is no object"),
        (changed(envelope={"heddle-class": 3}), "envelope is no object"),
        (changed(**told(**{"class": "odd"})), "no failure class"),
        (changed(**told(attempts="-1")), "heddle-attempts is no number"),
        (changed(**told(attempts="9" * 10)), "heddle-attempts is no number"),
        (changed(**told(first_failed_at="yesterday")), "a time is not"),
        (changed(**told(first_failed_at="2026-13-01T00:00:00Z")), "a time is not"),
        (changed(**told(last_failed_at="0001-01-01T00:00:00+23:59")), "a time is not"),
    ],
)
def test_a_line_that_cannot_be_right_is_refused_without_its_content(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_line(line)


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(exported(RECORD)).items() if k != name}).encode()


@pytest.mark.parametrize(
    "name", sorted(json.loads(exported(RECORD)).keys() - {"before_edits", "version", "appended_ms"} - {"subscription"})
)
def test_a_line_that_lacks_a_field_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_line(without(name))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    st.data(),
)
def test_whatever_stands_in_a_field_is_read_or_refused(value: Any, data: st.DataObject) -> None:
    document = json.loads(exported(RECORD))
    document[data.draw(st.sampled_from(sorted(document)))] = value
    try:
        made = import_plan(gathered(), [read_line(json.dumps(document).encode())], HEADER)
    except ValueError:
        return
    for partition, foreign in sent(made.plan):
        imported(foreign, partition, STORE, 5)


def test_lines_that_cannot_be_read_are_told_by_number_and_nothing_is_taken() -> None:
    good = exported(RECORD)
    file = io.BytesIO(good + b"\n" + b"x\n" + good + b"  \n" + b'{"v":1}\n')
    with pytest.raises(UnreadableLinesError, match="2 of 4 lines") as refused:
        read_lines(file)
    assert [note.split(":")[0] for note in refused.value.__notes__] == ["line 3", "line 6"]
    many = io.BytesIO(b"x\n" * 50)
    with pytest.raises(UnreadableLinesError) as refused:
        read_lines(many)
    assert refused.value.__notes__[-1] == "… 30 more"


def test_a_line_that_is_too_long_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exported(RECORD)
    monkeypatch.setattr(transfer, "MAX_LINE_BYTES", len(good))
    assert len(read_lines(io.BytesIO(good * 3))) == 3
    with pytest.raises(UnreadableLinesError, match="1 of 3") as refused:
        read_lines(io.BytesIO(good + b"x" * 10 * len(good) + b"\n" + good))
    assert refused.value.__notes__[0].startswith("line 2: longer than")


@pytest.mark.parametrize(("limit", "value"), [("MAX_RECORDS", 2), ("MAX_FILE_BYTES", 2_000)])
def test_a_file_that_is_too_large_is_to_be_cut(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, limit, value)
    with pytest.raises(UsageError, match="more than one plan may") as refused:
        read_lines(io.BytesIO(exported(RECORD) * 3))
    assert "split" in refused.value.hint


# The plan.


def incoming(
    offset: int = 0, key: bytes | None = b"k", value: bytes = b"v", headers: Headers = (), partition: int = 0
) -> Incoming:
    foreign = Foreign(origin_of("orders-dlt", partition, TOPIC_ID), offset, key, value, tuple(headers), 5, ())
    return Incoming(foreign, partition, f"orders-dlt/{partition}-{offset}")


def taken(found: Gathered, *records: Incoming) -> list[str]:
    for record in records:
        found.take(record)
    return [left.reason for left in found.left_out]


def test_a_plan_sends_each_record_to_the_partition_of_its_key_once() -> None:
    found = gathered()
    assert taken(
        found, incoming(0), incoming(1, b"a"), incoming(0, partition=1), incoming(0, None, partition=5), incoming(0)
    ) == ["it comes twice: orders-dlt/0-0"]
    plan = found.plan(HEADER)
    assert {(t.place.partition, t.entry_id.split("@")[1]) for t in plan.targets if t.key is None} == {
        (2, "orders-dlt:5:hT9xQm4B")
    }
    assert {t.place.partition for t in plan.targets if t.key == "k"} == {partition_of(b"k", 3)}
    assert sorted(f.origin for _, f in sent(plan)) == sorted(t.place.topic_id for t in plan.targets)
    assert (same_key(plan), without_identity(f for _, f in sent(plan))) == (1, 4)
    named = gathered()
    taken(named, incoming(0, headers=[("ce_id", b"1"), ("ce_source", b"s")]), incoming(1, headers=[("ce_id", b"1")]))
    assert without_identity(f for _, f in sent(named.plan(HEADER))) == 1


def test_slices_stay_below_what_a_command_may_hold() -> None:
    found = gathered()
    taken(found, *(incoming(n, None, b"x" * 100_000, partition=n) for n in range(20)))
    plan = found.plan(HEADER)
    assert len(plan.slices) > 3
    for part in plan.slices:
        command = Command(Kind.ACT, "j", plan.header, plan.slice_hashes, "", 0, "", (), 0, part)
        assert len(command.pack()) < 1.4 * MAX_SLICE_BYTES


def test_what_is_here_or_was_is_left_out() -> None:
    first = incoming(0)
    place = place_in(shelf_of("store", "other"), first)
    _, change = imported(first.foreign, place.partition, STORE, 5)
    present = Present({place: entry(change.outgoing)}, {f"{place.partition}-1@{place.topic_id}"})
    name = f"{place.partition}-0@{place.topic_id}"
    assert taken(gathered(present), first, incoming(1)) == [
        f"it is here: {name}, dead",
        "it was imported before, and is resolved",
    ]
    own = LEDGER.failed(RECORD, FAILURE, State.RETRYING)
    shelf = shelf_of("ledger", TOPIC_ID)
    at_home = Gathered(shelf, Present({Place(TOPIC_ID, 1, 4): viewed(own, shelf)}, ()), ROOMY)
    assert taken(at_home, read_line(exported(RECORD)).incoming) == ["it is here: 1-4, retrying"]


def test_an_unknown_effect_is_settled_where_it_happened() -> None:
    found = gathered()
    made = import_plan(found, [read_line(exported(RECORD, State.UNKNOWN)), read_line(exported(RECORD))], HEADER)
    assert [(left.state, "settle" in left.reason) for left in made.plan.left_out] == [(State.UNKNOWN, True)]
    assert made.states == {State.DEAD: 1}


def test_what_no_command_or_entry_could_hold_is_left_out() -> None:
    large = incoming(value=b"x" * 200_000)
    assert "too large for a command" in taken(gathered(limits=Limits(300_000, 900_000)), large)[0]
    assert "too large for an entry" in taken(gathered(limits=Limits(900_000, 300_000)), large)[0]
    assert taken(gathered(limits=Limits(400_000, 400_000)), large) == []


def test_a_plan_to_import_is_kept_and_checked_like_all_others(tmp_path: Any) -> None:
    found = gathered()
    taken(found, incoming(0), incoming(1, None, partition=1))
    plan = found.plan(HEADER)
    files = PlanFiles(tmp_path / "plans")
    files.save(plan)
    kept = files.load(plan.hash)
    assert kept is not None
    assert (kept.hash, kept.targets) == (plan.hash, plan.targets)
    assert changes(kept, []) == []
    place = plan.targets[0].place
    _, change = imported(sent(plan)[0][1], place.partition, STORE, 5)
    (now,) = changes(kept, [entry(change.outgoing)])
    assert (now.entry_id, now.then, now.now) == (plan.targets[0].entry_id, "not there", "dead")
    assert imported_meanwhile(kept, Present({}, ())) == []
    (now,) = imported_meanwhile(kept, Present({}, {plan.targets[1].entry_id}))
    assert now.entry_id == plan.targets[1].entry_id
