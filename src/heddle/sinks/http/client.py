"""One HTTP client with its deadlines, its credentials, and its guard. Lives on the loop of the sink's thread."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import httpx2

from heddle.errors import UsageError
from heddle.http.auth import REFUSED, Auth
from heddle.http.clock import SYSTEM, CallClock
from heddle.http.guard import Guard, GuardedTransport
from heddle.http.tls import Tls
from heddle.sinks.http.answer import MAX_BODY_BYTES, Answer

MAX_TOTAL_S = 35.0
"""A call's longest deadline. A look-up and a call, the last that a batch began, have to end before its worker takes
them for hung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Of one call, in seconds. `read_s`: between two pieces of an answer. `total_s`: for all of it, with renewed
    credentials, name look-up and connection, so that an answer that trickles ends too."""

    connect_s: float = 5.0
    read_s: float = 20.0
    total_s: float = 30.0

    def __post_init__(self) -> None:
        if not (0 < self.connect_s <= self.total_s and 0 < self.read_s <= self.total_s <= MAX_TOTAL_S):
            raise UsageError(
                "Deadlines: connect_s and read_s have to be above zero and at most total_s, "
                f"and that at most {MAX_TOTAL_S:g}"
            )


class Client:
    """Raises httpx2's exceptions, `TimeoutError` past the total deadline, `ForbiddenHostError`,
    `ForbiddenAddressError`, and what renewing credentials raises."""

    def __init__(
        self, guard: Guard, auth: Auth | None, deadlines: Deadlines, tls: Tls, most: int, clock: CallClock = SYSTEM
    ) -> None:
        self.clock = clock
        self._tls = tls
        self._deadlines = deadlines
        self._credentials = auth.open() if auth is not None else None
        self._renewing = asyncio.Lock()
        self._held_until = 0.0
        self._client = httpx2.AsyncClient(
            transport=GuardedTransport(guard, tls.context, most),
            timeout=httpx2.Timeout(deadlines.read_s, connect=deadlines.connect_s, pool=deadlines.total_s),
            follow_redirects=False,
            trust_env=False,
        )

    def hold(self, seconds: float) -> None:
        """The target asks all calls to wait."""
        self._held_until = max(self._held_until, self.clock.monotonic() + seconds)

    async def ready(self) -> None:
        """Returns when no call is held back any more."""
        while (left_s := self._held_until - self.clock.monotonic()) > 0:  # it may be moved
            await self.clock.sleep(left_s)

    def ends_at(self) -> float:
        """When a call that begins now has to be over, by the loop's time."""
        return asyncio.get_running_loop().time() + self._deadlines.total_s

    async def credentials(self, ends_at: float) -> dict[str, str]:
        """Headers, after a renewal where one is due: one for all that wait for it."""
        if self._credentials is None:
            return {}
        async with asyncio.timeout_at(ends_at), self._renewing:
            renewal = self._credentials.renewal()
            if renewal is not None:
                self._credentials.renewed(await self._client.send(renewal))
            return dict(self._credentials.headers())

    async def refused(self, used: dict[str, str]) -> bool:
        """Whether it is worth to send once more, with other credentials. Of several that were refused with the same
        ones, the first has them renewed."""
        if self._credentials is None:
            return False
        async with self._renewing:
            if self._credentials.renewal() is None and dict(self._credentials.headers()) == used:
                self._credentials.refused()
        return True

    async def send(self, request: httpx2.Request, ends_at: float) -> Answer:
        """Past its status an answer is as good as it comes: an effect that was told is not unknown because the rest of
        the body is."""
        self._tls.renew()
        async with asyncio.timeout_at(ends_at):
            response = await self._client.send(request, stream=True)
        body, is_whole = bytearray(), False
        try:
            with contextlib.suppress(TimeoutError, httpx2.TransportError):
                async with asyncio.timeout_at(ends_at):
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) >= MAX_BODY_BYTES:
                            break
                    else:
                        is_whole = True
        finally:
            await response.aclose()
        return Answer(request, response, bytes(body[:MAX_BODY_BYTES]), is_whole)

    def request(self, method: str, url: str, content: bytes, headers: dict[str, str]) -> httpx2.Request:
        return self._client.build_request(method, url, content=content or None, headers=headers)

    async def close(self) -> None:
        await self._client.aclose()


def is_refused(answer: Answer) -> bool:
    return answer.status in REFUSED
