"""The page on kinds of one's own is true: its sources and its sink stand there as declared, and pass their checks."""

from __future__ import annotations

import unittest
from contextlib import nullcontext
from typing import Any

import pytest
from page_code import HOW_TO, code_of

PAGE = code_of(HOW_TO / "write-a-source-or-sink.md")
CHECKS = [
    (kind, check)
    for kind in ("TestJournal", "TestShop", "TestSqlite")
    for check in dir(PAGE[kind])
    if check.startswith("test_")
]


@pytest.mark.parametrize(("kind", "check"), CHECKS)
def test_the_kind_passes(kind: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_SHOP_WEBHOOK", "test")
    its: Any = PAGE[kind]()
    if hasattr(its, "setup_method"):
        its.setup_method()
    skips = kind == "TestSqlite" and "answer_was_lost" in check
    with pytest.raises(unittest.SkipTest, match="unknown: a commit into a file") if skips else nullcontext():
        getattr(its, check)()
