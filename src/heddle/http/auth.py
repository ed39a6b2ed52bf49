"""Credentials of HTTP APIs: declared as values, opened by whoever sends, renewed once they are refused.

The open end (`Credentials`) does no input or output itself: it says which request renews it and takes the answer, so
that one implementation serves blocking and asynchronous clients:

    if (renewal := credentials.renewal()) is not None:
        credentials.renewed(client.send(renewal))
    request.headers.update(credentials.headers())
    ...
    if response.status_code in REFUSED:
        credentials.refused()       # once; then the two steps above, and the request, again
"""

from __future__ import annotations

import base64
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote_plus

import httpx2
import orjson

from heddle.errors import AuthError, RateLimitError, TransientError, UsageError
from heddle.secrets import Secret, remember

REFUSED = (401, 403)
"""Statuses after which credentials are renewed, once."""

EARLY_S = 30.0
"""So long before its end a token is replaced: it must not end on the way."""
_LIFETIME_S = 300.0
"""Of a token whose server does not say."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Credentials(Protocol):
    """One client's, used by one thread; with concurrent requests, the two steps of a renewal are under a lock."""

    def renewal(self) -> httpx2.Request | None:
        """The request that has to be sent first; None where there is nothing to renew."""

    def renewed(self, response: httpx2.Response) -> None:
        """Its answer, read. Raises `AuthError`, `RateLimitError` or `TransientError`."""

    def headers(self) -> Mapping[str, str]:
        """What goes on each request. Raises what `Secret.resolve` raises, `AuthError` for what no header holds."""

    def refused(self) -> None:
        """The headers were refused: nothing of them is used again without asking anew."""


class Auth(ABC):
    """How an API knows us."""

    @abstractmethod
    def open(self) -> Credentials:
        """Resolves secrets, so that a missing one, or one that cannot be sent, is known at the start."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where renewals are sent."""
        return ()


@dataclass(frozen=True, slots=True)
class ApiKey(Auth):
    """A secret in a header: `ApiKey(secret("crm/key"))`, `ApiKey(secret("crm/token"), header="X-Auth-Token")`."""

    value: Secret
    header: str = "X-Api-Key"

    def __post_init__(self) -> None:
        if not _HEADER_NAME.fullmatch(self.header):
            raise UsageError(f"ApiKey: header={self.header!r} can be the name of no header (RFC 9110, section 5.1)")

    def open(self) -> Credentials:
        return _Static((self.value,), lambda: {self.header: _in_header(self.value)})


@dataclass(frozen=True, slots=True)
class Bearer(Auth):
    """A token that does not change by itself."""

    token: Secret

    def open(self) -> Credentials:
        return _Static((self.token,), lambda: {"Authorization": f"Bearer {_in_header(self.token)}"})


@dataclass(frozen=True, slots=True)
class Basic(Auth):
    """RFC 7617, in UTF-8. Of APIs that take a key as the user's name, the password is left out."""

    user: str | Secret
    password: Secret | None = None

    def __post_init__(self) -> None:
        if isinstance(self.user, str) and ":" in self.user:
            raise UsageError("Basic: a user's name has no colon (RFC 7617)")

    def open(self) -> Credentials:
        secrets = tuple(part for part in (self.user, self.password) if isinstance(part, Secret))
        return _Static(secrets, self._headers)

    def _headers(self) -> dict[str, str]:
        user = self.user.resolve() if isinstance(self.user, Secret) else self.user
        password = self.password.resolve() if self.password is not None else ""
        packed = base64.b64encode(f"{user}:{password}".encode()).decode()
        remember(packed)
        return {"Authorization": f"Basic {packed}"}


@dataclass(frozen=True, slots=True)
class ClientCredentials(Auth):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4). `in_body`: the client's secret goes in the form, for
    servers that take no Basic authentication. `parameters`: further fields of the form, such as `audience`."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str = ""
    in_body: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Credentials:
        self.client_secret.resolve()
        return TokenHolder(self.request, self.client_secret)

    @property
    def hosts(self) -> tuple[str, ...]:
        return (httpx2.URL(self.token_url).host,)

    def request(self) -> httpx2.Request:
        """For a new access token."""
        form = {"grant_type": "client_credentials", **self.parameters}
        if self.scope:
            form["scope"] = self.scope
        headers = {"Accept": "application/json"}
        secret = self.client_secret.resolve()
        if self.in_body:
            form |= {"client_id": self.client_id, "client_secret": secret}
        else:
            # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            packed = base64.b64encode(f"{quote_plus(self.client_id)}:{quote_plus(secret)}".encode()).decode()
            remember(packed)
            headers["Authorization"] = f"Basic {packed}"
        return httpx2.Request("POST", self.token_url, data=form, headers=headers)


def _in_header(part: Secret) -> str:
    """Its value. Raises `AuthError` for one that no header can hold: each call would fail by it, after it began."""
    value = part.resolve()
    if not (value.isascii() and value.isprintable()):
        raise AuthError(
            f"secret {part.name} cannot go into a header: it is not all printable ASCII",
            hint="see whether the store has the key itself, whole and on one line, then start again",
        )
    return value


class _Static:
    """Secrets as they are; after a refusal their stores are asked anew."""

    def __init__(self, secrets: tuple[Secret, ...], headers: Callable[[], dict[str, str]]) -> None:
        self._secrets = secrets
        self.headers = headers
        headers()

    def renewal(self) -> httpx2.Request | None:
        return None

    def renewed(self, response: httpx2.Response) -> None:
        raise AssertionError(f"nothing was asked for, and HTTP {response.status_code} is the answer")

    def refused(self) -> None:
        for secret in self._secrets:
            secret.refresh()


class TokenHolder:
    """An access token, until shortly before its end. `request` asks for the next, by what `secret` is then."""

    def __init__(self, request: Callable[[], httpx2.Request], secret: Secret) -> None:
        self._request = request
        self._secret = secret
        self._token = ""
        self._ends_at = 0.0

    def renewal(self) -> httpx2.Request | None:
        if self._token and time.monotonic() < self._ends_at:
            return None
        return self._request()

    def renewed(self, response: httpx2.Response) -> None:
        token, lifetime_s = token_of(response)
        remember(token)
        self._token = token
        self._ends_at = time.monotonic() + max(lifetime_s - EARLY_S, lifetime_s / 2)

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def refused(self) -> None:
        self._token = ""
        self._secret.refresh()


def token_of(response: httpx2.Response) -> tuple[str, float]:
    """Access token and lifetime in seconds of a token endpoint's answer (RFC 6749, sections 5.1 and 5.2). Nothing else
    of the answer is told: it may hold what it should not."""
    status, host = response.status_code, response.request.url.host
    told = f"the token endpoint {host} answers HTTP {status}"
    if status in (429, 503):
        raise RateLimitError(told) from _as_status_error(response, told)
    if status == 408 or status >= 500:
        raise TransientError(told) from _as_status_error(response, told)
    answer: Any = None
    try:
        answer = orjson.loads(response.content)
    except ValueError:
        told += " without JSON"
    if not isinstance(answer, dict):
        answer = {}
    if status != 200:
        error = str(answer.get("error", ""))
        known = error if error in _OAUTH_ERRORS else ""
        raise AuthError(f"{told} {known}".rstrip(), hint="correct the client's id, its secret, or its scope")
    token = answer.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise AuthError(f"{told} and no access_token", hint="see whether token_url is that of a token endpoint")
    if str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise AuthError(f"{told} and a token that is no bearer token", hint="ask the API's owner for bearer tokens")
    return token, _lifetime_s(answer.get("expires_in"))


_OAUTH_ERRORS = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope"}
)  # fmt: skip


def _lifetime_s(given: object) -> float:
    """A number, or one in a string, as some servers write it."""
    if isinstance(given, str) and given.isdecimal():
        given = int(given[:12])
    return float(given) if isinstance(given, int | float) and given > 0 else _LIFETIME_S


def _as_status_error(response: httpx2.Response, message: str) -> httpx2.HTTPStatusError:
    """What `Retry-After` and the host are read from."""
    return httpx2.HTTPStatusError(message, request=response.request, response=response)
