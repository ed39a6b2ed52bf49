"""What `mypy --strict` sees in a mapping, a flow and a handler, on snippets that users could write."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAD = """
from decimal import Decimal
from heddle.event import Event
from heddle.integration import Flow
from heddle.mapping import Mapping, constant, equals, text
from schemas.billing import Invoice
from schemas.crm import Deal
from schemas.ledger import Entry
from topologies.deal_to_invoice import invoice_of
"""

SNIPPETS = {
    "mapping_is_inferred": ("reveal_type(invoice_of)", r"Mapping\[.*Deal, .*Invoice\]"),
    "call_is_typed": ("reveal_type(invoice_of.__call__)", r"Deal\) -> .*Invoice \| None"),
    "mapping_fits": ('f = Flow("a", reads=Deal, writes=Invoice, do=invoice_of, owner="o")', None),
    "mapping_reads_other": ('f = Flow("a", reads=Entry, writes=Invoice, do=invoice_of, owner="o")', r"\[arg-type\]"),
    "mapping_writes_other": ('f = Flow("a", reads=Deal, writes=Entry, do=invoice_of, owner="o")', r"\[arg-type\]"),
    "function_fits": (
        """
def do(deal: Deal, event: Event[Deal]) -> list[Invoice]:
    return []
f = Flow("a", reads=Deal, writes=Invoice, do=do, owner="o")""",
        None,
    ),
    "async_function_fits": (
        """
async def do(deal: Deal) -> Invoice | None:
    return None
f = Flow("a", reads=Deal, writes=Invoice, do=do, owner="o")""",
        None,
    ),
    "function_reads_other": (
        """
def do(entry: Entry) -> Invoice | None:
    return None
f = Flow("a", reads=Deal, writes=Invoice, do=do, owner="o")""",
        r"\[arg-type\]",
    ),
    "function_writes_other": (
        """
def do(deal: Deal) -> Entry | None:
    return None
f = Flow("a", reads=Deal, writes=Invoice, do=do, owner="o")""",
        r"\[arg-type\]",
    ),
    "async_function_writes_other": (
        """
async def do(deal: Deal) -> Entry | None:
    return None
f = Flow("a", reads=Deal, writes=Invoice, do=do, owner="o")""",
        r"\[arg-type\]",
    ),
    "misspelt_field": (
        """
def amount(deal: Deal) -> Decimal | None:
    return deal.close_valu""",
        'error: "Deal" has no attribute "close_valu"',
    ),
    "misspelt_symbol": (
        """
def is_won(deal: Deal) -> bool:
    return deal.stage == "WONN" """,
        "error: Non-overlapping equality check",
    ),
    "wrong_constructor": ('def f(deal: Deal) -> Invoice: return Invoice(invoice="x")', "error: Unexpected keyword"),
    "rule_is_no_number": ("from heddle.mapping import upper\nrule = upper(5)", "error: Argument 1"),
    "misspelt_rounding": (
        'from heddle.mapping import to_decimal\nrule = to_decimal("a", scale=2, rounding="half")',
        r"\[arg-type\]",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What mypy says of each snippet, of one run over all."""
    folder = tmp_path_factory.mktemp("snippets")
    for name, (code, _) in SNIPPETS.items():
        (folder / f"{name}.py").write_text(f"{HEAD}\n{code}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-incremental",
        "--follow-imports=silent", *(str(folder / f"{name}.py") for name in SNIPPETS),
    ]  # fmt: skip
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert said.stderr == ""
    return {
        name: "\n".join(line for line in said.stdout.splitlines() if f"{name}.py:" in line) for name in SNIPPETS
    }  # fmt: skip


@pytest.mark.parametrize("name", SNIPPETS)
def test_mypy(name: str, reports: dict[str, str]) -> None:
    expected = SNIPPETS[name][1]
    if expected is None:
        assert reports[name] == ""
    else:
        assert re.search(expected, reports[name])
