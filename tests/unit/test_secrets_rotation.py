"""How long an answer of a store is used, what happens when it changes, and when the store does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from heddle.errors import AuthError, DependencyDownError
from heddle.secrets import MissingSecretError
from heddle.secrets.asking import ask, forget
from heddle.secrets.cached import GRACE_S, RETRY_S, Cached
from heddle.secrets.provider import Found
from heddle.secrets.usage import in_use, note

REFRESH_S = 300.0


class Scripted:
    """A store that answers what the test says: a value, None, or an exception to raise."""

    name = "store"

    def __init__(self, says: Found | Exception | None = None) -> None:
        self.says = says
        self.asked = 0
        self.on_ask: Callable[[], Any] = lambda: None

    def look_up(self, _: str) -> Found | None:
        self.asked += 1
        self.on_ask()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def advice(self, name: str) -> str:
        return f"put {name} there"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def text(provider: Cached) -> str | None:
    found = provider.look_up("a")
    return found.text if found is not None else None


DOWN = DependencyDownError("the store does not answer")


def test_a_value_is_used_until_its_refresh_time_and_then_the_new_one_is(clock: Clock) -> None:
    store = Scripted(Found("old", "1"))
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "old"
    store.says = Found("new", "2")
    clock.now += REFRESH_S - 1
    assert text(cached) == "old"
    assert store.asked == 1
    clock.now += 1
    assert text(cached) == "new"


def test_a_lease_sets_its_own_time_and_ends_in_any_case(clock: Clock) -> None:
    store = Scripted(Found("first", fresh_s=600, valid_s=900))
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "first"
    clock.now += 599
    assert text(cached) == "first"
    assert store.asked == 1
    store.says = DOWN
    clock.now += 300
    assert text(cached) == "first"
    clock.now += 1
    with pytest.raises(DependencyDownError):
        text(cached)


def test_the_time_of_a_lease_counts_from_when_it_was_asked_for(clock: Clock) -> None:
    store = Scripted(Found("slow", fresh_s=60, valid_s=90))
    store.on_ask = lambda: setattr(clock, "now", clock.now + 59)
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "slow"
    clock.now += 1
    text(cached)
    assert store.asked == 2


def test_what_the_store_will_delete_before_its_refresh_time_is_asked_for_then(clock: Clock) -> None:
    store = Scripted(Found("short", valid_s=10))
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "short"
    store.says = None
    clock.now += 10
    assert text(cached) is None


def test_a_store_that_is_down_leaves_the_value_in_use_for_a_while(clock: Clock) -> None:
    store = Scripted(Found("known"))
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "known"
    store.says = DOWN
    clock.now += REFRESH_S
    with structlog.testing.capture_logs() as logs:
        assert text(cached) == "known"
        assert text(cached) == "known"
    assert store.asked == 2, "who uses it does not wait for time-outs each time"
    assert [(line["event"], line["usable_s"]) for line in logs] == [("secret.kept", GRACE_S)]
    clock.now += RETRY_S
    store.says = Found("back")
    assert text(cached) == "back"


def test_the_while_ends(clock: Clock) -> None:
    store = Scripted(Found("known"))
    cached = Cached(store, REFRESH_S, clock)
    text(cached)
    store.says = DOWN
    clock.now += REFRESH_S + GRACE_S - 1
    assert text(cached) == "known"
    clock.now += 1
    with pytest.raises(DependencyDownError):
        text(cached)


def test_a_store_that_is_down_at_the_first_use_is_an_error(clock: Clock) -> None:
    with pytest.raises(DependencyDownError):
        text(Cached(Scripted(DOWN), REFRESH_S, clock))


def test_a_refusal_ends_the_use_of_the_value(clock: Clock) -> None:
    store = Scripted(Found("known"))
    cached = Cached(store, REFRESH_S, clock)
    text(cached)
    store.says = AuthError("refused")
    clock.now += REFRESH_S
    with pytest.raises(AuthError):
        text(cached)
    store.says = DOWN
    with pytest.raises(DependencyDownError):
        text(cached)


def test_a_name_that_is_gone_is_gone(clock: Clock) -> None:
    store = Scripted(Found("known"))
    cached = Cached(store, REFRESH_S, clock)
    text(cached)
    store.says = None
    clock.now += REFRESH_S
    assert text(cached) is None


def test_a_refused_value_is_asked_for_anew_at_once_and_kept_if_nobody_answers(clock: Clock) -> None:
    store = Scripted(Found("old"))
    cached = Cached(store, REFRESH_S, clock)
    text(cached)
    store.says = Found("new")
    cached.forget("a")
    assert text(cached) == "new"
    store.says = DOWN
    forget([cached])
    assert text(cached) == "new"


def test_only_one_asks_at_a_time_and_the_others_take_its_answer(clock: Clock) -> None:
    store, started, go = Scripted(Found("value")), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        assert go.wait(10)

    store.on_ask = block
    cached = Cached(store, REFRESH_S, clock)
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(text(cached))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert answers == ["value"] * 8
    assert store.asked == 1


def test_who_has_a_fresh_value_does_not_wait_for_a_slow_store(clock: Clock) -> None:
    store, started, go = Scripted(Found("value")), threading.Event(), threading.Event()
    cached = Cached(store, REFRESH_S, clock)
    assert text(cached) == "value"

    def block() -> None:
        started.set()
        assert go.wait(10)

    store.on_ask = block
    other = threading.Thread(target=lambda: cached.look_up("other"))
    other.start()
    assert started.wait(10)
    assert text(cached) == "value"
    go.set()
    other.join(10)


def test_a_miss_is_remembered_only_while_another_has_the_name(clock: Clock) -> None:
    first, second = Scripted(None), Scripted(Found("value"))
    providers = (Cached(first, REFRESH_S, clock), second)
    assert ask(providers, "a").values == ask(providers, "a").values == ("value",)
    assert first.asked == 1
    second.says = None
    for asked in (1, 2):
        with pytest.raises(MissingSecretError):
            ask(providers, "a")
        assert first.asked == asked, "what was added since must be found"


def test_a_provider_that_fails_ends_the_search() -> None:
    second = Scripted(Found("another value"))
    for error in (DOWN, AuthError("refused")):
        with pytest.raises(type(error)):
            ask((Scripted(error), second), "a")
    assert second.asked == 0


def test_the_version_in_use_is_told_without_the_value() -> None:
    key = b"k" * 32
    note("t/stored", "vault", Found("hunter22", "7"))
    note("t/plain", "environment", Found("hunter22\n"))
    before = {use.name: use for use in in_use(key)}
    assert before["t/stored"][1:] == ("vault", "7")
    assert before["t/plain"].version.startswith("hash:")
    assert "hunter22" not in repr(in_use(key))
    assert in_use(key) is in_use(key), "nothing to compare while nothing changes"
    note("t/plain", "environment", Found("hunter22"))
    assert {use.name: use for use in in_use(key)}["t/plain"] == before["t/plain"], "the same value, the same hash"
    assert {use.name: use for use in in_use(b"other")}["t/plain"] != before["t/plain"], (
        "who has no key confirms nothing"
    )
    with structlog.testing.capture_logs() as logs:
        note("t/plain", "environment", Found("hunter23"))
        note("t/stored", "vault", Found("hunter23", "8"))
    after = {use.name: use for use in in_use(key)}
    assert after["t/plain"].version not in ("", before["t/plain"].version)
    assert after["t/stored"].version == "8"
    assert [(line["event"], line["secret"], line["version"]) for line in logs] == [
        ("secret.changed", "t/plain", ""),
        ("secret.changed", "t/stored", "8"),
    ]
