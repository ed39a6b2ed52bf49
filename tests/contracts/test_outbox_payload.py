"""What an application writes into its outbox converts, whatever the contract; what does not fit is refused there."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from building import codec_of, make_contract, types_of, write_contract
from generating import things
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.contracts import contract_of, load_contract
from heddle.errors import ContractError, UsageError
from heddle.event import entity_key
from heddle.secrets import secret
from heddle.sources.outbox import Outbox, OutboxSource
from heddle.sources.outbox.payload import payloads_of
from heddle.sources.outbox.row import OutboxRow

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}
MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
WHEN = "2026-03-01 14:05:00.25+00"


class Written:
    """A connection that keeps what is executed on it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []

    def execute(self, statement: str, row: tuple[str, ...]) -> None:
        assert statement.count("%s") == len(row)
        self.rows.append(row)


@pytest.fixture
def kind(tmp_path: Path) -> type[Any]:
    make_contract(tmp_path, [("amount", DECIMAL), ("at", MOMENT), {"name": "note", "type": "string", "default": "-"}])
    found: type[Any] = types_of(tmp_path).Thing
    return found


def row_of(row: tuple[str, ...], kind: type[Any]) -> OutboxRow:
    return OutboxRow(*row, WHEN, {contract_of(kind).name: kind})  # type: ignore[arg-type, call-arg]


def value_of(kind: type[Any], **more: Any) -> Any:
    return kind(**{"id": "7", "amount": Decimal("12.50"), "at": datetime(2026, 3, 1, tzinfo=UTC), **more})


@settings(max_examples=60, deadline=None)
@given(st.data(), things())
def test_whatever_the_contract_takes_is_given_back(data: st.DataObject, thing: Any) -> None:
    schema, values = thing
    with tempfile.TemporaryDirectory() as folder:
        codec = codec_of(load_contract(write_contract(Path(folder), schema)))
        kind = types_of(Path(folder)).Thing
        value = codec.decode(codec.encode_dict(data.draw(values)))
        payloads = payloads_of(kind)
        try:
            text = payloads.text(value)
        except ContractError:
            assert "\\x00" in repr(value)  # the one refusal that is PostgreSQL's
            return
        assert codec.encode(payloads.value(text)) == codec.encode(value)


def test_a_row_is_one_event_of_its_contract(kind: type[Any]) -> None:
    connection, value = Written(), value_of(kind)
    made_id = Outbox().put(connection, value)
    (row,) = connection.rows
    assert row[:4] == (str(made_id), "test.thing", "default/7", "test.thing.v1")
    (draft,) = row_of(row, kind).drafts()
    assert (draft.value, draft.id, draft.deletes) == (value, str(made_id), None)
    assert draft.time == datetime(2026, 3, 1, 14, 5, 0, 250_000, UTC)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"amount": Decimal("1.234")}, "amount"),
        ({"amount": "12.50"}, "amount"),
        ({"at": datetime(2026, 3, 1)}, "at"),
        ({"note": None}, "note"),
        ({"note": "nul\0"}, ""),
    ],
)
def test_what_the_contract_refuses_is_refused_before_it_is_written(kind: type[Any], more: Any, path: str) -> None:
    connection = Written()
    with pytest.raises(ContractError) as raised:
        Outbox().put(connection, value_of(kind, **more))
    assert raised.value.path == path
    assert connection.rows == []


def test_what_an_older_application_does_not_know_takes_its_default(kind: type[Any]) -> None:
    payloads = payloads_of(kind)
    document = json.loads(payloads.text(value_of(kind)))
    del document["note"]
    assert payloads.value(json.dumps(document)).note == "-"


def test_a_number_keeps_its_digits(kind: type[Any]) -> None:
    """As other programs write decimals: bare."""
    text = '{"id": "7", "amount": 123456789012345678.91, "at": "2026-03-01T00:00:00Z"}'
    assert payloads_of(kind).value(text).amount == Decimal("123456789012345678.91")


@pytest.mark.parametrize("text", ["ä", "a b", "abc"])
def test_text_that_is_no_base64_is_no_bytes(tmp_path: Path, text: str) -> None:
    make_contract(tmp_path, [("either", ["bytes", "string"]), ("raw", "bytes")])
    kind = types_of(tmp_path).Thing
    payloads = payloads_of(kind)
    assert payloads.value(payloads.text(kind(id="7", either=text, raw=b""))).either == text
    with pytest.raises(ContractError) as raised:
        payloads.value(json.dumps({"id": "7", "either": "", "raw": text}))
    assert raised.value.path == "raw"


def test_an_entity_that_is_gone_is_a_tombstone(kind: type[Any]) -> None:
    connection = Written()
    Outbox().delete(connection, kind, {"id": "7"})
    (row,) = connection.rows
    assert row[1:] == ("test.thing", "default/7", "test.thing.v1.deleted", '{"id":"7"}')
    (draft,) = row_of(row, kind).drafts()
    assert (draft.value, draft.deletes) == ({"id": "7"}, kind)
    with pytest.raises(ContractError, match="key field id is missing"):
        Outbox().delete(connection, kind, {"note": "7"})


def test_a_key_of_several_fields_is_the_same_for_value_and_tombstone(tmp_path: Path) -> None:
    day = {"type": "int", "logicalType": "date"}
    make_contract(tmp_path, [("day", day), ("number", "long")], key=("day", "number"), toml='tenant = "id"\n')
    kind = types_of(tmp_path).Thing
    value, connection = kind(id="acme", day=date(2026, 3, 1), number=7), Written()
    Outbox().put(connection, value)
    Outbox().delete(connection, kind, {"id": "acme", "day": date(2026, 3, 1), "number": 7})
    put, deleted = (row_of(row, kind) for row in connection.rows)
    assert put.key == deleted.key
    (tombstone,) = deleted.drafts()
    assert contract_of(kind).key_of(tombstone.value) == contract_of(kind).key_of(value)


@pytest.mark.parametrize(("key", "toml"), [(("id", "number"), ""), (("id",), 'tenant = "note"\n')])
def test_a_row_without_payload_does_not_guess_a_key(tmp_path: Path, key: tuple[str, ...], toml: str) -> None:
    make_contract(tmp_path, [("number", "long"), ("note", "string")], key=key, toml=toml)
    kind = types_of(tmp_path).Thing
    with pytest.raises(ContractError, match="more than the aggregate's id"):
        OutboxRow("1", "thing", "7", "test.thing.v1", None, WHEN, {"test.thing.v1": kind}).drafts()


def test_a_row_without_payload_is_a_tombstone_of_its_aggregate(kind: type[Any]) -> None:
    (draft,) = OutboxRow("1", "thing", "7", "ThingGone", None, WHEN, {"ThingGone": kind}).drafts()
    assert (draft.value, draft.deletes) == ({"id": "7"}, kind)


@pytest.mark.parametrize(
    ("type_name", "payload", "created_at", "told"),
    [
        ("Other", "{}", WHEN, "not declared"),
        ("test.thing.v1", "{", WHEN, "not JSON"),
        ("test.thing.v1", "[" * 100_000, WHEN, "not JSON"),
        ("test.thing.v1", "7", WHEN, "no JSON object"),
        ("test.thing.v1", '{"id": "7", "unheard": 1}', WHEN, "unheard is no field"),
        ("test.thing.v1", '{"id": "7"}', WHEN, "amount is missing"),
        ("test.thing.v1", b"\xff", WHEN, "no UTF-8"),
        ("test.thing.v1", "{}", "infinity", "created_at|years"),
        ("test.thing.v1.deleted", '{"note": "x"}', WHEN, "key field id"),
    ],
)
def test_rows_that_do_not_convert_say_why_and_are_kept_as_they_are(
    kind: type[Any], type_name: str, payload: str | bytes, created_at: str, told: str
) -> None:
    kinds = {"test.thing.v1": kind}
    row = OutboxRow("1", "thing", "7", type_name, payload, created_at, kinds)
    with pytest.raises(ContractError, match=told):
        row.drafts()
    assert OutboxRow.unpack(row.pack(), kinds) == row


@pytest.mark.parametrize("packed", [None, b"", b"{}", b"[]", b'{"v": 2}', b'{"v": 1, "id": "1"}'])
def test_a_raw_record_of_somebody_else_is_a_contract_failure(packed: bytes | None) -> None:
    with pytest.raises(ContractError, match="no outbox row"):
        OutboxRow.unpack(packed, {})


def test_aggregates_of_different_types_are_different_keys() -> None:
    def key(aggregate_type: str, aggregate_id: str) -> bytes:
        return OutboxRow("1", aggregate_type, aggregate_id, "t", None, WHEN, {}).key

    assert key("a/b", "c") != key("a", "b/c")
    assert key("a", "b") == entity_key("a/b")


def test_declarations_that_cannot_be_right_are_refused(kind: type[Any], tmp_path: Path) -> None:
    def declared(**more: Any) -> OutboxSource:
        return OutboxSource("bank", **{"dsn": secret("bank/dsn"), "emits": kind, "owner": "tests", **more})

    assert declared().kinds == {"test.thing.v1": kind}
    for wrong in ({"table": "outbox"}, {"types": {"Other": int}}, {"read_by": "capture"}):
        with pytest.raises(UsageError):
            declared(**wrong)


def test_what_is_no_connection_is_told(kind: type[Any]) -> None:
    with pytest.raises(UsageError, match="no connection"):
        Outbox().put(object(), value_of(kind))
