"""HTTP/1.1 with bounds that uvicorn leaves open: size of the head (431), time to send it (408), connections (503)."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from heddle.settings import Settings
from heddle.sources.gateway.counters import Counters
from heddle.sources.gateway.responses import RETRY_AFTER_S

MAX_HEAD_BYTES = 32 * 2**10
SPARE_DESCRIPTORS = 100


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """`read_timeout_s` bounds the time for a head, and a connection that never sends one."""

    max_connections: int
    read_timeout_s: float
    max_head_bytes: int = MAX_HEAD_BYTES

    @classmethod
    def of(cls, settings: Settings) -> HeadLimits:
        # Connections wait idle between requests, so there are more of them; file descriptors are the harder bound.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = min(4 * settings.gateway_max_requests, descriptors - SPARE_DESCRIPTORS)
        # A second more than the application's own deadline, which then answers a slow body with its 408.
        return cls(max(connections, 1), settings.gateway_deadline_s + 1.0)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, refusing what would pile up before the application is called."""

    def __init__(self, *, limits: HeadLimits, counters: Counters, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._counters = counters
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._raw_head_bytes = 0
        self._parsed_head_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn types it
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, "too-many-connections")
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._raw_head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._raw_head_bytes > self._limits.max_head_bytes and not self._refused:
            self._refuse(431, "head-too-large")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._parsed_head_bytes = 0
        if self._timer is None:
            self._arm()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._parsed_head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parsed_head_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._raw_head_bytes = 0
        if self._parsed_head_bytes > self._limits.max_head_bytes:
            self._refuse(431, "head-too-large")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._disarm()
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._counters.refuse("-", "not-http")
            self._refused = True
            super().send_400_response(msg)

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._limits.read_timeout_s, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(408, "slow-client")
        elif self.cycle is not None and not self.cycle.response_complete:
            self._arm()  # the application's deadline answers first
        else:
            self.transport.close()  # answered long ago, and the body still trickles in

    def _refuse(self, status: int, reason: str) -> None:
        """Answer without the application, and close."""
        self._refused = True
        self._disarm()
        self._counters.refuse("-", reason)
        retry = f"retry-after: {RETRY_AFTER_S}\r\n" if status == 503 else ""
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        self.transport.write(f"{line}{retry}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        self.transport.close()
