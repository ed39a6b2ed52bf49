"""The gateway's secrets while it serves: each source on its own, and never in the way of a delivery."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import structlog

from heddle.errors import DependencyDownError, UsageError
from heddle.secrets import reference, secret
from heddle.secrets.provider import Found
from heddle.sources.gateway.keys import Keys
from heddle.sources.gateway.responses import Refusal
from heddle.sources.gateway.routes import Route
from heddle.sources.signatures import GitHub
from heddle.sources.webhook import WebhookSource


class Store:
    """Values by name; an exception in place of one is raised."""

    name = "store"

    def __init__(self) -> None:
        self.values: dict[str, Found | Exception] = {"test/a": Found("old"), "test/b": Found("b")}
        self.gate: threading.Event | None = None

    def look_up(self, name: str) -> Found | None:
        if self.gate is not None:
            assert self.gate.wait(10)
        found = self.values.get(name)
        if isinstance(found, Exception):
            raise found
        return found

    def advice(self, name: str) -> str:
        return f"put {name} there"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(reference, "providers", lambda: (made,))
    return made


@pytest.fixture
def keys(store: Store) -> Keys:
    common: dict[str, Any] = {"emits": dict, "convert": lambda _: (), "owner": "tests"}
    return Keys(
        WebhookSource(name, path=f"/{name}", signature=GitHub(secret(f"test/{name}")), **common) for name in ("a", "b")
    )


def live(route: Route) -> tuple[bytes, ...]:
    return route.verifier.keys if route.verifier is not None else ()


def renew(keys: Keys) -> list[tuple[str, str]]:
    """What was told: event and source."""
    with structlog.testing.capture_logs() as logs:
        asyncio.run(keys.renew())
    return [(line["event"], line["source"]) for line in logs if line["event"].startswith("gateway.")]


def test_both_versions_count_while_the_store_has_both(store: Store, keys: Keys) -> None:
    store.values["test/a"] = Found("new", "2", previous="old")
    assert renew(keys) == [("gateway.secrets_renewed", "a")]
    assert live(keys.routes["/a"]) == (b"new", b"old")
    store.values["test/a"] = Found("new", "2")
    assert renew(keys) == [("gateway.secrets_renewed", "a")]
    assert live(keys.routes["/a"]) == (b"new",)
    assert renew(keys) == []


def test_a_store_that_fails_for_one_leaves_it_what_it_has_and_renews_the_others(store: Store, keys: Keys) -> None:
    store.values = {"test/a": DependencyDownError("the store does not answer"), "test/b": Found("new")}
    assert renew(keys) == [("gateway.secrets_kept", "a"), ("gateway.secrets_renewed", "b")]
    assert renew(keys) == [], "told once"
    assert (live(keys.routes["/a"]), live(keys.routes["/b"])) == ((b"old",), (b"new",))
    store.values["test/a"] = Found("old")
    assert renew(keys) == [("gateway.secrets_renewed", "a")], "its trouble is over"


def test_a_secret_that_is_gone_is_not_used_any_longer(store: Store, keys: Keys) -> None:
    del store.values["test/a"]
    assert renew(keys) == [("gateway.source_closed", "a")]
    with pytest.raises(Refusal) as refused:
        keys.routes["/a"].check_open()
    assert (refused.value.response.status, refused.value.reason) == (503, "no-secret")
    keys.routes["/b"].check_open()
    store.values["test/a"] = Found("back")
    assert renew(keys) == [("gateway.secrets_renewed", "a")]
    keys.routes["/a"].check_open()


class Trail:
    """Who is told; of the sources in `deaf` it cannot be."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.deaf = {"a"}

    def tell(self, source: WebhookSource) -> None:
        if source.name in self.deaf:
            raise UsageError("no topic")
        self.told.append((source.name, source.signature.secret.resolve()))


def test_no_secret_is_used_before_it_is_on_record(store: Store) -> None:
    common: dict[str, Any] = {"emits": dict, "convert": lambda _: (), "owner": "tests"}
    trail = Trail()
    made = (WebhookSource(name, path=f"/{name}", signature=GitHub(secret(f"test/{name}")), **common) for name in "ab")
    keys = Keys(made, trail)
    assert [live(route) for route in keys.routes.values()] == [(), ()], "nobody was told yet"
    assert renew(keys) == [("gateway.source_closed", "a")]
    assert (live(keys.routes["/a"]), live(keys.routes["/b"]), keys.is_waiting) == ((), (b"b",), True)
    with pytest.raises(Refusal) as refused:
        keys.routes["/a"].check_open()
    assert (refused.value.response.status, refused.value.reason) == (503, "no-audit")
    trail.deaf = {"b"}
    store.values["test/b"] = Found("new")
    assert renew(keys) == [("gateway.secrets_renewed", "a"), ("gateway.source_closed", "b")]
    assert (live(keys.routes["/a"]), live(keys.routes["/b"])) == ((b"old",), ()), "neither the old one any longer"
    trail.deaf = set()
    assert renew(keys) == [("gateway.secrets_renewed", "b")]
    assert (live(keys.routes["/b"]), keys.is_waiting) == ((b"new",), False)
    assert trail.told[-1] == ("b", "new")


def test_who_delivers_does_not_wait_for_a_slow_store(store: Store, keys: Keys) -> None:
    store.gate = threading.Event()

    async def scenario() -> None:
        renewal = asyncio.create_task(keys.renew())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not renewal.done()
        assert store.gate is not None
        store.gate.set()  # by the loop itself, which is free
        await asyncio.wait_for(renewal, 10)

    asyncio.run(scenario())


def test_a_gateway_does_not_start_without_its_secrets(store: Store) -> None:
    store.values.clear()
    source = WebhookSource(
        "a", path="/a", signature=GitHub(secret("test/a")), emits=dict, convert=lambda _: (), owner="tests"
    )  # type: ignore[var-annotated]
    with pytest.raises(UsageError, match="test/a has no value"):
        Keys([source])


def test_a_route_shows_no_secret(keys: Keys) -> None:
    (route, _) = keys.routes.values()
    assert live(route) == (b"old",)
    assert "old" not in repr(route)
