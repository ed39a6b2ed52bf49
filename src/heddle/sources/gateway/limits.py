"""How much the gateway takes on at once: requests in flight and bytes of their bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from heddle.settings import Settings
from heddle.sources.gateway.responses import Receive, Refusal, Scope, unavailable


@dataclass
class Limits:
    """Counts what is in flight on one event loop. Every refusal is a `Refusal`; what was taken is always given back."""

    max_requests: int
    max_in_flight_bytes: int
    max_body_bytes: int
    requests: int = field(default=0, init=False)
    in_flight_bytes: int = field(default=0, init=False)

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.gateway_max_requests, settings.gateway_max_in_flight_bytes, settings.gateway_max_body_bytes)

    @contextmanager
    def request(self) -> Iterator[Reservation]:
        """Serve one request more. Refuses with 503 beyond the cap."""
        if self.requests >= self.max_requests:
            raise unavailable("too-many-requests")
        self.requests += 1
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.requests -= 1
            self.in_flight_bytes -= reservation.held_bytes


@dataclass
class Reservation:
    """The bytes that one request holds."""

    limits: Limits
    held_bytes: int = field(default=0, init=False)

    def hold(self, total_bytes: int) -> None:
        """Hold `total_bytes` in all, never fewer than before. Refuses a body that is too large (413) or one too many
        for now (503)."""
        if total_bytes > self.limits.max_body_bytes:
            raise Refusal(413, "body-too-large")
        more = total_bytes - self.held_bytes
        if self.limits.in_flight_bytes + more > self.limits.max_in_flight_bytes:
            raise unavailable("too-many-bytes")
        self.limits.in_flight_bytes += more
        self.held_bytes += more


async def read_body(scope: Scope, receive: Receive, reservation: Reservation, deadline: float) -> bytes:
    """The whole body. `deadline` on the loop's clock; later is a slow client (408). A declared length that is too
    large is refused before the first byte; bytes count as in flight once they came, so that declaring is free."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > reservation.limits.max_body_bytes:
            raise Refusal(413, "body-too-large")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "client-gone")
                chunk = message.get("body", b"")
                size += len(chunk)
                reservation.hold(size)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise Refusal(408, "slow-client", (b"connection", b"close")) from None
