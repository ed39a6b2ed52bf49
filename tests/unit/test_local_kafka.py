"""What the local Kafka is started with."""

import base64

import pytest

from heddle.local import kafka


def test_no_cluster_id_begins_with_a_hyphen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's tools take such an id for an option: one start in 64 failed."""
    for first in range(256):
        drawn = type("Drawn", (), {"bytes": bytes([first]) + b"\xff" * 15})
        monkeypatch.setattr(kafka.uuid, "uuid4", drawn)
        cluster_id = kafka.new_cluster_id()
        assert not cluster_id.startswith("-")
        assert len(base64.urlsafe_b64decode(cluster_id + "==")) == 16
