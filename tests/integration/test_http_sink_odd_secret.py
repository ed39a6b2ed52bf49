"""The HTTP sink with a secret that no header can hold: no call is made, and none is in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_sink_harness import apply, events, opened
from http_target import Target
from sql_sink_harness import APPLIED

from heddle import Bearer, secret
from heddle.errors import AuthError, FailureClass


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


@pytest.mark.parametrize("options", [{}, {"idempotency": None, "at_most_once": True}], ids=["key", "at-most-once"])
def test_a_token_that_no_header_can_hold_blames_neither_record_nor_target(
    target: Target, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """It becomes one while the sink is open; then it is one when the sink opens."""
    monkeypatch.setenv(secret("billing/odd").environment_name, "good")
    with opened(target, auth=Bearer(secret("billing/odd")), **options) as writer:
        assert apply(writer, *events("a")) == ([APPLIED], [])
        monkeypatch.setenv(secret("billing/odd").environment_name, "tök€n")
        (failure,) = apply(writer, *events("b"))[1]
    assert failure.failure_class is FailureClass.AUTH
    assert "billing/odd" in failure.message
    assert "tök" not in failure.message
    assert len(target.seen) == 1
    with pytest.raises(AuthError, match="billing/odd"), opened(target, auth=Bearer(secret("billing/odd")), **options):
        pass
