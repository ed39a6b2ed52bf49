"""The dead-letter entry and the gates that it closes."""

from collections.abc import Callable

import pytest

from heddle.broker.log import Outgoing, Record
from heddle.delivery import envelope
from heddle.delivery.classify import failure_of, fingerprint
from heddle.delivery.envelope import Envelope, entry_key
from heddle.delivery.gates import Gates
from heddle.errors import ContractError, Failure, FailureClass, FormatError
from heddle.secrets import secret

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


def test_the_original_is_kept_whole_and_our_headers_are_replaced_on_each_hop() -> None:
    entry = ENVELOPE.dead(record(), caught(broken))
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


def test_a_null_value_is_marked_because_a_null_entry_would_be_its_own_tombstone() -> None:
    entry = ENVELOPE.dead(record(key=None, value=None), caught(broken))
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

    headers = dict(ENVELOPE.dead(record(), caught(leak)).headers)
    assert b"hunter2" not in (headers[envelope.MESSAGE] or b"") + (headers[envelope.STACK] or b"")


def test_fingerprint_groups_one_mistake_over_list_positions() -> None:
    first = Failure(0, FailureClass.CONTRACT, "lookup", "lines[0].sku", "a")
    assert fingerprint(first) == fingerprint(first._replace(index=5, path="lines[17].sku", message="b"))
    assert fingerprint(first) != fingerprint(first._replace(path="lines[0].price"))
    assert fingerprint(caught(broken)) == fingerprint(caught(broken))


def parked(*offsets: int, key: bytes | None = b"k") -> list[Record]:
    return [appended(ENVELOPE.dead(record(offset, key), caught(broken)), i) for i, offset in enumerate(offsets)]


def test_restored_gates_hold_the_key_behind_its_first_entry() -> None:
    gates = Gates(by_key=True)
    gates.restore(2, "topic-id", parked(9, 4))
    assert gates.blocking(record(20)) == 4
    assert gates.blocking(record(20, b"other")) is None
    assert gates.is_entry(record(9))
    assert not gates.is_entry(record(10))


def test_a_tombstone_opens_the_gate() -> None:
    (entry,) = parked(9)
    gates = Gates(by_key=True)
    gates.restore(2, "topic-id", [entry, entry._replace(value=None, headers=[])])
    assert gates.blocking(record(20)) is None
    assert not gates.any()


def test_null_keys_and_other_incarnations_of_the_topic_gate_nothing() -> None:
    gates = Gates(by_key=True)
    gates.restore(2, "topic-id", parked(9, key=None))
    assert gates.blocking(record(20, None)) is None
    gates.restore(2, "another id", parked(9))
    assert not gates.any()


def test_an_entry_of_a_newer_format_stops_the_worker() -> None:
    (entry,) = parked(9)
    newer = [(name, b"2" if name == envelope.FORMAT else value) for name, value in entry.headers]
    with pytest.raises(FormatError, match="version"):
        Gates(by_key=True).restore(2, "topic-id", [entry._replace(headers=newer)])


def test_mode_continue_remembers_entries_but_gates_no_key() -> None:
    gates = Gates(by_key=False)
    gates.restore(2, "topic-id", parked(9))
    assert gates.blocking(record(20)) is None
    assert gates.is_entry(record(9))
