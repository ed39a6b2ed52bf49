"""Audit records: what they say, that they chain, and that what does not hold is found."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.audit import AuditRecord, AuditTrail, Line, audit_key, external_reset, first_break, parse
from heddle.audit.record import MAX_BYTES, MAX_NAME_CHARS, MAX_TEXT_CHARS
from heddle.broker.log import Outgoing, Record
from heddle.errors import FormatError, UsageError
from heddle.secrets import Use

KEY = b"k" * 32
NOW_MS = 1_800_000_000_123
TRAIL = AuditTrail("ledger", "billing.invoice.v1", "ledger.audit", "worker:0", KEY, wall_ms=lambda: NOW_MS)
HEADERS = [("ce_id", b"inv-1"), ("ce_source", b"/flows/deal-to-invoice"), ("ce_type", b"billing.invoice.v1")]


def record(value: bytes | None = b"body", headers: list[tuple[str, bytes | None]] | None = None) -> Record:
    return Record("billing.invoice.v1", 3, 41, b"default/1", value, list(HEADERS if headers is None else headers), 1)


def batch(head: str = "", lines: list[Line] | None = None, **more: Any) -> tuple[list[Outgoing], str]:
    given: dict[str, Any] = {"first": 40, "next_offset": 42, "counts": {"applied": 2, "parked": 0}, "entry_counts": {}}
    return TRAIL.batch(3, head, **given | {"payloads": "f" * 32, "lines": lines or []} | more)


def stored(made: list[Outgoing], start: int = 0) -> list[Record]:
    """As the log would hold them."""
    return [
        Record(out.topic, out.partition, start + number, out.key, out.value, list(out.headers), NOW_MS)
        for number, out in enumerate(made)
    ]


def read_back(made: list[Outgoing]) -> list[AuditRecord]:
    return [parse(each) for each in stored(made)]


def chain(length: int) -> list[Record]:
    made: list[Outgoing] = []
    head = ""
    for number in range(length):
        records, head = batch(head, [Line(number, "parked")], first=number, next_offset=number + 1)
        made += records
    return stored(made)


# Payload hashes


payloads = st.lists(st.none() | st.binary(max_size=300), max_size=8)


@given(payloads, payloads)
def test_different_payloads_have_different_hashes(ours: list[bytes | None], others: list[bytes | None]) -> None:
    assert (TRAIL.batch_hash(ours) == TRAIL.batch_hash(others)) == (ours == others)


@pytest.mark.parametrize(
    ("ours", "others"),
    [([None], [b""]), ([b"ab", b"c"], [b"a", b"bc"]), ([b"a", b"b"], [b"b", b"a"]), ([], [b""]), ([b""], [b"", b""])],
)
def test_null_boundaries_and_order_count(ours: list[bytes | None], others: list[bytes | None]) -> None:
    assert TRAIL.batch_hash(ours) != TRAIL.batch_hash(others)


def test_a_payload_hash_is_the_keyed_one_that_the_format_says() -> None:
    lengths = b"\0\0\0\3" + b"\0\0\0\4" + b"\xff\xff\xff\xff" + b"\0\0\0\2"
    expected = blake2b(lengths + b"bodyXY", key=KEY, digest_size=16).hexdigest()
    assert TRAIL.batch_hash([b"body", None, b"XY"]) == expected
    other = AuditTrail("ledger", "t", "a", "worker:0", b"another key")
    assert other.batch_hash([b"body", None, b""]) != expected


def test_all_payloads_of_a_long_batch_are_hashed() -> None:
    values = [b"%d" % number for number in range(1_000)]
    lengths = b"".join(len(each).to_bytes(4, "big") for each in values)
    said = len(values).to_bytes(4, "big") + lengths + b"".join(values)
    assert TRAIL.batch_hash(values) == blake2b(said, key=KEY, digest_size=16).hexdigest()


# Lines


def test_a_line_names_the_event_and_hashes_its_payload() -> None:
    line = TRAIL.line(record(), "parked", entry="3-41", state="dead", code="decode", fingerprint="ab", attempts=2)
    assert line == Line(
        41, "parked", "/flows/deal-to-invoice;inv-1", "billing.invoice.v1", TRAIL.batch_hash([b"body"]),
        entry="3-41", state="dead", code="decode", fingerprint="ab", attempts=2,
    )  # fmt: skip
    assert TRAIL.line(record(None), "parked").hash != TRAIL.line(record(b""), "parked").hash


def test_a_line_of_a_record_that_no_heddle_wrote_names_its_coordinates() -> None:
    line = TRAIL.line(record(headers=[]), "applied")
    assert (line.identity, line.contract) == ("/topics/billing.invoice.v1;3-41", "billing.invoice.v1")


def test_identities_stay_apart() -> None:
    def identity(source: bytes, event_id: bytes) -> str:
        return TRAIL.line(record(headers=[("ce_source", source), ("ce_id", event_id)]), "applied").identity

    assert identity(b"a;b", b"c") == "a%3Bb;c"
    assert identity(b"a", b"b;c") == "a;b;c"
    assert identity(b"a", b"\xff") != identity(b"a", b"\xfe")
    assert identity(b"a", "😀".encode() * (MAX_NAME_CHARS - 2)).endswith(";" + "😀" * (MAX_NAME_CHARS - 2))
    large = b"x" * 900_000
    assert len(identity(b"a", large)) == MAX_NAME_CHARS
    assert identity(b"a", large) != identity(b"a", large + b"y") != identity(b"a", large + b"z")


def test_foreign_headers_as_large_as_a_record_make_no_large_audit_record() -> None:
    """Else a record that nobody could settle would stop its subscription for ever."""
    large = b"\xff" * 900_000
    line = TRAIL.line(record(headers=[("ce_source", large), ("ce_id", large), ("ce_type", large)]), "parked")
    (made,), _ = batch(lines=[line])
    assert len(made.value or b"") < 5_000


# Records


def test_a_batch_record_says_what_happened_and_nothing_empty() -> None:
    (made,), head = batch("a" * 64, [TRAIL.line(record(), "parked", entry="3-41")])
    assert (made.topic, made.partition, made.key) == ("ledger.audit", 3, b"ledger")
    document = json.loads(made.value or b"")
    assert document == {
        "hash": head,
        "v": 1,
        "kind": "batch",
        "at": "2027-01-15T08:00:00.123000Z",
        "actor": "worker:0",
        "subscription": "ledger",
        "topic": "billing.invoice.v1",
        "partition": 3,
        "prev": "a" * 64,
        "body": {"first": 40, "next": 42, "counts": {"applied": 2}, "payloads": "f" * 32},
        "lines": [
            {
                "offset": 41,
                "outcome": "parked",
                "identity": "/flows/deal-to-invoice;inv-1",
                "contract": "billing.invoice.v1",
                "hash": TRAIL.batch_hash([b"body"]),
                "entry": "3-41",
            }
        ],
    }


def test_runs_of_entries_and_a_pause_are_told_beside_the_batch() -> None:
    made, _ = batch(entry_counts={"applied": 1, "parked": 0}, paused="cap: 5 entries")
    (told,) = read_back(made)
    assert told.body["entry_counts"] == {"applied": 1}
    assert told.body["paused"] == "cap: 5 entries"


lines = st.builds(
    Line, st.integers(0, 2**40), st.sampled_from(["parked", "applied"]), identity=st.text(max_size=20),
    entry=st.text(max_size=9), version=st.integers(-1, 9), job=st.text(max_size=9), attempts=st.integers(0, 9),
)  # fmt: skip


@given(st.lists(lines, max_size=20))
def test_what_is_read_is_what_was_written(written: list[Line]) -> None:
    made, head = batch("a" * 64, written)
    (told,) = read_back(made)
    assert told.lines == written
    assert (told.kind, told.actor, told.partition, told.prev, told.hash) == ("batch", "worker:0", 3, "a" * 64, head)
    assert told.holds


def test_many_lines_become_several_records_chained_one_after_the_other() -> None:
    written = [
        Line(n, "applied", f"/flows/deal-to-invoice;{n:026}", "billing.invoice.v1", "f" * 32) for n in range(9_000)
    ]
    made, head = batch("", written)
    assert len(made) > 2
    assert {len(out.value or b"") < MAX_BYTES * 1.1 for out in made} == {True}
    assert [json.loads(out.value or b"")["part"] for out in made] == [[n + 1, len(made)] for n in range(len(made))]
    told = read_back(made)
    assert [line for each in told for line in each.lines] == written
    assert [bool(each.body) for each in told] == [True] + [False] * (len(made) - 1)
    assert first_break(told) is None
    assert told[-1].hash == head


def test_an_event_is_of_its_actor_and_holds_what_json_does_not() -> None:
    detail = {"why": "no \ud800", "log": "x" * 10_000_000, "moves": [(0, None, 7)], "deep": {"text": "\udfff"}}
    made, _ = TRAIL.event(0, "", "rewind", detail, [Line(7, "skipped")], actor="ada")
    (told,) = read_back(made)
    assert (told.kind, told.actor, told.lines) == ("rewind", "ada", [Line(7, "skipped")])
    assert told.body["why"] == r"no \ud800"
    assert len(told.body["log"]) == MAX_TEXT_CHARS
    assert told.body["moves"] == [[0, None, 7]]
    assert told.body["deep"] == {"text": r"\udfff"}


# The chain


def test_anyone_verifies_a_chain_without_a_key_and_without_us() -> None:
    previous = ""
    for each in chain(3):
        value = each.value or b""
        document = json.loads(value)
        content = b"{" + value[len('{"hash":"",') + 64 :]
        assert document["hash"] == blake2b(content, digest_size=32).hexdigest()
        assert document["prev"] == previous
        previous = document["hash"]


def test_a_whole_chain_holds_and_so_does_a_part_of_it() -> None:
    told = [parse(each) for each in chain(5)]
    assert first_break(told) is None
    assert first_break([]) is None
    assert first_break(told[2:], head=told[1].hash) is None


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    records = chain(4)
    number = data.draw(st.integers(0, 3))
    value = records[number].value or b""
    at = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[at]))
    records[number] = records[number]._replace(value=value[:at] + bytes([byte]) + value[at + 1 :])
    try:
        found = first_break(parse(each) for each in records)
    except FormatError:
        return
    assert found is not None
    assert found.offset == number


def test_what_json_reads_alike_is_a_change_too() -> None:
    records = chain(2)
    value = records[0].value or b""
    records[0] = records[0]._replace(value=value.replace(b'"kind":"batch"', b'"kind": "batch"'))
    assert first_break(map(parse, records)) == parse(records[0])


@pytest.mark.parametrize(("left", "breaks_at"), [([1, 2, 3], 1), ([0, 2, 3], 2), ([0, 2, 1, 3], 2), ([0, 1, 1], 1)])
def test_records_that_are_missing_moved_or_repeated_are_found(left: list[int], breaks_at: int) -> None:
    told = [parse(each) for each in chain(4)]
    found = first_break(told[number] for number in left)
    assert found is not None
    assert found.offset == breaks_at


def test_a_chain_of_another_partition_does_not_hold() -> None:
    told = [parse(each._replace(partition=4)) for each in chain(2)]
    found = first_break(told)
    assert found is not None
    assert found.offset == 0


def test_a_record_written_anew_breaks_the_chain_behind_it() -> None:
    """Its own hash fits; the one behind it, and at the end the witness beside the offsets, tell."""
    told = [parse(each) for each in chain(3)]
    forged, head = batch(told[0].hash, [Line(1, "applied")])
    told[1] = replace(read_back(forged)[0], offset=1)
    assert told[1].holds
    found = first_break(told)
    assert found is not None
    assert found.offset == 2
    assert head != told[2].prev


def test_a_reset_goes_on_from_what_the_topic_holds() -> None:
    tail = parse(chain(2)[-1])
    made, head = external_reset(TRAIL, 3, "b" * 64, tail, {"offset": 17})
    (told,) = read_back(made)
    assert (told.kind, told.prev, told.hash) == ("external-reset", tail.hash, head)
    assert told.body == {"offset": 17, "witness": "b" * 64, "tail": tail.hash}
    made, _ = external_reset(TRAIL, 3, "b" * 64, None, {"offset": 17})
    assert read_back(made)[0].prev == ""


def test_the_hash_of_a_changed_record_is_not_the_one_that_it_claims() -> None:
    """So that a witness tells, although the last record says what it said before."""
    last = chain(2)[-1]
    changed = parse(last._replace(value=(last.value or b"").replace(b"parked", b"posted")))
    assert not changed.holds
    assert changed.hash != parse(last).hash


# What cannot be read


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"[]", b"1", b'{"v":2}', b'{"v":1}', b'{"v":1,"kind":"batch","lines":[{"odd":1}]}', b"\xff"],
)
def test_what_is_no_record_of_ours_is_refused(value: bytes | None) -> None:
    with pytest.raises(FormatError, match=r"ledger\.audit/3 offset 7") as caught:
        parse(Record("ledger.audit", 3, 7, None, value, [], 1))
    assert caught.value.hint


def test_a_record_of_a_newer_format_is_refused() -> None:
    (first, *_) = chain(1)
    newer = (first.value or b"").replace(b'"v":1', b'"v":2')
    with pytest.raises(FormatError):
        parse(first._replace(value=newer))


# The key


def test_the_key_is_made_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_AUDIT_KEY", "any text, of any length " * 10)
    key = audit_key()
    assert len(key) == 32
    monkeypatch.setenv("HEDDLE_SECRET_AUDIT_KEY", "another")
    assert audit_key() != key
    AuditTrail("s", "t", "a", "worker:0", key).batch_hash([b"v"])


def test_without_a_key_it_is_said_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEDDLE_SECRET_AUDIT_KEY", raising=False)
    monkeypatch.setenv("HEDDLE_SECRETS_DIR", str(tmp_path))
    with pytest.raises(UsageError, match="audit/key") as caught:
        audit_key()
    assert "heddle up" in caught.value.hint
    assert "HEDDLE_SECRET_AUDIT_KEY" in caught.value.hint
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        audit_key()


# Secrets in use


class Worker:
    """A trail with secrets that a test changes."""

    def __init__(self) -> None:
        self.uses: tuple[Use, ...] = (Use("ledger/dsn", "vault", "7"),)
        self.trail = AuditTrail("s", "t", "a", "worker:0", KEY, wall_ms=lambda: NOW_MS, secrets=lambda: self.uses)

    def batch(self, head: str, partition: int = 0) -> tuple[list[str], str]:
        """The kinds of the records that a batch makes, and the head after it."""
        made, after = self.trail.batch(
            partition, head, first=0, next_offset=1, counts={"applied": 1}, entry_counts={}, payloads="f", lines=[]
        )
        assert first_break(read_back(made), head=head) is None
        return [each.kind for each in read_back(made)], after


def test_the_secrets_in_use_are_told_once_and_when_one_changes() -> None:
    worker = Worker()
    kinds, head = worker.batch("")
    assert kinds == ["secrets", "batch"]
    kinds, head = worker.batch(head)
    assert kinds == ["batch"]
    worker.uses = (Use("ledger/dsn", "vault", "8"),)
    kinds, head = worker.batch(head)
    assert kinds == ["secrets", "batch"]
    assert worker.batch("", partition=1)[0] == ["secrets", "batch"], "each partition has a chain of its own"
    made, _ = worker.trail.batch(
        2, "", first=0, next_offset=1, counts={"applied": 1}, entry_counts={}, payloads="f", lines=[]
    )
    assert read_back(made)[0].body == {"in_use": [{"name": "ledger/dsn", "provider": "vault", "version": "8"}]}


def test_what_was_told_in_an_aborted_transaction_is_told_again() -> None:
    worker = Worker()
    _, head = worker.batch("")
    worker.uses = (Use("ledger/dsn", "vault", "8"),)
    assert worker.batch(head)[0] == ["secrets", "batch"]
    assert worker.batch(head)[0] == ["secrets", "batch"], "the same head: the records before never came to be"
    _, after = worker.trail.event(0, head, "paused", {"why": "down"})
    assert worker.batch(after)[0] == ["secrets", "batch"], "also with an event between"
    assert worker.batch("written by another owner")[0] == ["secrets", "batch"]


def test_without_secrets_nothing_is_told() -> None:
    worker = Worker()
    worker.uses = ()
    assert worker.batch("")[0] == ["batch"]
