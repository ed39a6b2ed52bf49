"""An HTTP API for tests: a real server on a port of its own, with faults as they are asked for.

One process holds the server (`Target`), so that its ledger outlives the workers that are killed. A deduplicating target
keeps keys and answers as it did before; a naive one does what it is told, and counts."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "Idempotency-Key"


@dataclass(frozen=True)
class Fault:
    """What happens to one request. `status` and `headers`: answered in place of the effect. `reset`: the connection is
    reset, nothing has happened. `cut`: the effect is made, then the connection is reset. `delay_s`: the answer, whose
    effect is made at once, comes so late. `trickle_s`: the answer's body comes a byte at a time, so far apart."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "injected"}'
    reset: bool = False
    cut: bool = False
    delay_s: float = 0.0
    trickle_s: float = 0.0


NONE = Fault()


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. `peer`: the common name of the client's certificate, where it showed one."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Choose = Callable[[Seen], Fault]
Answer = tuple[int, dict[str, str], bytes]


class Target:
    """`before` is called with each request and may wait; `fault` chooses what befalls it; `answer` may take the place
    of the ledger. `effects` are in the order in which they were made, `effect_times` (monotonic seconds) beside them;
    `counts` counts equal bodies."""

    def __init__(self, *, dedupes: bool = True, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.dedupes = dedupes
        self.before: Callable[[Seen], None] = lambda _: None
        self.fault: Choose = lambda _: NONE
        self.answer: Callable[[Seen], Answer | None] = lambda _: None
        self.seen: list[Seen] = []
        self.effects: list[Seen] = []
        self.effect_times: list[float] = []
        self.injected: Counter[str] = Counter()
        self._kept: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._port = port
        self._tls = tls
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Again on the same port, with what it knew, after `stop`."""
        self._closing.clear()
        self._server = _Server(self, self._port, self._tls)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Nobody answers there any more, and nothing has an effect; open connections are cut."""
        with self._lock:
            self._closing.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def counts(self) -> Counter[bytes]:
        with self._lock:
            return Counter(each.body for each in self.effects)

    # Called by the server's threads

    def serve(self, seen: Seen) -> tuple[Fault, Answer]:
        self.before(seen)
        with self._lock:
            if self._closing.is_set():  # it was on its way in when the server stopped
                return Fault(reset=True), (0, {}, b"")
            self.seen.append(seen)
            fault = self.fault(seen)
            if fault.reset or fault.status:
                return fault, (fault.status, fault.headers, fault.body)
            given = self.answer(seen)
            if given is not None:
                return fault, given
            key = seen.headers.get(KEY.lower(), "")
            known = self._kept.get(key) if self.dedupes and key else None
            if known is not None:
                status, headers, body = known
                return fault, (status, {**headers, "Idempotent-Replayed": "true"}, body)
            self.effects.append(seen)
            self.effect_times.append(time.monotonic())
            answer = 201, {"Content-Type": "application/json"}, b'{"id": %d}' % len(self.effects)
            if key:
                self._kept[key] = answer
            return fault, answer

    def wait(self, seconds: float) -> bool:
        """Whether the server was stopped meanwhile."""
        return self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, target: Target, port: int, tls: ssl.SSLContext | None) -> None:
        self.target = target
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed leaves its connection: nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # a client that died on the way has asked for nothing
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = self.server.target
        fault, (status, given, content) = target.serve(
            Seen(self.command, self.path, headers, body, _name_of(self.connection))
        )
        if fault.reset or fault.cut:
            self._reset()
            return
        if fault.delay_s and target.wait(fault.delay_s):
            self._reset()
            return
        self.send_response(status)
        for name, value in {**given, "Content-Length": str(len(content)), "Date": formatdate(usegmt=True)}.items():
            self.send_header(name, value)
        self.end_headers()
        if not fault.trickle_s:
            self.wfile.write(content)
            return
        for byte in content:
            if target.wait(fault.trickle_s):
                break
            with suppress(OSError):
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _reset(self) -> None:
        """RST, not a clean end."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send_response(self, code: int, message: str | None = None) -> None:
        """Without a Date of its own."""
        self.send_response_only(code, message)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests say what they need to."""


def _name_of(connection: socket.socket) -> str:
    shown: Any = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    return dict(pair for parts in shown["subject"] for pair in parts)["commonName"] if shown else ""


def mixed_faults(rate: float, seed: int, delay_s: float, count: Counter[str]) -> Choose:
    """Of all requests a share fails, in every way; what was injected is counted."""
    chance = random.Random(seed)
    kinds: list[tuple[str, Fault]] = [
        ("500", Fault(status=500)),
        ("502", Fault(status=502)),
        ("503 with Retry-After in seconds", Fault(status=503, headers={"Retry-After": "0"})),
        ("429 with Retry-After as a date", Fault(status=429)),
        ("reset before the effect", Fault(reset=True)),
        ("cut after the effect", Fault(cut=True)),
        ("late answer", Fault(delay_s=delay_s)),
        ("trickling answer", Fault(trickle_s=delay_s)),
    ]

    def choose(_: Seen) -> Fault:
        if chance.random() >= rate:
            return NONE
        name, fault = chance.choice(kinds)
        count[name] += 1
        if fault.status == 429:
            return Fault(status=429, headers={"Retry-After": formatdate(time.time(), usegmt=True)})
        return fault

    return choose
