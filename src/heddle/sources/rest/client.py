"""Asks the API: one request at a time, on the declared host only, with bounds on time and size."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
import orjson

from heddle.errors import AuthError, DependencyDownError, RateLimitError, TransientError, UsageError
from heddle.http.auth import REFUSED, Auth, Credentials
from heddle.http.guard import ForbiddenHostError, Guard, GuardedTransport
from heddle.http.rate import LONGEST_WAIT_S, exhausted_for_s, http_date, retry_after_s
from heddle.http.tls import Tls, refuses_us
from heddle.sources.rest.announced import Announced

MAX_BODY_BYTES = 8 * 2**20
CONNECT_S = 5.0
RENEWAL_S = 60.0
"""For a token, however short a request may take: an answer that nobody waits for may hold the only refresh token."""


class ThrottledError(Exception):
    """Too many requests; `headers` may say for how long."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("throttled")
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Answer:
    """2xx, 304, or a 4xx that is neither about credentials nor about the rate."""

    status: int
    headers: Mapping[str, str]
    links: Mapping[str, str]
    body: bytes

    @property
    def server_time_s(self) -> float | None:
        """When the server answered, by its own clock. An answer out of a cache was made earlier, and says so."""
        moment = http_date(self.headers.get("date"))
        return None if moment is None else moment.timestamp()


class Client:
    """Of one puller, used by its thread. Raises `ThrottledError`, `DependencyDownError`, `AuthError`, `UsageError`.

    `pinned`: parameters of every URL that has not got them. `announced`: hears of what the API says of its end."""

    def __init__(
        self, base_url: str, auth: Auth | None, headers: Mapping[str, str], pinned: Mapping[str, str], timeout_s: float,
        tls: Tls, announced: Announced,
    ) -> None:  # fmt: skip
        self._tls = tls
        self._pinned = pinned
        self._base = httpx2.URL(base_url.rstrip("/") + "/")
        self._headers = {"Accept": "application/json", **headers}
        self._timeout_s = timeout_s
        self._credentials = auth.open() if auth is not None else None
        self._renews_from = 0.0
        guard = Guard([self._base.host, *(auth.hosts if auth is not None else ())])
        self._announced = announced
        self._runner = asyncio.Runner()
        self._client = httpx2.AsyncClient(
            transport=GuardedTransport(guard, tls.context, 2),
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            follow_redirects=False,
            trust_env=False,
        )

    def url_of(self, path: str) -> httpx2.URL:
        return self._with_pinned(self._base.join(path.lstrip("/")))

    def checked(self, asked: httpx2.URL, given: str) -> httpx2.URL:
        """A URL that an answer gave, which credentials would be sent to. Raises `UsageError`."""
        try:
            url = asked.join(given)
        except (httpx2.InvalidURL, ValueError):
            raise UsageError("the API's next page is no URL", hint="ask the API's owner") from None
        if (url.scheme, url.host, url.port) != (self._base.scheme, self._base.host, self._base.port) or url.userinfo:
            raise UsageError(
                f"the API's next page is not at {self._base.host}, to which credentials are sent",
                hint="see whether base_url names the host, scheme and port that the API itself writes into its links",
            )
        return self._with_pinned(url)

    def ask(
        self, url: httpx2.URL, params: Mapping[str, Any], *, etag: str = "", query: Mapping[str, Any] | None = None
    ) -> Answer:
        """GET with `params`; where there is a GraphQL `query`, POST, which has the parameters among its variables."""
        headers = {**self._headers, **({"If-None-Match": etag} if etag else {})}
        if query is None:
            target = url.copy_merge_params(params) if params else url
            request = self._client.build_request("GET", target, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            request = self._client.build_request("POST", url, content=orjson.dumps(query), headers=headers)
        try:
            answer = self._runner.run(self._answered(request))
        except TimeoutError as error:
            raise DependencyDownError(f"{url.host} does not answer within {self._timeout_s:g} s") from error
        except httpx2.TransportError as error:
            if refuses_us(error):
                raise AuthError(
                    f"{url.host} does not take our certificate", hint="renew client_certificate=, then start again"
                ) from error
            raise DependencyDownError(f"{url.host} does not answer: {type(error).__name__}") from error
        except httpx2.DecodingError as error:
            raise DependencyDownError(f"{url.host} answers what cannot be decompressed") from error
        except ForbiddenHostError as error:
            raise UsageError(str(error), hint="one host is declared: that of base_url") from error
        except (RateLimitError, TransientError) as error:
            raise DependencyDownError(str(error)) from error
        self._announced.heed(url.path, answer.status, answer.headers, answer.links)
        return answer

    def close(self) -> None:
        self._credentials = None  # and the lock that a renewal holds, whose answer never came
        try:
            self._runner.run(self._client.aclose())
        finally:
            self._runner.close()

    def _with_pinned(self, url: httpx2.URL) -> httpx2.URL:
        """What the URL has stays as it is, byte by byte: it may be signed."""
        lacking = {name: value for name, value in self._pinned.items() if name not in url.params}
        if not lacking:
            return url
        return url.copy_with(query=b"&".join(part for part in (url.query, urlencode(lacking).encode()) if part))

    async def _answered(self, request: httpx2.Request) -> Answer:
        self._tls.renew()
        for again in (False, True):
            await self._authorize(request)
            answer = await self._sent(request)
            if _is_throttled(answer):
                raise ThrottledError(answer.headers)
            if answer.status not in REFUSED:
                break
            if again or self._credentials is None:
                raise AuthError(
                    f"{request.url.host} answers HTTP {answer.status}", hint="renew the credentials, or their scope"
                )
            self._credentials.refused()
        if answer.status >= 500 or answer.status in (408, 425):
            raise DependencyDownError(f"{request.url.host} answers HTTP {answer.status}")
        if 300 <= answer.status < 400 and answer.status != 304:
            raise UsageError(
                f"{request.url.host} redirects, and redirects are not followed", hint="declare the address it is at"
            )
        return answer

    async def _authorize(self, request: httpx2.Request) -> None:
        if self._credentials is None:
            return
        wait_s = self._renews_from - time.monotonic()
        if wait_s > 0:
            raise ThrottledError({"retry-after": str(math.ceil(wait_s))})
        renewal = self._credentials.renewal()
        if renewal is not None:
            renewal.extensions["timeout"] = httpx2.Timeout(RENEWAL_S, connect=CONNECT_S).as_dict()
            async with asyncio.timeout(RENEWAL_S):
                response = await self._client.send(renewal)
            self._renewed(self._credentials, response)
        request.headers.update(self._credentials.headers())

    def _renewed(self, credentials: Credentials, response: httpx2.Response) -> None:
        """A token endpoint that says when it may be asked again is not asked before, for whichever resource."""
        try:
            credentials.renewed(response)
        except RateLimitError:
            told = retry_after_s(response.headers)
            if told is None:
                raise
            self._renews_from = time.monotonic() + min(told, LONGEST_WAIT_S)
            raise ThrottledError(response.headers) from None

    async def _sent(self, request: httpx2.Request) -> Answer:
        async with asyncio.timeout(self._timeout_s):
            response = await self._client.send(request, stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        raise UsageError(
                            f"{request.url.host} answers with a page of more than {MAX_BODY_BYTES} bytes",
                            hint="ask for fewer rows in a page",
                        )
            finally:
                await response.aclose()
        links = {name: link["url"] for name, link in response.links.items() if name and link.get("url")}
        return Answer(response.status_code, response.headers, links, bytes(body))


def _is_throttled(answer: Answer) -> bool:
    """Some vendors say it by 403."""
    headers = answer.headers
    return (
        answer.status == 429
        or (answer.status == 503 and "retry-after" in headers)
        or (answer.status == 403 and ("retry-after" in headers or exhausted_for_s(headers) is not None))
    )
