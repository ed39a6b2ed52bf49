"""Of unit tests, which share a process."""

from __future__ import annotations

import pytest

from heddle.secrets import redaction


@pytest.fixture(autouse=True)
def secrets_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test resolves is hidden from then on in every text of the process, also where another test looks for it:
    `value`, say, in what a message has to be."""
    for name in ("_remembered", "_forms"):
        monkeypatch.setattr(redaction, name, set(getattr(redaction, name)))
    monkeypatch.setattr(redaction, "_pattern", redaction._pattern)
