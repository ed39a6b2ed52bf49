"""The application that the demo runs and mends: a copy of the role folders, in a folder and with a stack of its own.

The demo's developer changes code, as one does; this repository's own files stay as they are."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path

from heddle.errors import UsageError
from heddle.project import ROLE_FOLDERS

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".heddle" / "demo-app"
STATE = FOLDER / ".heddle"

PRICE_TABLE = Path("topologies/deal_to_invoice.py")
_PRICED = '    "GTX Pro": Decimal(4821),\n'
_ALIAS = '    "GTXPro": Decimal(4821),  # as the CRM spells it\n'


def copy_application() -> None:
    """As the repository has it now; what an earlier demo has changed is gone, its topics and tables are not."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for folder in (*ROLE_FOLDERS, "schemas"):
        shutil.rmtree(FOLDER / folder, ignore_errors=True)
        shutil.copytree(REPOSITORY / folder, FOLDER / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", FOLDER)


def add_price_alias() -> Iterator[str]:
    """Give the price table the CRM's spelling. Yields the change as a diff."""
    path = FOLDER / PRICE_TABLE
    before = path.read_text(encoding="utf-8")
    if before.count(_PRICED) != 1:
        raise UsageError(f"{PRICE_TABLE} has no line {_PRICED.strip()}", hint="adapt demo/application.py")
    after = before.replace(_PRICED, _PRICED + _ALIAS)
    path.write_text(after, encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(PRICE_TABLE), str(PRICE_TABLE), n=1)
    return (line.rstrip("\n") for line in lines)
