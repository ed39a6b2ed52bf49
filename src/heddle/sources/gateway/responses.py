"""What the gateway answers. Bodies are empty unless a handshake asks for one: an answer tells a stranger nothing, and
Xero's intent to receive wants exactly that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send) -> None:
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


ACCEPTED = Response(200)


def text(content_type: str, body: bytes) -> Response:
    """A body that no browser may take for anything else."""
    return Response(200, body, ((b"content-type", content_type.encode()), (b"x-content-type-options", b"nosniff")))


class Refusal(Exception):
    """A request that gets no 2xx. `reason` is a stable, content-free word for the counters and the log."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.response = Response(status, b"", headers)


def unavailable(reason: str) -> Refusal:
    """503: the vendor shall send again; what it sent may have been stored all the same."""
    return Refusal(503, reason, (b"retry-after", b"%d" % RETRY_AFTER_S))
