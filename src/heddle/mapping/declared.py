"""Where in whose file a mapping is declared, so that a problem can point at its line."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_PACKAGE = __name__.rpartition(".")[0]


class Declared(NamedTuple):
    """File and line of the call that declares."""

    file: str
    line: int

    @property
    def short_file(self) -> str:
        """As seen from the working directory, where it lies below that."""
        path = Path(self.file)
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else self.file

    def line_of(self, field: str) -> int:
        """The line of a field's rule; of the whole declaration where the source does not tell."""
        return _keyword_lines(self.file, self.line).get(field.split(".")[0].split("[")[0], self.line)


def declared_here() -> Declared:
    """The nearest caller outside of the mapping package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(f"{_PACKAGE}."):
        frame = frame.f_back
    return Declared(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=16)
def _keyword_lines(file: str, line: int) -> dict[str, int]:
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    # The innermost call around the line: a declaration may stand inside another call.
    around: Callable[[ast.Call], int] = lambda call: (call.end_lineno or call.lineno) - call.lineno  # noqa: E731
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or node.lineno) and _is_mapping(node)
    ]
    if not calls:
        return {}
    return {word.arg: word.value.lineno for word in min(calls, key=around).keywords if word.arg}


def _is_mapping(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    return name == "Mapping"
