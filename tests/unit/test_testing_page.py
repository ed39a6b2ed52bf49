"""The examples of the how-to page on testing failures are tests, and run here as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-failure-handling.md"


def _examples() -> dict[str, Callable[[], None]]:
    """All of a page's code as one module; blanks keep its line numbers."""
    text = PAGE.read_text(encoding="utf-8")
    code = re.sub(r"^```python\n(.*?)^```$", lambda block: "\0" + block[0], text, flags=re.DOTALL | re.MULTILINE)
    lines, inside = [], False
    for line in code.splitlines():
        if line.startswith("\0"):
            inside, line = True, ""
        elif line == "```":
            inside = False
        lines.append(line if inside else "")
    module: dict[str, Any] = {}
    exec(compile("\n".join(lines), str(PAGE), "exec"), module)
    return {name: value for name, value in module.items() if name.startswith("test_")}


EXAMPLES = _examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_holds(name: str) -> None:
    EXAMPLES[name]()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8
