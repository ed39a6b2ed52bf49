"""The dead-letter entry, hop by hop."""

from collections.abc import Callable

import pytest

from heddle.broker.log import Outgoing, Record
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.delivery import envelope
from heddle.delivery.classify import failure_of, fingerprint
from heddle.delivery.envelope import Envelope, State, entry_key, entry_of, original_of
from heddle.errors import ContractError, Failure, FailureClass, FormatError
from heddle.secrets import secret
from schemas.crm import Deal

ENVELOPE = Envelope("flow", "flow.dlq", "topic-id", "digest")


def record(offset: int = 7, key: bytes | None = b"k", value: bytes | None = b"v") -> Record:
    headers: list[tuple[str, bytes | None]] = [
        ("ce_id", b"e1"),
        ("x", b"1"),
        ("x", b"2"),
        ("heddle-lineage", b"1;rev;/s;root"),
        ("heddle-state", b"from an earlier hop"),
    ]
    return Record("in", 2, offset, key, value, headers, 1_000)


def appended(entry: Outgoing, offset: int = 0) -> Record:
    return Record(entry.topic, entry.partition, offset, entry.key, entry.value, list(entry.headers), 0)


def caught(action: Callable[[], object]) -> Failure:
    try:
        action()
    except Exception as error:
        return failure_of(0, error)
    raise AssertionError("nothing was raised")


def broken() -> None:
    raise ContractError("no such stage", path="lines[3].stage")


def dead(record: Record) -> Outgoing:
    return ENVELOPE.failed(record, caught(broken), State.DEAD)


def test_the_original_is_kept_whole_and_our_headers_are_replaced_on_each_hop() -> None:
    entry = dead(record())
    assert (entry.topic, entry.partition, entry.value) == ("flow.dlq", 2, b"v")
    assert list(entry.headers)[:4] == record().headers[:4]
    names = [name for name, _ in entry.headers]
    assert names.count(envelope.STATE) == 1
    headers = dict(entry.headers)
    assert headers[envelope.KEY] == b"k"
    assert headers[envelope.CLASS] == b"contract"
    assert headers[envelope.PATH] == b"lines[3].stage"
    assert headers[envelope.ROOT] == b"/s;root"
    assert b"in broken" in (headers[envelope.STACK] or b"")
    assert (headers[envelope.FORMAT], headers[envelope.ATTEMPTS]) == (b"1", b"1")


def test_what_the_engine_itself_found_wrong_with_data_needs_no_stack() -> None:
    """Path and message say where. Code of the application's, and what a mapping's rules came to, are shown."""
    reader = AvroCodec(contract_of(Deal), MemoryRegistry([contract_of(Deal)]))
    _, [found] = reader.decode_batch([b"\x00\x00\x00"])
    headers = dict(ENVELOPE.failed(record(), found, State.DEAD).headers)
    assert found.failure_class is FailureClass.CONTRACT
    assert headers[envelope.MESSAGE]
    assert envelope.STACK not in headers
    assert envelope.STACK in dict(dead(record()).headers)


def test_a_null_value_is_marked_because_a_null_entry_would_be_its_own_tombstone() -> None:
    entry = dead(record(key=None, value=None))
    assert entry.value == b""
    assert dict(entry.headers)[envelope.NULL_VALUE] == b"null"
    assert envelope.KEY not in dict(entry.headers)


def test_entry_keys_are_unique_by_coordinates_key_and_incarnation() -> None:
    keys = {
        entry_key("t", 1, 23, b"k"),
        entry_key("t", 12, 3, b"k"),
        entry_key("t", 1, 23, b""),
        entry_key("t", 1, 23, None),
        entry_key("u", 1, 23, b"k"),
    }
    assert len(keys) == 5


def test_a_resolved_secret_never_reaches_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_A_B", "hunter2hunter2")
    value = secret("a/b").resolve()

    def leak() -> None:
        raise RuntimeError(f"cannot connect with {value}")

    headers = dict(ENVELOPE.failed(record(), caught(leak), State.DEAD).headers)
    assert b"hunter2" not in (headers[envelope.MESSAGE] or b"") + (headers[envelope.STACK] or b"")


def test_fingerprint_groups_one_mistake_over_list_positions() -> None:
    first = Failure(0, FailureClass.CONTRACT, "lookup", "lines[0].sku", "a")
    assert fingerprint(first) == fingerprint(first._replace(index=5, path="lines[17].sku", message="b"))
    assert fingerprint(first) != fingerprint(first._replace(path="lines[0].price"))
    assert fingerprint(caught(broken)) == fingerprint(caught(broken))


def test_an_entry_gives_back_the_record_that_it_was_made_of() -> None:
    for original in (record(), record(key=None, value=None), record(value=b"")):
        kept = [(name, value) for name, value in original.headers if name != envelope.STATE]
        assert original_of(appended(dead(original))) == original._replace(headers=kept)


def test_a_second_failure_replaces_headers_and_counts_on() -> None:
    first = appended(ENVELOPE.failed(record(), caught(broken), State.RETRYING, retry_after_ms=2_000), 5)
    was = entry_of(first)
    again = ENVELOPE.failed(original_of(first), caught(broken), State.DEAD, was=was, earlier=first)
    assert again.key == first.key
    headers = dict(again.headers)
    assert len(headers) + 1 == len(again.headers)  # x came twice, nothing else does
    assert (headers[envelope.ATTEMPTS], headers[envelope.STATE]) == (b"2", b"dead")
    assert envelope.RETRY_AFTER not in headers
    assert headers[envelope.FIRST_FAILED] == dict(first.headers)[envelope.FIRST_FAILED]


def test_what_the_engine_reads_of_an_entry() -> None:
    stored = appended(ENVELOPE.failed(record(9), caught(broken), State.RETRYING, retry_after_ms=1_500), 42)
    entry = entry_of(stored._replace(timestamp_ms=77))
    assert (entry.offset, entry.version, entry.state, entry.key) == (9, 42, State.RETRYING, b"k")
    assert (entry.retry_after_ms, entry.appended_ms, entry.attempts, entry.size_bytes) == (1_500, 77, 1, 1)
    assert entry.first_failed_ms > 0


def test_an_edit_keeps_the_first_original_beside_every_revision() -> None:
    once = appended(ENVELOPE.edited(appended(dead(record())), b"better"))
    twice = appended(ENVELOPE.edited(once, None))
    assert (once.value, entry_of(once).edit, dict(once.headers)[envelope.ORIGINAL]) == (b"better", 1, b"v")
    assert (entry_of(twice).edit, dict(twice.headers)[envelope.ORIGINAL]) == (2, b"v")
    assert original_of(twice).value is None
    assert original_of(once)[:4] == ("in", 2, 7, b"k")
    again = ENVELOPE.failed(original_of(once), caught(broken), State.DEAD, was=entry_of(once), earlier=once)
    assert dict(again.headers)[envelope.ORIGINAL] == b"v"
    assert entry_of(appended(again)).edit == 1


def test_an_edited_null_is_told_from_an_edited_empty_value() -> None:
    edited = ENVELOPE.edited(appended(dead(record(value=None))), b"now")
    assert dict(edited.headers)[envelope.ORIGINAL_NULL] == b"null"
    assert original_of(appended(edited)).value == b"now"


def test_a_marker_has_no_body_and_still_knows_the_identity() -> None:
    marker = appended(ENVELOPE.marker(appended(dead(record())), State.DISCARDED))
    assert marker.value == b""
    assert entry_of(marker).state is State.DISCARDED
    assert ("ce_id", b"e1") in original_of(marker).headers
    assert envelope.STACK not in dict(marker.headers)


@pytest.mark.parametrize("version", [b"2", b"", None])
def test_an_entry_of_another_format_is_refused(version: bytes | None) -> None:
    stored = appended(dead(record()))
    headers = [(name, version if name == envelope.FORMAT else value) for name, value in stored.headers]
    with pytest.raises(FormatError, match="format version"):
        entry_of(stored._replace(headers=headers))
