"""The process that pulls a source, from its start to SIGTERM, on a broker in memory."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_harness import Echo, World, deals, source
from rest_server import START_S, Api, Asked, RestServer

from heddle.audit import read
from heddle.delivery.pull_audit import audit_topic
from heddle.errors import AuthError
from heddle.http.auth import ApiKey
from heddle.operations import pulling
from heddle.project import Project
from heddle.secrets import secret
from heddle.settings import Settings


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Refusing:
    """A broker that refuses so many times, as one whose password was rotated does."""

    def __init__(self, broker: Any, refusals: int) -> None:
        self._broker = broker
        self.refusals = refusals

    def admin(self) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise AuthError("the broker refuses us")
        return self._broker.admin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("refusals", [0, 1, 2])
def test_credentials_that_a_broker_refuses_are_read_anew_once(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_AUDIT_KEY", "of these tests")
    monkeypatch.setenv("HEDDLE_SECRET_CRM_KEY", "a-key-of-the-crm")
    api = Api()
    api.put(1, "n1", at=START_S - 5)
    server = RestServer(api)
    declared = source(server, deals(), auth=ApiKey(secret("crm/key")))
    world = World(api, declared)
    broker, read_anew = Refusing(world.broker, refusals), list[None]()

    def stop(_: Asked) -> None:
        if len(api.asked) > 3:
            signal.raise_signal(signal.SIGTERM)

    api.before = stop
    monkeypatch.setattr(pulling, "KafkaBroker", lambda _: broker)
    monkeypatch.setattr(pulling, "Drafts", lambda *_: Echo(world.output))
    monkeypatch.setattr("heddle.operations.renewing.refresh_all", lambda: read_anew.append(None))
    project = Project("test", tmp_path, {})
    settings = Settings(bootstrap_servers="none:1", registry_url="http://none.invalid", local=True, instance="0")
    if refusals < 2:
        pulling.pull(declared, project, settings)
        assert world.state() == {1: "n1"}
        with contextlib.closing(world.broker.reader()) as reader:
            (told, *_) = read(reader, audit_topic(declared), 0, 30.0)
        assert told.kind == "secrets"
        names = {use["name"]: use["version"] for use in told.body["in_use"]}
        assert names["crm/key"].startswith("hash:")
        assert "a-key-of-the-crm" not in str(told)
    else:
        with pytest.raises(AuthError):
            pulling.pull(declared, project, settings)
    assert len(read_anew) == min(refusals, 1)
    server.close()
