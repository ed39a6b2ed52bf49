"""Bodies that are edited: exact where left alone, refused with the field path where they do not pass."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DataObject, data

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record as schema_of
from building import types_of, write_contract
from generating import things

from heddle.broker.log import Record
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of, load_contract
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.json_form import from_json
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.shapes import DictShape
from heddle.errors import ContractError, ForeignBytesError, UsageError
from heddle.integration import Flow
from heddle.operations.dead_letters.documents import written_document
from heddle.operations.dead_letters.edit import Body, open_body, settings_change
from heddle.operations.dead_letters.hiding import Hiding
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse, render
from heddle.operations.dead_letters.masking import MASK, Masking
from heddle.operations.dead_letters.patching import merge_patch, patch_of, set_value, value_of
from producers.crm_deals import source
from schemas.crm import Deal

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)


class OneSchema(MemoryRegistry):
    """A registry whose every id is of one schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        super().__init__()
        self._only = schema

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self._only


def _through_json(schema: dict[str, Any], body: bytes) -> bytes:
    node, document = written_document(b"\0\0\0\0\x01" + body, OneSchema(schema))
    document = parse(render(document, indent=2))
    return encode_reference(node, DictShape(), DEFAULT_LIMITS, from_json(node, document))


@_SETTINGS
@given(things(), data())
def test_an_edit_of_nothing_gives_identical_bytes(thing: Any, draws: DataObject) -> None:
    schema, values = thing
    body = encode_reference(parse_schema(schema), DictShape(), DEFAULT_LIMITS, draws.draw(values))
    assert _through_json(schema, body) == body


@pytest.mark.parametrize(
    ("branches", "written"),
    [
        (["int", "long"], b"\x02\x0a"),  # 5 as a long
        (["string", "bytes"], b"\x02\x08aGk="),  # bytes whose text is base64 as well
        (["bytes", "string"], b"\x02\x08aGk="),  # text that is base64
        (["null", "float", "double"], b"\x04" + b"\x00" * 6 + b"\xf8\x7f"),  # NaN as a double
        (["string", {"type": "long", "logicalType": "timestamp-millis"}], b"\x00\x282026-03-01T10:00:00Z"),
        ([{"type": "map", "values": "string"}, "string"], b"\x00\x02\x0cstring\x02x\x00"),  # a map like a branch's name
        (["boolean", {"type": "array", "items": ["int", "long"]}], b"\x02\x04\x00\x02\x02\x02\x00"),
    ],
)  # fmt: skip
def test_the_branch_of_a_union_is_kept(branches: Any, written: bytes) -> None:
    assert _through_json(schema_of([("x", branches)]), written) == written


DEAL = {
    "deal_id": "D-1",
    "stage": "WON",
    "sales_agent": "Moses Frase",
    "product": "GTXPro",
    "account": None,
    "engaged_on": date(2026, 2, 1),
    "closed_on": date(2026, 3, 1),
    "close_value": Decimal("4821.50"),
    "currency": "USD",
    "changed_at": datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC),
}
REGISTRY = MemoryRegistry([contract_of(Deal)])
CODEC: AvroCodec[Any] = AvroCodec(contract_of(Deal), REGISTRY)
FLOW: Flow[Any, Any] = Flow("deals", reads=Deal, writes=Deal, do=lambda deal: deal, owner="testers")
WRITTEN = CODEC.encode_dict(DEAL)


def opened(value: bytes | None = WRITTEN, *, newest: bool = False) -> Body:
    return open_body(Record("crm.deal.v1", 0, 7, b"default/D-1", value, [], 0), FLOW, REGISTRY, newest=newest)


def changed(*settings: str) -> dict[str, Any]:
    body = opened()
    return CODEC.decode_dict(body.encode(settings_change(settings)(body)(body.document)))


def test_a_document_reads_as_people_write() -> None:
    assert opened().document == {
        "deal_id": "D-1",
        "stage": "WON",
        "sales_agent": "Moses Frase",
        "product": "GTXPro",
        "account": None,
        "engaged_on": "2026-02-01",
        "closed_on": "2026-03-01",
        "close_value": "4821.50",
        "currency": "USD",
        "changed_at": "2026-03-01T10:00:00.250000Z",
    }
    body = opened()
    assert body.encode(body.read(body.text(body.document))) == WRITTEN


def test_settings_take_json_and_bare_words() -> None:
    assert changed("product=GTX Pro") == DEAL | {"product": "GTX Pro"}
    assert changed("product=007")["product"] == "007"
    assert changed('product="null"')["product"] == "null"
    assert changed("account=null")["account"] is None
    assert changed("close_value=1.10")["close_value"] == Decimal("1.10")
    assert changed('close_value="12"', "closed_on=2026-04-01")["closed_on"] == date(2026, 4, 1)


@pytest.mark.parametrize(
    ("setting", "code", "path"),
    [
        ("stage=WONN", "unknown-symbol", "stage"),
        ("close_value=1.005", "decimal-scale", "close_value"),
        ("close_value=many", "wrong-type", "close_value"),
        ("changed_at=yesterday", "wrong-type", "changed_at"),
        ("changed_at=2026-03-01T10:00:00", "naive-datetime", "changed_at"),
        ("product=null", "wrong-type", "product"),
        ("produkt=GTX Pro", "unknown-field", "produkt"),
    ],
)
def test_what_does_not_pass_is_refused_with_its_path(setting: str, code: str, path: str) -> None:
    with pytest.raises(ContractError) as refused:
        changed(setting)
    assert (refused.value.code, refused.value.path) == (code, path)


def test_a_path_that_leads_nowhere_is_refused() -> None:
    for setting in ("lines[0].product=X", "product.name=X", "=X", "product", "a..b=1"):
        with pytest.raises(UsageError):
            changed(setting)


def test_an_entry_of_an_older_version_is_edited_under_it_or_moved(tmp_path: Path) -> None:
    old = schema_of([("id", "string"), ("amount", "int")])
    new = schema_of([("id", "string"), ("amount", "long"), {"name": "note", "type": "string", "default": "-"}])
    first = load_contract(write_contract(tmp_path, old))
    registry = MemoryRegistry([first])
    written = AvroCodec[Any](first, registry).encode_dict({"id": "x", "amount": 5})
    write_contract(tmp_path, new)
    thing = types_of(tmp_path).Thing
    contract = contract_of(thing)
    registry.register(contract)
    flow: Flow[Any, Any] = Flow("things", reads=thing, writes=thing, do=lambda thing: thing, owner="testers")
    record = Record("test.thing.v1", 0, 0, None, written, [], 0)

    body = open_body(record, flow, registry)
    assert body.document == {"id": "x", "amount": 5}
    assert body.encode({"id": "x", "amount": 6})[:5] == written[:5]
    assert body.encode(body.document) == written
    moved = open_body(record, flow, registry, newest=True)
    assert moved.document == {"id": "x", "amount": 5, "note": "-"}
    data = moved.encode({"id": "x", "amount": 2**40, "note": "n"})
    assert data[:5] == AvroCodec[Any](contract, registry).frame
    with pytest.raises(ContractError):
        body.encode({"id": "x", "amount": 2**40})


def test_what_the_handler_cannot_read_is_refused_though_its_own_schema_takes_it() -> None:
    other = schema_of([("id", "string")], "Other")
    record = Record("crm.deal.v1", 0, 0, None, b"\0\0\0\0\x01\x02x", [], 0)
    body = open_body(record, FLOW, OneSchema(other))
    assert body.document == {"id": "x"}
    with pytest.raises(ContractError, match=r"is test\.v1\.Other, not crm\.v1\.Deal"):
        body.encode({"id": "y"})


def test_bytes_without_a_schema_become_an_event_on_request() -> None:
    plain = render(opened().document).encode()
    with pytest.raises(ForeignBytesError, match="Confluent") as refused:
        opened(plain)
    assert "--newest" in refused.value.hint
    body = opened(plain, newest=True)
    assert body.encode(body.document) == WRITTEN
    with pytest.raises(ContractError, match="null"):
        opened(None)
    assert opened(None, newest=True).document is None
    for newest in (False, True):
        with pytest.raises(ContractError, match="its bytes cannot be read: ") as unreadable:
            opened(WRITTEN[:-1], newest=newest)
        assert "export it" in unreadable.value.hint


def test_a_raw_delivery_is_edited_as_json_with_the_same_digits() -> None:
    delivery = b'{"price":1.10,"id":12345678901234567890,"text":"\xc3\xa9","list":[1e5,-0.0]}'
    body = open_body(Record("crm-deals.raw", 0, 0, None, delivery, [], 0), source, REGISTRY)
    change = settings_change(["price=2.20"])(body)
    assert body.encode(body.document) == delivery.replace(b"1e5", b"1E+5")
    assert body.encode(change(body.document)) == delivery.replace(b"1.10", b"2.20").replace(b"1e5", b"1E+5")


def test_a_raw_delivery_that_is_no_json_is_text() -> None:
    body = open_body(Record("crm-deals.raw", 0, 0, None, b"id=1&name=x", [], 0), source, REGISTRY)
    assert body.text(body.document) == "id=1&name=x"
    assert body.encode(body.read("id=2&name=x")) == b"id=2&name=x"
    assert body.encode(body.read("id=2&name=x\n")) == b"id=2&name=x"  # most editors end a file so
    with pytest.raises(ContractError, match="neither JSON nor text"):
        open_body(Record("crm-deals.raw", 0, 0, None, b"\xff\x00", [], 0), source, REGISTRY)


# Classified fields.


def test_what_is_hidden_stays_in_its_place_or_is_replaced_whole() -> None:
    hiding = Hiding(Masking(("name", "lines.iban")), of_raw=False, hides_key=False)
    document = {"id": 1, "name": "Moses", "lines": [{"iban": "DE1", "sum": "1"}, {"iban": None, "sum": "2"}]}
    shown = hiding.masked(document)
    assert shown == {"id": 1, "name": MASK, "lines": [{"iban": MASK, "sum": "1"}, {"iban": None, "sum": "2"}]}
    assert hiding.restored(shown, document) == document
    edited = shown | {"id": 2, "lines": [{"iban": "DE2", "sum": "9"}]}
    assert hiding.restored(edited, document) == {"id": 2, "name": "Moses", "lines": [{"iban": "DE2", "sum": "9"}]}
    with pytest.raises(ContractError) as refused:
        hiding.restored(shown | {"other": MASK}, document)
    assert refused.value.path == "other"
    assert [tuple(d) for d in hiding.differences(document, document | {"name": "Elias", "id": 3})] == [
        ("id", 1, 3),
        ("name", MASK, MASK),
    ]
    raw = Hiding(Masking(("name",)), of_raw=True, hides_key=True)
    assert (raw.masked({"a": [1]}), raw.key("k"), raw.key(None)) == ({"a": [MASK]}, MASK, None)


# Patches.


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(document: Any, patch: Any, result: Any) -> None:
    assert merge_patch(document, patch) == result


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, {"op": "add", "path": "/foo/1", "value": "qux"}, {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, {"op": "replace", "path": "/baz", "value": "boo"}, {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            {"op": "move", "from": "/foo/waldo", "path": "/qux/thud"},
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        ({"foo": [1, 2, 3]}, {"op": "move", "from": "/foo/1", "path": "/foo/2"}, {"foo": [1, 3, 2]}),
        ({"baz": "qux"}, {"op": "test", "path": "/baz", "value": "qux"}, {"baz": "qux"}),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["a"]}, {"foo": ["bar", ["a"]]}),
        ({"foo": {"a": 1}}, {"op": "copy", "from": "/foo", "path": "/bar"}, {"foo": {"a": 1}, "bar": {"a": 1}}),
        ({"foo": 1}, {"op": "replace", "path": "", "value": [1]}, [1]),
    ],
)
def test_patches_of_operations(document: Any, operation: Any, result: Any) -> None:
    assert patch_of([operation])(document) == result
    assert list(patch_of([operation])(document)) == list(result) or operation["op"] == "add"


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz/bat", "value": "qux"}),
        ({"baz": "qux"}, {"op": "test", "path": "/baz", "value": "bar"}),
        ({"foo": [1]}, {"op": "remove", "path": "/foo/1"}),
        ({"foo": [1]}, {"op": "add", "path": "/foo/01", "value": 1}),
        ({"foo": 1}, {"op": "remove", "path": "foo"}),
        ({"foo": 1}, {"op": "explode", "path": "/foo"}),
        ({"foo": 1}, {"op": "test", "path": "/foo", "value": True}),
        ({"foo": 1}, {"op": "replace", "path": "/bar", "value": 1}),
    ],
)
def test_patches_that_do_not_apply(document: Any, operation: Any) -> None:
    with pytest.raises(UsageError):
        patch_of([operation])(document)


def test_a_patch_leaves_the_document_that_it_is_given_alone() -> None:
    document = {"a": {"b": [1]}}
    patch_of([{"op": "add", "path": "/a/b/-", "value": 2}])(document)
    merge_patch(document, {"a": {"b": None}})
    set_value(document, ("a", "b", 0), 9)
    assert document == {"a": {"b": [1]}}


def test_json_text_keeps_digits_and_refuses_what_would_be_lost() -> None:
    text = '{"a":[1.10,-0.0,12345678901234567890123.5],"b":{},"c":[],"d":"\\ud800","e":"\u00fc"}'
    assert render(parse(text)) == text
    assert parse(render(parse(text), indent=2)) == parse(text)
    for refused in ('{"a":1,"a":2}', "NaN", "{", "[" * 100_000):
        with pytest.raises(InvalidJsonError):
            parse(refused)
    assert value_of("1.5", is_text=False) == Decimal("1.5")
