"""Generated types: exact text, honest annotations, and what a type checker makes of them."""

from __future__ import annotations

import subprocess
import sys
import timeit
from dataclasses import fields
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pydantic
import pytest
from building import codec_of, record, types_of, write_contract

from heddle.contracts import contract_of
from heddle.contracts.decode_compiler import open_twin
from heddle.contracts.types import generate, stale, write
from heddle.errors import ContractError
from schemas.crm import Deal

ROOT = Path(__file__).parents[2]
INNER = record([("x", "int"), {"name": "y", "type": "string", "default": "z"}], "Inner")
del INNER["namespace"]
KITCHEN: list[Any] = [
    ("id", "string"),
    ("class", "boolean"),
    ("date", {"type": "int", "logicalType": "date"}),
    ("datetime", {"type": "long", "logicalType": "timestamp-micros"}),
    ("time", {"type": "int", "logicalType": "time-millis"}),
    ("str", "string"),
    ("bytes", "bytes"),
    ("field", "int"),
    ("Colour", {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"], "doc": 'Says "red" or \\green.'}),
    ("code", {"type": "fixed", "name": "Code", "size": 2}),
    ("money", {"type": "fixed", "name": "Money", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2}),
    ("many", {"type": "array", "items": INNER}),
    ("by_name", {"type": "map", "values": ["null", "Inner"]}),
    ("either", ["null", "string", "long", "Inner"]),
    {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 86_400_000},
    {"name": "on", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    {"name": "at", "type": {"type": "long", "logicalType": "time-micros"}, "default": 1_000_000},
    {"name": "token", "type": {"type": "string", "logicalType": "uuid"}, "default": str(UUID(int=1))},
    {
        "name": "amount",
        "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
        "default": "\u007b",
    },
    {"name": "raw", "type": "bytes", "default": "\u00ff"},
    {"name": "quote", "type": "string", "default": 'it\'s "quoted"\n'},
    {"name": "ratio", "type": "double", "default": 1},
    {"name": "list", "type": {"type": "array", "items": "int"}, "default": [1]},
    {"name": "lists", "type": {"type": "array", "items": "Inner"}, "default": [{"x": 1}, {"x": 2, "y": "w"}]},
    {"name": "map", "type": {"type": "map", "values": "int"}, "default": {}},
    {"name": "maps", "type": {"type": "map", "values": "int"}, "default": {"a": 1}},
    {"name": "inner", "type": "Inner", "default": {"x": 5}},
    {"name": "loop", "type": ["null", "Thing"], "default": None},
    {"name": "long_doc", "type": "int", "default": 0, "doc": "Words and words. " * 30},
]


def _kitchen(root: Path) -> Path:
    write_contract(root, record(KITCHEN))
    write_contract(root, record([*KITCHEN, ("more", "int")], namespace="test.v2"), "test/thing.v2")
    return root


def test_the_repository_has_fresh_types() -> None:
    assert stale(ROOT) == []


def test_every_kind_of_field_and_default(tmp_path: Path) -> None:
    module = types_of(_kitchen(tmp_path))
    value = module.Thing(
        id="x",
        class_=True,
        date=date(2024, 1, 2),
        datetime=datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        time=time(1, 2, 3),
        str="s",
        bytes=b"b",
        field=1,
        Colour="RED",
        code=b"ab",
        money=Decimal("1.50"),
        many=(module.Inner(x=1),),
        by_name={"a": None, "b": module.Inner(x=2)},
        either=module.Inner(x=3),
    )
    assert value.when == datetime(1970, 1, 2, tzinfo=UTC)
    assert value.at == time(0, 0, 1)
    assert value.token == UUID(int=1)
    assert value.amount == Decimal("1.23")
    assert (value.raw, value.quote, value.ratio) == (b"\xff", 'it\'s "quoted"\n', 1.0)
    assert value.lists == (module.Inner(x=1, y="z"), module.Inner(x=2, y="w"))
    assert (value.list, value.map, value.maps, value.inner) == ((1,), {}, {"a": 1}, module.Inner(x=5))
    codec = codec_of(contract_of(module.Thing))
    assert codec.decode(codec.encode(value)) == value
    assert {f.name for f in fields(module.ThingV2)} == {f.name for f in fields(module.Thing)} | {"more"}
    assert contract_of(module.ThingV2).name == "test.thing.v2"
    assert module.Thing.__doc__ == "A thing."


def test_type_checkers_see_the_contract(tmp_path: Path) -> None:
    """mypy --strict takes the generated file as it is, and finds a misspelt field, a wrong type and a wrong symbol.
    The generated file is also clean for ruff, formatted."""
    _kitchen(tmp_path)
    (generated,) = write(tmp_path)
    use = tmp_path / "use.py"
    use.write_text(
        "from decimal import Decimal\n"
        "from schemas.crm import Deal\n"
        "def handler(deal: Deal) -> Decimal | None:\n"
        "    if deal.stage == 'WON':\n"
        "        return deal.close_value\n"
        "    print(deal.clos_value)\n"
        "    return None\n"
        "def wrong(deal: Deal) -> str:\n"
        "    return deal.close_value\n"
        "def frozen(deal: Deal) -> None:\n"
        "    deal.stage = 'LOST'\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(ROOT / ".mypy_cache" / "types")]
    result = subprocess.run([*command, str(generated), str(use)], cwd=ROOT, capture_output=True, text=True)
    errors = result.stdout.splitlines()
    assert [line.partition("error: ")[2].partition("[")[2] for line in errors] == [
        "attr-defined]",
        "return-value]",
        "misc]",
    ], result.stdout + result.stderr
    assert all("use.py" in line for line in errors)
    for tool in (
        ["check", "--isolated", "--select=E,F,W,I,UP", "--line-length=120"],
        ["format", "--check", "--isolated", "--line-length=120"],
    ):
        ruff = subprocess.run([f"{sys.prefix}/bin/ruff", *tool, str(generated)], capture_output=True, text=True)
        assert ruff.returncode == 0, ruff.stdout


def test_writing_is_idempotent_and_staleness_is_seen(tmp_path: Path) -> None:
    _kitchen(tmp_path)
    assert write(tmp_path) == [tmp_path / "schemas/test/__init__.py"]
    assert write(tmp_path) == stale(tmp_path) == []
    assert generate(tmp_path) == generate(tmp_path)
    write_contract(tmp_path, record([*KITCHEN, ("added", "int")]))
    assert stale(tmp_path) == [tmp_path / "schemas/test/__init__.py"]


def test_two_types_of_one_name_are_refused_unless_equal(tmp_path: Path) -> None:
    write_contract(tmp_path, record([("id", "string"), ("i", INNER)]))
    other = record([("id", "string"), ("i", INNER)], name="Other")
    write_contract(tmp_path, other, "test/other.v1")
    assert generate(tmp_path)
    write_contract(
        tmp_path, record([("id", "string"), ("i", record([("x", "long")], "Inner"))], "Other"), "test/other.v1"
    )
    with pytest.raises(ContractError, match="Inner"):
        generate(tmp_path)


def test_names_of_pythons_own_are_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, record([("id", "string"), ("d", record([("x", "int")], "Decimal"))]))
    with pytest.raises(ContractError, match="hides Python's own Decimal"):
        generate(tmp_path)


def test_a_decoded_value_costs_far_less_than_a_pydantic_model() -> None:
    """A sixth was measured; half leaves room for noise."""

    class Model(pydantic.BaseModel):
        deal_id: str
        stage: str
        sales_agent: str
        product: str
        account: str | None
        engaged_on: date | None
        closed_on: date | None
        close_value: Decimal | None
        currency: str
        changed_at: datetime

    values = (
        "D1",
        "WON",
        "Ada",
        "GTX",
        None,
        date(2017, 1, 1),
        None,
        Decimal("1.00"),
        "USD",
        datetime(2017, 3, 1, tzinfo=UTC),
    )
    names = tuple(f.name for f in fields(Deal))
    plain = dict(zip(names, values, strict=True))
    twin = open_twin(Deal)

    def make() -> Any:
        """What a generated decoder does once it has read the fields."""
        value: Any = object.__new__(twin)
        value.deal_id, value.stage, value.sales_agent, value.product, value.account = values[:5]
        value.engaged_on, value.closed_on, value.close_value, value.currency, value.changed_at = values[5:]
        value.__class__ = Deal
        return value

    assert make() == Deal(**plain)
    ours, theirs = [], []
    for _ in range(15):
        ours.append(timeit.timeit(make, number=500))
        theirs.append(timeit.timeit(lambda: Model(**plain), number=500))
    assert min(ours) < min(theirs) / 2
