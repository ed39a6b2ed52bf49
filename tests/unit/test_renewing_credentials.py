"""Refused credentials are read anew once; refused again soon after, they are a person's."""

from __future__ import annotations

import pytest

from heddle.errors import AuthError
from heddle.operations.renewing import REFRESH_INTERVAL_S, with_renewed_credentials
from heddle.secrets import reference, secret
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Found


class Store:
    name = "store"

    def __init__(self, *values: str) -> None:
        self.values = list(values)

    def look_up(self, _: str) -> Found | None:
        return Found(self.values.pop(0) if len(self.values) > 1 else self.values[0])

    def advice(self, name: str) -> str:
        return f"put {name} there"


class Server:
    """Takes one password. `now_s` is the clock; each try takes `try_s`."""

    def __init__(self, password: str, try_s: float = 1.0) -> None:
        self.password = password
        self.try_s = try_s
        self.now_s = 0.0
        self.tried: list[str] = []

    def log_in(self) -> None:
        self.now_s += self.try_s
        self.tried.append(secret("kafka/password").resolve())
        if self.tried[-1] != self.password:
            raise AuthError("refused")

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store("first-password", "second-password", "third-password")
    cached = Cached(made, refresh_s=3600)
    monkeypatch.setattr(reference, "providers", lambda: (cached,))
    return made


def test_what_the_stores_say_after_a_refusal_is_tried_once(store: Store) -> None:
    server = Server("second-password")
    with_renewed_credentials(server.log_in, server.clock)
    assert server.tried == ["first-password", "second-password"]


def test_refused_again_soon_it_stops(store: Store) -> None:
    server = Server("third-password")
    with pytest.raises(AuthError):
        with_renewed_credentials(server.log_in, server.clock)
    assert server.tried == ["first-password", "second-password"]


def test_a_refusal_long_after_the_last_is_another_rotation(store: Store) -> None:
    server = Server("third-password", try_s=REFRESH_INTERVAL_S)
    with_renewed_credentials(server.log_in, server.clock)
    assert server.tried == ["first-password", "second-password", "third-password"]
