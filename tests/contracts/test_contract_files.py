"""What a contract file must say, and that every error names the file and the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from building import make_contract, record, types_of, write_contract

from heddle.contracts import contract_of, load_contract, load_contracts
from heddle.contracts.parser import parse_schema
from heddle.errors import ContractError, EncodeError, UsageError
from heddle.event import entity_key
from schemas.crm import Deal

DATA = Path(__file__).parent / "data"
ID = ("id", "string")


def test_the_reference_contracts_are_valid() -> None:
    root = Path(__file__).parents[2]
    contracts = {contract.name: contract for contract in load_contracts(root)}
    assert contracts.keys() >= {"crm.deal.v1", "billing.invoice.v1", "payments.payment.v1", "ledger.entry.v1"}
    deal = contracts["crm.deal.v1"]
    assert (deal.topic, deal.subject, deal.domain, deal.major) == ("crm.deal.v1", "crm.deal.v1-value", "crm", 1)
    assert deal.type is Deal
    assert contract_of(Deal) == deal
    assert contract_of(Deal) is contract_of(Deal)


def test_the_fingerprint_follows_the_schema_and_not_its_layout(tmp_path: Path) -> None:
    schema = record([ID])
    first = load_contract(write_contract(tmp_path / "a", schema))
    path = write_contract(tmp_path / "b", schema)
    path.write_text(json.dumps(schema, indent=4))
    assert load_contract(path).fingerprint == first.fingerprint
    assert load_contract(write_contract(tmp_path / "c", record([ID], doc="Else."))).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (record([ID], name="Other"), "test.v1.Other"),
        (record([ID], namespace="test.v2"), "asks for record test.v1.Thing"),
        ({"type": "enum", "name": "Thing", "namespace": "test.v1", "symbols": ["A"]}, "asks for record"),
        (record([ID], doc=" "), "record test.v1.Thing has no doc"),
        (record([{"name": "id", "type": "string", "doc": ""}]), "field test.v1.Thing.id has no doc"),
        (record([ID, ("r", record([{"name": "x", "type": "int", "doc": ""}], "Inner"))]), "test.v1.Inner.x has no doc"),
        (record([ID, ("n", {"type": "array", "items": "null"})]), "test.v1.Thing.n"),
        (record([ID, ("n", {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3})]), "Thing.n"),
        (record([ID, ("n", {"type": "long", "logicalType": "timestamp-nanos"})]), "timestamp-nanos"),
        (record([ID, ("n", {"type": "string", "logicalType": "decimal", "precision": 2})]), "Thing.n"),
        (record([ID, {"name": "n", "type": "int", "default": "1"}]), "default of test.v1.Thing.n"),
        (record([ID, {"name": "n", "type": ["null", "int"], "default": "null"}]), "default of test.v1.Thing.n"),
        (record([ID, {"name": "n", "type": "int", "default": 2**31}]), "default of test.v1.Thing.n"),
        (record([ID, ("n", "Unknown")]), "'Unknown' is not defined"),
        (record([ID, ("n", ["int", "int"])]), "two branches of the same type"),
        (record([ID, ID]), "two fields of the same name"),
        (record([ID, ("n", {"type": "enum", "name": "E", "symbols": ["A", "A"]})]), "two symbols"),
        (record([("id", ["null", "string"])]), "key field id is union"),
        (record([("id", "double")]), "key field id is double"),
        (record([("other", "string")]), "key field id is not in the schema"),
    ],
)
def test_rules_name_the_file_and_the_place(tmp_path: Path, schema: dict[str, Any], says: str) -> None:
    path = write_contract(tmp_path, schema)
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('owner = ""\ndescription = "d"\nkey = ["id"]', "owner"),
        ('description = "d"\nkey = ["id"]', "owner"),
        ('owner = "o"\ndescription = "d"\nkey = []', "key"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\nowners = "x"', "owners"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\n[topic]\npartition = 3', "topic.partition"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\n[topic]\npartitions = 0', "topic.partitions"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\n[topic]\npartitions = "6"', "topic.partitions"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\n[topic]\ncleanup = "keep"', "topic.cleanup"),
        ('owner = "o"\ndescription = "d"\nkey = ["no.such"]', "no.such"),
        ('owner = "o"\ndescription = "d"\nkey = ["id"]\ntenant = "gone"', "gone"),
        ("owner = ", "Invalid value"),
    ],
)
def test_metadata_errors_name_the_file_and_the_key(tmp_path: Path, toml: str, says: str) -> None:
    path = write_contract(tmp_path, record([ID]))
    path.with_suffix(".toml").write_text(toml)
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    assert str(path.with_suffix("")) in str(caught.value)
    assert says in str(caught.value)


def test_missing_and_misnamed_files(tmp_path: Path) -> None:
    path = write_contract(tmp_path, record([ID]))
    path.with_suffix(".toml").unlink()
    with pytest.raises(ContractError, match=r"thing\.v1\.toml is missing"):
        load_contract(path)
    path.write_text("{")
    with pytest.raises(ContractError, match="not readable as JSON"):
        load_contract(path)
    for name in ("thing.avsc", "Thing.v1.avsc", "thing.v0.avsc", "thing.v1.json"):
        with pytest.raises(ContractError, match="not named"):
            load_contract(path.with_name(name))


def test_a_schema_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = write_contract(tmp_path, record([ID]))
    deep = '{"type":"array","items":' * 5000 + '"int"' + "}" * 5000
    path.write_text(json.dumps(record([ID])).replace('"string"', deep))
    with pytest.raises(ContractError):
        load_contract(path)


@pytest.mark.parametrize(
    "path", sorted((DATA / "schema_validity").glob("*/*")), ids=lambda p: f"{p.parent.name}-{p.name}"
)
def test_schema_validity_of_the_avro_project(path: Path) -> None:
    def parse() -> None:
        try:
            parse_schema(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ContractError(str(error)) from error

    if path.parent.name == "pass":
        parse()
    else:
        with pytest.raises(ContractError):
            parse()


def test_a_class_that_is_no_contract_type() -> None:
    with pytest.raises(UsageError, match="str is not a contract type"):
        contract_of(str)


def test_keys_of_dicts_and_of_types_are_the_same(tmp_path: Path) -> None:
    inner = record([("no", "long"), ("class", {"type": "string", "logicalType": "uuid"})], "Inner")
    schema = record([("id", "string"), ("org", "string"), ("in", inner)])
    write_contract(tmp_path, schema, key=("id", "in.no", "in.class"), toml='tenant = "org"\n')
    module = types_of(tmp_path)
    token = UUID(int=5)
    typed = module.Thing(id="a/b", org="ü", in_=module.Inner(no=7, class_=token))
    plain = {"id": "a/b", "org": "ü", "in": {"no": 7, "class": token}}
    key_of = contract_of(module.Thing).key_of
    assert key_of(typed) == key_of(plain) == entity_key(f"a%2Fb/7/{token}", "ü")


def test_one_key_field_is_the_entity_as_it_is(tmp_path: Path) -> None:
    key_of = make_contract(tmp_path, []).key_of
    for entity in ("D-1", "a b", "ä/ö", "100%", "", "~._-"):
        assert key_of({"id": entity}) == entity_key(entity)


def test_different_lists_of_key_values_never_share_a_key(tmp_path: Path) -> None:
    key_of = load_contract(write_contract(tmp_path, record([ID, ("b", "string")]), key=("id", "b"))).key_of
    pairs = [("a", "b"), ("a/b", ""), ("", "a/b"), ("a%2Fb", ""), ("a/", "b"), ("a", "/b")]
    assert len({key_of({"id": a, "b": b}) for a, b in pairs}) == len(pairs)


@pytest.mark.parametrize("value", [{}, {"id": None}, {"id": True}, {"id": 1.5}, {"id": b"x"}, object()])
def test_a_value_without_a_usable_key_is_refused_by_path(tmp_path: Path, value: object) -> None:
    with pytest.raises(EncodeError) as caught:
        make_contract(tmp_path, []).key_of(value)
    assert caught.value.path == "id"


def test_classified_fields_are_found_through_lists_maps_and_unions(tmp_path: Path) -> None:
    person = record([("email", "string")], "Person")
    fields = [
        ID,
        ("contact", ["null", person]),
        ("lines", {"type": "array", "items": record([("account", "string")], "Line")}),
        ("by_role", {"type": "map", "values": "Person"}),
    ]
    paths = ("contact.email", "lines.account", "by_role.email", "contact")
    listed = ", ".join(f'"{path}"' for path in paths)
    file = write_contract(tmp_path, record(fields), toml=f"classified = [{listed}]\n")
    assert load_contract(file).metadata.classified == paths


@pytest.mark.parametrize("path", ["contact.mail", "contact.email.x", "nothing", "Contact"])
def test_a_classified_field_that_does_not_exist_is_refused(tmp_path: Path, path: str) -> None:
    fields = [ID, ("contact", record([("email", "string")], "Person"))]
    file = write_contract(tmp_path, record(fields), toml=f'classified = ["{path}"]\n')
    with pytest.raises(ContractError, match=f"classified field {path} is not in the schema"):
        load_contract(file)
