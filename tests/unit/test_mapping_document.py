"""The mapping document and the `heddle mapping` commands."""

from __future__ import annotations

import ast
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from mapping_support import array, decimal, null_or, plan_of, schema
from typer.testing import CliRunner

import heddle.cli.mapping
from heddle.cli.main import app
from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Record
from heddle.errors import UsageError
from heddle.mapping import (
    call,
    choose,
    constant,
    default,
    each,
    enum,
    equals,
    filtered,
    first_of,
    items,
    join,
    lookup,
    multiply,
    present,
    record,
    required,
    text,
    to_date,
    total_of,
    truncate,
    upper,
    when,
)  # fmt: skip
from heddle.mapping.document import Row, _leaves, rows_of, unused_fields
from topologies.deal_to_invoice import invoice_of

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def shorten(value: str) -> str:
    return value[:3]


TARGET = schema(
    "Target",
    who="string",
    note="string",
    city=null_or("string"),
    level="string",
    price=decimal(10, 2),
    paid=decimal(14, 2),
    day={"type": "int", "logicalType": "date"},
    minute={"type": "long", "logicalType": "timestamp-millis"},
    lines=array(schema("OutLine", sku="string", loud="string")),
    first=null_or("string"),
    tag="string",
    pair=array(schema("Pair", left="string")),
    extra=(null_or("string"), None),
    short="string",
)
PLAN = plan_of(
    TARGET,
    present("flag"),
    who=text("O-", "x", default("customer.first", "nobody")),
    note=required("note"),
    city="customer.address.city",
    level=enum("stage", NEW="low", PAID="high", LOST="low"),
    price=multiply("price", constant(2), rounding="half-even"),
    paid=total_of(filtered("lines", where=equals("currency", "EUR")), multiply("quantity", "price")),
    day=to_date("at", zone="Europe/Berlin"),
    minute=truncate("at", "minute"),
    lines=each("lines", {"sku": "sku", "loud": upper("sku")}),
    first=first_of("lines.sku"),
    tag=choose(when(equals("stage", "NEW"), "n"), otherwise=lookup("id", {"a": "1"}, otherwise="2")),
    pair=items(record(left="id"), record(left=join("id", "note", by="-"))),
    short=call(shorten, "id"),
)


def row(target: str) -> Row:
    return next(row for row in rows_of(PLAN) if row.target == target)


@pytest.mark.parametrize(
    "expected",
    [
        Row("note", "string", ("note",), ("string or null",), "note, required", "refused (required)", ""),
        Row("city", "string or null", ("customer.address.city",), ("string or null",), "customer.address.city",
            "stays null", ""),
        Row("who", "string", ("customer.first",), ("string or null",), 'text "O-", "x", customer.first, or "nobody"',
            'becomes "nobody"', ""),
        Row("level", "string", ("stage",), ("enum Stage",), 'stage: "NEW" → "low", "PAID" → "high", "LOST" → "low"',
            "never null", "several values become one"),
        Row("price", "decimal(10,2)", ("price",), ("decimal(10,2)",), "multiply(price, 2, rounding=half-even)",
            "never null", ""),
        Row("paid", "decimal(14,2)", ("lines", "lines[].currency", "lines[].quantity", "lines[].price"),
            ("array of record Line", "string", "int", "decimal(10,2)"),
            'total of multiply(quantity, price) over lines where currency is "EUR"', "never null",
            "the single items; items that do not match"),
        Row("day", "date", ("at",), ("timestamp-millis",), "to_date(at, zone=Europe/Berlin)", "never null",
            "time of day"),
        Row("minute", "timestamp-millis", ("at",), ("timestamp-millis",), "truncate(at, to=minute)", "never null",
            "what is finer than the minute"),
        Row("lines", "array of record OutLine", ("lines",), ("array of record Line",), "one for each of lines",
            "never null", ""),
        Row("lines[].loud", "string", ("lines[].sku",), ("string",), "upper(sku)", "never null", "letter case"),
        Row("first", "string or null", ("lines", "lines[].sku"), ("array of record Line", "string"),
            "sku of the first of lines", "null for an empty list", "all items but the first"),
        Row("tag", "string", ("stage", "id"), ("enum Stage", "string"),
            'if stage is "NEW": "n"; otherwise id: "a" → "1", otherwise "2"', "never null",
            "several values become one"),
        Row("pair[1].left", "string", ("id", "note"), ("string", "string or null"), 'join id, note by "-"',
            "null parts are left out", ""),
        Row("extra", "string or null", (), (), "schema default: null", "–", ""),
        Row("short", "string", ("id",), ("string",), "shorten(id) in Python", "never null",
            "what the function leaves out"),
    ],
    ids=lambda row: row.target,
)  # fmt: skip
def test_row(expected: Row) -> None:
    assert row(expected.target) == expected


def test_rounding_that_takes_place_is_called_lossy() -> None:
    plan = plan_of(schema("Target", out=decimal(14, 2)), out=multiply("price", "price", rounding="half-up"))
    assert rows_of(plan)[0].lossy == "rounds half-up to 2 digits"


class _Source:
    """What `unused_fields` asks of a contract."""

    def __init__(self) -> None:
        from mapping_support import ORDER

        root = parse_schema(ORDER)
        assert isinstance(root, Record)
        self.root = root


def test_fields_that_nothing_reads_are_listed() -> None:
    unused = unused_fields(PLAN, _Source())  # type: ignore[arg-type]
    assert unused == [
        "mood", "count", "big", "big_or_null", "cost", "rate", "day", "day_or_null", "seen", "local", "uid",
        "attributes", "customer.last", "lines[].discount", "lines[].tags", "parts",
    ]  # fmt: skip


def test_a_schema_that_holds_itself_has_an_end() -> None:
    tree = parse_schema(schema("Tree", name="string", below=array("Tree")))
    assert isinstance(tree, Record)
    assert list(_leaves(tree, "", ())) == ["name", "below"]


def test_document_is_a_markdown_table_with_one_line_per_field() -> None:
    text_ = invoice_of.document("deal-to-invoice")
    lines = [line for line in text_.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 12
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {8}
    assert text_.startswith("# Mapping deal-to-invoice\n")
    assert 'Only where stage is "WON".' in text_
    assert "`crm.deal.v1` (sales-systems) → `billing.invoice.v1` (finance)" in text_
    assert f"Plan SHA-256: `{invoice_of.digest}`" in text_


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("project")
def test_show_and_list() -> None:
    shown = runner.invoke(app, ["mapping", "show", "deal-to-invoice"])
    assert (shown.exit_code, shown.stdout) == (0, invoice_of.document("deal-to-invoice"))
    listed = json.loads(runner.invoke(app, ["mapping", "list", "--json"]).stdout)["mappings"]
    assert [(row["flow"], row["source"], row["target"]) for row in listed] == [
        ("deal-to-invoice", "crm.deal.v1", "billing.invoice.v1"),
        ("invoice-to-ledger", "billing.invoice.v1", "ledger.entry.v1"),
        ("order-to-ledger", "erp.order.v1", "ledger.entry.v1"),
        ("payment-to-ledger", "payments.payment.v1", "ledger.entry.v1"),
    ]
    assert "deal-to-invoice" in runner.invoke(app, ["mapping", "list"]).stdout


@pytest.mark.usefixtures("project")
def test_show_code_plan_and_json() -> None:
    code = runner.invoke(app, ["mapping", "show", "deal-to-invoice", "--code"]).stdout
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    plan = json.loads(runner.invoke(app, ["mapping", "show", "deal-to-invoice", "--plan"]).stdout)
    assert sha256(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == invoice_of.digest
    as_json = json.loads(runner.invoke(app, ["mapping", "show", "deal-to-invoice", "--json"]).stdout)
    assert as_json["unused"] == ["engaged_on"]
    assert as_json["fields"][2]["null"] == 'becomes "UNKNOWN ACCOUNT"'


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crm-deals"], "crm-deals has no mapping"),
        (["nobody"], "no component named nobody"),
        (["deal-to-invoice", "--code", "--json"], "exclude each other"),
    ],
)
def test_show_says_what_is_wrong(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["mapping", "show", *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


assert heddle.cli.mapping.commands is not None
