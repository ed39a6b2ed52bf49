"""Which actions take more than one signature, as a project says it."""

from __future__ import annotations

from typing import Any

import pytest

from heddle.delivery.approvals import approvals_needed
from heddle.delivery.command import Action
from heddle.errors import UsageError


def test_what_is_not_named_takes_one() -> None:
    assert approvals_needed({}) == {}
    assert approvals_needed({"approvals": {"discard": 2, "edit": 1}}) == {Action.DISCARD: 2, Action.EDIT: 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"discrad": 2}, "discrad"),
        ({"reveal": 2}, "reveal"),
        ({"discard": 0}, "discard"),
        ({"discard": -1}, "discard"),
        ({"discard": True}, "discard"),
        ({"discard": "2"}, "discard"),
        (["discard"], "known|no action"),
    ],
)
def test_what_would_ask_for_less_than_was_meant_is_refused(given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        approvals_needed({"approvals": given})
