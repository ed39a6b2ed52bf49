"""Whether readers of one schema can read what another wrote, by level, as registries decide it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from heddle.contracts.resolution import Problem, resolve
from heddle.contracts.schema import Node

Level = Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]


def unreadable(writer: Node, reader: Node, *, meaning: bool = True) -> list[Problem]:
    """Why some value of `writer` could not be read as `reader`. `meaning=False` judges like a plain Avro checker,
    which looks at the bytes alone and lets a changed decimal scale through."""
    problems = resolve(writer, reader)[1]
    return list(dict.fromkeys(p for p in problems if meaning or not p.meaning))


def check_level(candidate: Node, history: Sequence[Node], level: Level, *, meaning: bool = True) -> list[Problem]:
    """What stands against `candidate` after `history` (oldest first) under a compatibility level."""
    if level == "NONE":
        return []
    direction, _, transitive = level.partition("_")
    found: list[Problem] = []
    for earlier in history if transitive else history[-1:]:
        if direction in ("BACKWARD", "FULL"):
            found += unreadable(earlier, candidate, meaning=meaning)
        if direction in ("FORWARD", "FULL"):
            found += unreadable(candidate, earlier, meaning=meaning)
    return list(dict.fromkeys(found))
