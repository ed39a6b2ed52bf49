"""The gateway as a process: uvicorn on uvloop, its own signals, and where it can be reached."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop

from heddle.errors import UsageError
from heddle.root import state_dir as default_state_dir
from heddle.secrets import refresh_all
from heddle.settings import Settings, need
from heddle.sources.gateway.app import Gateway, gateway_app
from heddle.sources.gateway.http1 import BoundedHttp, HeadLimits
from heddle.sources.gateway.keys import Audit
from heddle.sources.webhook import WebhookSource

GATEWAY_FILE = "gateway.json"
BACKLOG = 1024

log = structlog.get_logger("heddle.gateway")


def run_gateway(
    sources: Iterable[WebhookSource], settings: Settings, *, state_dir: Path | None = None, audit: Audit | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: requests in flight are answered, what was sent lands.

    Secrets are asked for again all the time, on SIGHUP at once. While it serves, `gateway.json` in the project's state
    folder (or `state_dir`) holds its address. `audit`: as of `gateway_app`. Raises `UsageError` for a taken port, a
    path claimed twice, a secret without a value."""
    # Here and not above: of all commands only this one needs the asynchronous Kafka client.
    from heddle.broker.async_edge import AsyncProducer

    need(settings, "bootstrap_servers")
    folder = state_dir if state_dir is not None else default_state_dir()
    gateway = gateway_app(sources, settings, AsyncProducer(settings.kafka_config()), audit)
    with listening(settings) as listener:
        address = url_of(listener, settings.gateway_host)
        with contextlib.ExitStack() as announced:
            server = _Server(gateway, settings, lambda: announced.enter_context(announcement(folder, address)))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve(sockets=[listener]))


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A bound socket. Raises `UsageError` when the port is taken or not ours to take."""
    host, port = settings.gateway_host, settings.gateway_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"gateway cannot listen on {host}:{port}: {'the port is taken' if taken else error.strerror}",
            hint="stop what listens there, or set HEDDLE_GATEWAY_PORT (0 = a free port)",
        ) from error
    with listener:
        yield listener


def url_of(listener: socket.socket, host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def announcement(state_dir: Path, url: str) -> Iterator[None]:
    """`gateway.json` holds url and pid as long as this gateway serves; a successor's file is left alone."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path, mine = state_dir / GATEWAY_FILE, {"url": url, "pid": os.getpid()}
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(json.dumps(mine) + "\n", encoding="utf-8")
    fresh.replace(path)
    log.info("gateway.listening", url=url)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads(path.read_text(encoding="utf-8")) == mine:
                path.unlink()
        log.info("gateway.stopped", url=url)


class _Server(uvicorn.Server):
    """Signals through the event loop, so that a drained gateway ends with exit code 0; SIGHUP renews secrets."""

    def __init__(self, gateway: Gateway, settings: Settings, on_started: Callable[[], object]) -> None:
        super().__init__(_uvicorn_config(gateway, settings))
        self._gateway = gateway
        self._on_started = on_started
        self._renewal: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        actions = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        await super().startup(sockets=list(sockets) if sockets is not None else None)
        self._on_started()

    def _stop(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        """Stores are asked, whatever is known of them."""
        refresh_all()
        self._renewal = asyncio.ensure_future(self._gateway.renew())


def _uvicorn_config(gateway: Gateway, settings: Settings) -> uvicorn.Config:
    # uvicorn calls what it is given as `http`; a partial of the class brings the limits along.
    http: Any = functools.partial(BoundedHttp, limits=HeadLimits.of(settings), counters=gateway.counters)
    app: Any = gateway
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.gateway_deadline_s) + 2,
    )
