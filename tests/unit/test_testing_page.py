"""The examples of the how-to page on testing failures are tests, and run here as they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from page_code import HOW_TO, code_of

EXAMPLES: dict[str, Callable[[], None]] = {
    name: value for name, value in code_of(HOW_TO / "test-failure-handling.md").items() if name.startswith("test_")
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_holds(name: str) -> None:
    EXAMPLES[name]()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8
