"""References to secrets that the environment cannot tell apart: of `a/b`, `a-b` and `a_b` it has one variable.

A look at the calls of `secret("…")` in the source of an application, without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from heddle.audit.key import NAME as AUDIT_KEY
from heddle.secrets.providers.environment import variable_of


class Reference(NamedTuple):
    """`line` counts from 1."""

    path: Path
    line: int
    name: str


class Meeting(NamedTuple):
    """`reference` and an earlier one, by the name of `other`, in one variable."""

    reference: Reference
    other: str
    variable: str


def meetings_in(paths: Iterable[Path]) -> Iterator[Meeting]:
    """In the order of the paths; each further name of a variable once, where it stands first. The project's own key
    counts, too."""
    names = {variable_of(AUDIT_KEY): [AUDIT_KEY]}
    for path in paths:
        for reference in _references_in(path):
            variable = variable_of(reference.name)
            known = names.setdefault(variable, [])
            if reference.name in known:
                continue
            if known:
                yield Meeting(reference, known[0], variable)
            known.append(reference.name)


def _references_in(path: Path) -> list[Reference]:
    """Nothing of a file that does not parse, which its import will say better."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    found = [
        Reference(path, node.lineno, name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (name := _name(node))
    ]
    return sorted(found)


def _name(call: ast.Call) -> str:
    """Of `secret("a/b")`, also of a module's, or by keyword; "" of all else."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called != "secret":
        return ""
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    return next((each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)), "")
