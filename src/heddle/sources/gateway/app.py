"""The gateway as an ASGI application: verify over the raw bytes, append with acks=all, and only then 2xx.

Plain ASGI: a router and middleware would cost more than all that is done here."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import orjson
import structlog

from heddle.settings import Settings
from heddle.sources.gateway.connection import Connection, RawLog
from heddle.sources.gateway.counters import Counters
from heddle.sources.gateway.keys import Audit, Keys
from heddle.sources.gateway.limits import Limits, read_body
from heddle.sources.gateway.responses import ACCEPTED, Receive, Refusal, Response, Scope, Send
from heddle.sources.gateway.routes import Route
from heddle.sources.signatures import SignedRequest
from heddle.sources.webhook import WebhookSource

NO_SOURCE = "-"
LOOPBACK = frozenset({"127.0.0.1", "::1"})
AUDIT_WAIT_S = 3.0
AUDIT_RETRY_S = 1.0
FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})

log = structlog.get_logger("heddle.gateway")


def gateway_app(
    sources: Iterable[WebhookSource], settings: Settings, producer: RawLog, audit: Audit | None = None
) -> Gateway:
    """An ASGI application that serves `sources`; its lifespan starts and stops `producer`. `audit`: is told of the
    secrets in use before they are used; without it nobody is.

    Raises `UsageError` for two sources on one path or a secret without a value."""
    return Gateway(tuple(sources), settings, producer, audit)


class Gateway:
    """State: the routes with their secrets, and what is counted. One event loop calls everything."""

    def __init__(
        self, sources: tuple[WebhookSource, ...], settings: Settings, producer: RawLog, audit: Audit | None = None
    ) -> None:
        self._settings = settings
        self._keys = Keys(sources, audit)
        self._renewal, self._first_renewal = asyncio.Lock(), asyncio.Event()
        self._limits = Limits.of(settings)
        self._deadline_s = settings.gateway_deadline_s
        self._base_url = settings.gateway_base_url.rstrip("/")
        self._connection = Connection(producer)
        self._faults_told: set[str] = set()
        self.counters = Counters()

    async def renew(self) -> None:
        """Ask for the secrets again, Kafka's password included. Raises nothing: what cannot be renewed is told."""
        async with self._renewal:
            await self._keys.renew()
            await self._connection.renew(self._settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await (await self._respond(scope, receive)).send(send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        route = self._keys.routes.get(scope["path"])
        source = route.source.name if route is not None else NO_SOURCE
        try:
            return await self._operational(scope) if route is None else await self._deliver(route, scope, receive)
        except Refusal as refusal:
            self.counters.refuse(source, refusal.reason)
            return refusal.response
        except Exception as error:
            # The vendor will send again; the message could hold content, so only type and place are told.
            self.counters.refuse(source, "internal-error")
            self._tell_fault(source, error)
            return Response(500)

    async def _deliver(self, route: Route, scope: Scope, receive: Receive) -> Response:
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        name = route.source.name
        with self._limits.request() as reservation:
            route.check_open()
            challenge = route.challenge_in_query(scope)
            if challenge is not None:
                self.counters.handshakes[name] += 1
                return challenge
            route.check_method(scope["method"])
            request = self._request(scope)
            route.check_content(request.headers)
            body = await read_body(scope, receive, reservation, deadline)
            request = request._replace(body=body)
            now = time.time()
            verified = route.prove(request, now)
            challenge = route.challenge_in_body(body)
            if challenge is not None:
                self.counters.handshakes[name] += 1
                return challenge
            record = route.record(request, verified, now)
            await self._connection.append(record, deadline)
        self.counters.accept(name, len(body), keyed=record.key is not None or route.source.entity is None)
        return ACCEPTED

    def _request(self, scope: Scope) -> SignedRequest:
        """The head as the schemes read it; the URL is the public one."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        request = SignedRequest.of(scope["method"], "", pairs, b"")
        base = self._base_url or f"{scope['scheme']}://{request.headers.get('host', '')}"
        query = scope["query_string"]
        url = base + scope["raw_path"].decode("latin-1") + ("?" + query.decode("latin-1") if query else "")
        return request._replace(url=url)

    async def _operational(self, scope: Scope) -> Response:
        """The gateway's own paths; 404 for everything else."""
        path = scope["path"]
        if path not in ("/healthz", "/readyz", "/statusz"):
            raise Refusal(404, "unknown-path")
        if scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "wrong-method", (b"allow", b"GET, HEAD"))
        if path == "/healthz":
            return ACCEPTED
        if path == "/readyz":
            return ACCEPTED if await self._connection.ready() else Response(503)
        if not _is_local(scope):
            raise Refusal(404, "unknown-path")
        return Response(200, orjson.dumps(await self._status()), ((b"content-type", b"application/json"),))

    async def _status(self) -> dict[str, object]:
        in_flight = {"requests": self._limits.requests, "bytes": self._limits.in_flight_bytes}
        return {"ready": await self._connection.ready(), "in_flight": in_flight, **self.counters.as_dict()}

    def _tell_fault(self, source: str, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        if place not in self._faults_told:
            self._faults_told.add(place)
            log.error("gateway.fault", source=source, error=place)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._connection.open()
        renewing = asyncio.create_task(self._keep_renewing())
        await self._begun()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await self._connection.close()
        self.counters.flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _begun(self) -> None:
        """Deliveries that come before the secrets are on record get a 503; where that is quick, none comes before."""
        if self._connection.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AUDIT_WAIT_S):
                    await self._first_renewal.wait()

    async def _keep_renewing(self) -> None:
        if self._keys.is_waiting:
            await self._renewed()
        self._first_renewal.set()
        while True:
            await asyncio.sleep(AUDIT_RETRY_S if self._keys.is_waiting else self._settings.gateway_renew_s)
            await self._renewed()

    async def _renewed(self) -> None:
        try:
            await self.renew()
        except Exception as error:  # a fault of ours; the next round may do better than an end of all rounds
            self._tell_fault(NO_SOURCE, error)


def _is_local(scope: Scope) -> bool:
    """From this machine, and not through a proxy on it."""
    client = scope.get("client")
    return client is not None and client[0] in LOOPBACK and not any(name in FORWARDED for name, _ in scope["headers"])
