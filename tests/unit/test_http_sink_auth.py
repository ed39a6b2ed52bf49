"""Credentials of HTTP clients without a network, and how long a server asks to wait."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import httpx2
import pytest

from heddle import (
    ApiKey,
    AuthError,
    Basic,
    Bearer,
    ClientCredentials,
    RateLimitError,
    TransientError,
    UsageError,
    secret,
)
from heddle.http.auth import token_of
from heddle.http.rate import retry_after_s
from heddle.secrets import MissingSecretError, Secret, redact

CLIENT = secret("http-tests/client")


@pytest.fixture(autouse=True)
def client_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLIENT.environment_name, "s:cr€t/ 1")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is moved by hand."""
    time = [1_000.0]
    monkeypatch.setattr("heddle.http.auth.time", SimpleNamespace(monotonic=lambda: time[0]))
    return time


def answer(status: int = 200, content: bytes = b"", **headers: str) -> httpx2.Response:
    request = httpx2.Request("POST", "https://id.example.com/token")
    return httpx2.Response(status, content=content, headers=headers, request=request)


def token(name: str, lifetime: str = "3600") -> httpx2.Response:
    return answer(content=f'{{"access_token": "{name}", "token_type": "bearer", "expires_in": {lifetime}}}'.encode())


def declared(**options: object) -> ClientCredentials:
    return ClientCredentials("https://id.example.com/token", "me&co", CLIENT, **options)  # type: ignore[arg-type]


def test_secrets_go_where_each_kind_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    key = secret("http-tests/key")
    monkeypatch.setenv(key.environment_name, "s:cr+t/ 1")
    assert ApiKey(key).open().headers() == {"X-Api-Key": "s:cr+t/ 1"}
    assert ApiKey(key, header="X-Auth").open().headers() == {"X-Auth": "s:cr+t/ 1"}
    assert Bearer(key).open().headers() == {"Authorization": "Bearer s:cr+t/ 1"}
    packed = base64.b64encode("me:s:cr€t/ 1".encode()).decode()
    assert Basic("me", CLIENT).open().headers() == {"Authorization": f"Basic {packed}"}
    assert Basic(CLIENT).open().renewal() is None
    assert redact(f"sent Basic {packed}") == "sent Basic ***"


@pytest.mark.parametrize("text", ["s:cr€t/ 1", "a\x00b", "a\tb", "-----BEGIN KEY-----\nabc"])
@pytest.mark.parametrize("kind", [ApiKey, Bearer])
def test_a_secret_that_no_header_can_hold_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, kind: type[ApiKey | Bearer], text: str
) -> None:
    """At the start, and as well when it becomes one later."""
    store = {"http-tests/key": "good"}
    monkeypatch.setattr(Secret, "resolve", lambda self: store[self.name])
    credentials = kind(secret("http-tests/key")).open()
    store["http-tests/key"] = text
    for use in (credentials.headers, lambda: kind(secret("http-tests/key")).open()):
        with pytest.raises(AuthError, match="http-tests/key") as refused:
            use()
        assert text not in str(refused.value)
        assert refused.value.__cause__ is refused.value.__context__ is None


def test_a_header_has_a_name_that_headers_can_have() -> None:
    for name in ("", "X Key", "X-Kéy", "X-Key:", "X-Key\n"):
        with pytest.raises(UsageError, match="no header"):
            ApiKey(CLIENT, header=name)


def test_a_missing_secret_is_known_at_the_start() -> None:
    for auth in (ApiKey(secret("http-tests/none")), Bearer(secret("http-tests/none")), declared()):
        if isinstance(auth, ClientCredentials):
            auth = ClientCredentials(auth.token_url, auth.client_id, secret("http-tests/none"))
        with pytest.raises(MissingSecretError):
            auth.open()


def test_client_id_and_secret_are_form_encoded_before_they_are_joined() -> None:
    request = declared(scope="a b").request()
    assert request.read() == b"grant_type=client_credentials&scope=a+b"
    scheme, packed = request.headers["authorization"].split()
    assert (scheme, base64.b64decode(packed)) == ("Basic", b"me%26co:s%3Acr%E2%82%ACt%2F+1")


def test_or_go_into_the_form() -> None:
    request = declared(in_body=True, parameters={"audience": "x"}).request()
    assert "authorization" not in request.headers
    assert request.read() == (
        b"grant_type=client_credentials&audience=x&client_id=me%26co&client_secret=s%3Acr%E2%82%ACt%2F+1"
    )


def test_a_token_is_used_until_shortly_before_its_end(now: list[float]) -> None:
    credentials = declared().open()
    assert credentials.renewal() is not None
    credentials.renewed(token("token-one"))
    assert credentials.headers() == {"Authorization": "Bearer token-one"}
    now[0] += 3_569
    assert credentials.renewal() is None
    now[0] += 2
    assert credentials.renewal() is not None
    assert redact("token-one") == "***"


def test_a_short_one_for_half_of_its_life(now: list[float]) -> None:
    credentials = declared().open()
    credentials.renewed(token("token-short", "20"))
    now[0] += 9
    assert credentials.renewal() is None
    now[0] += 2
    assert credentials.renewal() is not None


def test_a_refused_token_is_not_used_again() -> None:
    credentials = declared().open()
    credentials.renewed(token("token-two"))
    credentials.refused()
    assert credentials.renewal() is not None


@pytest.mark.parametrize(
    ("given", "seconds"), [("3600", 3600), ('"1800"', 1800), ("null", 300), ("-5", 300), ('"x"', 300)]
)
def test_lifetimes_are_numbers_or_texts_or_left_out(given: str, seconds: float) -> None:
    assert token_of(token("token-three", given)) == ("token-three", seconds)


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (answer(401, b'{"error": "invalid_client"}'), AuthError, "answers HTTP 401 invalid_client"),
        (answer(400, b'{"error": "my-secret-thing"}'), AuthError, "answers HTTP 400$"),
        (answer(200, b"<html>"), AuthError, "without JSON and no access_token"),
        (answer(200, b"[]"), AuthError, "no access_token"),
        (answer(200, b'{"access_token": "a\\nb"}'), AuthError, "no access_token"),
        (answer(200, b'{"access_token": "a", "token_type": "mac"}'), AuthError, "no bearer token"),
        (answer(302, b""), AuthError, "answers HTTP 302"),
        (answer(429), RateLimitError, "429"),
        (answer(503), RateLimitError, "503"),
        (answer(502), TransientError, "502"),
    ],
)
def test_answers_that_hold_no_token(response: httpx2.Response, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        token_of(response)
    assert "my-secret-thing" not in str(raised.value)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": http_date(NOW + timedelta(minutes=2)), "Date": http_date(NOW)}, 120),
        ({"Retry-After": http_date(NOW - timedelta(minutes=2)), "Date": http_date(NOW)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "١٢"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "9" * 5_000}, 999_999_999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(httpx2.Headers({name: text.encode() for name, text in headers.items()})) == seconds
