"""The billing API: a real HTTP server that keeps idempotency keys, and fails in every way that such servers have.

It lives in the demo's process, so what has taken effect there can be counted, whatever happened on the way."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any, Literal, NamedTuple

SEED = 20131222
FAULT_EVERY = 40
LATE_S = 2.5
"""Longer than consumers/billing.py waits: the effect is made, and nobody hears of it."""
TRICKLE_S = 0.02

Kind = Literal["status", "delay", "reset", "cut", "trickle", "slow down"]
# What takes seconds to get over comes less often than what a moment mends.
_MIX: tuple[Kind, ...] = ("status", "cut", "reset", "trickle") * 3 + ("delay", "slow down")
TOLD: dict[Kind, str] = {
    "status": "answered 500, nothing done",
    "reset": "connection reset, nothing done",
    "cut": "done, then the connection cut",
    "delay": "done, answered too late",
    "trickle": "done, the answer a byte at a time",
    "slow down": "answered 503, come back in a second",
}

Answer = tuple[int, bytes]


class Effect(NamedTuple):
    """One call that has changed something here."""

    key: str
    method: str
    path: str


class BillingApi:
    """`effects` in the order in which they were made; `resources`: what is there now, by path; `calls`: all requests,
    those that failed and those that were repeated too."""

    def __init__(self, token: str) -> None:
        self.effects: list[Effect] = []
        self.resources: dict[str, Any] = {}
        self.injected: Counter[Kind] = Counter()
        self.calls = self.repeated = 0
        self._authorization = f"Bearer {token}"
        self._answers: dict[str, Answer] = {}
        self._dice, self._faults = random.Random(SEED), cycle(_MIX)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def serving(self) -> Iterator[None]:
        threading.Thread(target=self._server.serve_forever, name="billing-api", daemon=True).start()
        try:
            yield
        finally:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()

    # Called by the server's threads

    def answer(self, call: Effect, authorization: str, body: bytes) -> tuple[Answer, Kind | None]:
        """What to answer, and what goes wrong on the way."""
        with self._lock:
            self.calls += 1
            if authorization != self._authorization:
                return (401, b'{"error": "who are you?"}'), None
            kind = next(self._faults) if self._dice.randrange(FAULT_EVERY) == 0 else None
            if kind is not None:
                self.injected[kind] += 1
            match kind:
                case "status":
                    return (500, b'{"error": "injected"}'), kind
                case "slow down":
                    return (503, b'{"error": "injected"}'), kind
                case "reset":
                    return (0, b""), kind
            if call.key in self._answers:
                self.repeated += 1
                return self._answers[call.key], kind
            self._answers[call.key] = made = self._make(call, body)
            return made, kind

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def _make(self, call: Effect, body: bytes) -> Answer:
        """Deleting what is not there is answered as if it had been."""
        if call.method == "DELETE":
            self.resources.pop(call.path, None)
        else:
            self.resources[call.path] = json.loads(body)
        self.effects.append(call)
        return 200, b'{"effect": %d}' % len(self.effects)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: BillingApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of the API's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Effect(self.headers.get("Idempotency-Key", ""), self.command, self.path.removeprefix("/v1"))
        api = self.server.api
        (status, content), fault = api.answer(call, self.headers.get("Authorization", ""), body)
        if fault in ("reset", "cut"):
            self._reset()
            return
        if fault == "delay":
            api.wait(LATE_S)
        with suppress(OSError):  # whoever waited may be gone
            self._send(status, content, fault)

    do_PUT = do_DELETE = _serve

    def _send(self, status: int, content: bytes, fault: Kind | None) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if fault == "slow down":
            self.send_header("Retry-After", "1")
        self.end_headers()
        if fault != "trickle":
            self.wfile.write(content)
            return
        for byte in content:
            self.server.api.wait(TRICKLE_S)
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def _reset(self) -> None:
        """RST, no clean end."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """What was done is counted, not logged."""
