"""Actions that take more than one signature: the project says which, and the owner holds every command to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heddle.delivery.command import Action
from heddle.errors import UsageError

_APPROVABLE = (Action.REPLAY, Action.DISCARD, Action.EDIT, Action.SETTLE, Action.IMPORT)


def approvals_needed(config: Mapping[str, Any]) -> dict[Action, int]:
    """How many operators have to sign, by action, from `[tool.heddle.approvals]` of pyproject.toml; what is not named
    there takes one. Raises `UsageError`."""
    given = config.get("approvals", {})
    known = {str(action): action for action in _APPROVABLE}
    unknown = sorted(given.keys() - known.keys()) if isinstance(given, dict) else ["…"]
    if unknown:
        raise UsageError(
            f"[tool.heddle.approvals] has no action {', '.join(unknown)}", hint=f"known: {', '.join(sorted(known))}"
        )
    for name, count in given.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"[tool.heddle.approvals] {name} is not a number of at least 1")
    return {known[name]: count for name, count in given.items()}
