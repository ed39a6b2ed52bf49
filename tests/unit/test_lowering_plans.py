"""Plans as a whole: those that cannot be, those that are measured, and their registers."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from lowering_support import (
    VALUES,
    Between,
    between,
    one_field,
    shout,
)
from mapping_support import (
    decimal,
    null_or,
    schema,
)
from typer.testing import CliRunner

import heddle.cli.mapping
from heddle.cli.main import app
from heddle.contracts import contract_of
from heddle.contracts.resolution import as_written
from heddle.errors import UsageError
from heddle.mapping import (
    call,
    lookup,
    multiply,
    take,
    text,
    total_of,
)
from heddle.wire import plan as wire
from schemas.crm import Deal
from topologies.deal_to_invoice import invoice_of
from topologies.invoice_to_ledger import entry_of as entry_of_invoice
from topologies.payment_to_ledger import entry_of as entry_of_payment

# The benchmark is an application of its own; its packages have no name that the reference integration has.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks/app"))

from topologies.order_to_pick import pick_of

ROOT = Path(__file__).parents[2]


def test_records_that_no_plan_can_do_are_left_to_the_object_path() -> None:
    tree = schema("Source", id="string", inner=null_or("Source"))
    found = between(schema("Target", id="string"), source=tree, id="id").lowered()
    assert (found.plan, found.functions, found.fields) == (None, (), ())
    assert found.reason == "the schema contains itself"
    deep: Any = "string"
    for level in range(48):
        deep = schema(f"R{level}", inner=deep)
    found = between(schema("Target", id="string"), source=schema("Source", id="string", deep=deep), id="id").lowered()
    assert found.reason == "records may lie inside records more than 48 deep"
    wide: Any = schema("R0", a="string", b="string")
    for level in range(1, 13):
        wide = schema(f"R{level}", a=wide, b=f"R{level - 1}")
    source = schema("Source", id="string", wide=wide)
    found = between(schema("Target", id="string"), source=source, id="id").lowered()
    assert found.reason == "the schema unfolds to more than 5000 values"


def test_a_rule_with_too_many_ways_is_called() -> None:
    table: dict[str, Any] = {f"O-{i}": take("id") for i in range(30)}
    given = one_field("string", lookup("id", table, otherwise="x"))
    assert given.why() == "there are more than 24 ways through it"
    given.agree(given.written(*VALUES))


def test_numbers_longer_than_any_amount_are_left_to_python() -> None:
    source = schema("Source", id="string", n=decimal(600, 0))
    given = one_field(decimal(1300, 0), multiply("n", "n"), source=source)
    assert given.way() == "call"
    given.agree(given.written({"id": "i", "n": Decimal(10) ** 599}))


def test_the_measured_mapping_needs_no_call_and_copies_what_it_can() -> None:
    given = Between(contract_of(pick_of.source), contract_of(pick_of.target), pick_of.plan)
    plan = given.wire_plan()
    assert plan.calls == ()
    assert [type(emit) for emit in plan.emits] == [
        wire.Copy,  # id, placed_at, total, currency
        wire.Pick,
        wire.Copy,
        wire.If,
        wire.Copy,
        wire.WriteText,
        wire.If,
        wire.Copy,  # the lines
        wire.WriteNumber,
        wire.WriteDecimal,
    ]
    (lines,) = (field for field in plan.walk.fields if isinstance(field, wire.Array))
    assert lines.folds == (wire.Fold(4, wire.Multiply((wire.Number(2), wire.Number(3)))),)
    assert plan.digest == given.wire_plan().digest


def test_the_reference_integration_needs_no_call() -> None:
    for mapping in (invoice_of, entry_of_invoice, entry_of_payment):
        found = mapping.lowered(as_written(contract_of(mapping.source).root))
        assert {field.way for field in found.fields} == {"copied", "constant", "instructions"}


def test_registers_that_nobody_reads_are_not_in_the_plan() -> None:
    plan = one_field("double", "rate").wire_plan()
    assert (plan.marks, plan.numbers) == (5, 0)  # around the id, its content, around the rate
    called = one_field(null_or("string"), call(shout, text(take("note"), total_of("lines.quantity")))).wire_plan()
    assert [field.folds for field in called.walk.fields if isinstance(field, wire.Array)] == [()]


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("project")
def test_explain_prints_a_line_for_each_field_and_the_digest_of_the_plan() -> None:
    found = invoice_of.lowered(as_written(contract_of(Deal).root))
    assert found.plan is not None
    shown = CliRunner().invoke(app, ["mapping", "explain", "deal-to-invoice"])
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == ["target", "way", "why"]
    assert [line[:2] for line in lines[1:4]] == [
        ["when", "instructions"],
        ["invoice_id", "instructions"],
        ["deal_id", "copied"],
    ]
    assert lines[-1] == ["Plan", "SHA-256:", found.plan.digest]
    as_json = json.loads(CliRunner().invoke(app, ["mapping", "explain", "deal-to-invoice", "--json"]).stdout)
    assert (as_json["flow"], as_json["sha256"], as_json["reason"]) == ("deal-to-invoice", found.plan.digest, "")
    assert [field["path"] for field in as_json["fields"]] == [field.path for field in found.fields]
    assert as_json["fields"][0] == {"path": "when", "way": "instructions", "why": "asked of the bytes"}
    assert as_json["fields"][-1] == {"path": "record key", "way": "instructions", "why": "put together as text"}


@pytest.mark.usefixtures("project")
def test_explain_says_which_flows_have_a_mapping() -> None:
    result = CliRunner().invoke(app, ["mapping", "explain", "crm-deals"])
    assert isinstance(result.exception, UsageError)
    assert "crm-deals has no mapping" in str(result.exception)


assert heddle.cli.mapping.commands is not None
