"""Gateways for the checks of pushed sources: what is needed of one, and one in this process on a log in memory."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from heddle.broker.log import Outgoing, Record
from heddle.broker.murmur2 import partition_of
from heddle.settings import Settings
from heddle.sources.gateway import gateway_app
from heddle.sources.webhook import WebhookSource

PARTITIONS = 3
DEADLINE_S = 0.3
CALL_LIMIT_S = 30.0
TICK_S = 0.005


class Sent(NamedTuple):
    """A signed request. `query`: what stands behind the question mark."""

    body: bytes
    headers: Mapping[str, str]
    query: str = ""


class Answer(NamedTuple):
    """`retry_after`: the header of that name."""

    status: int
    retry_after: str | None = None


class Gateway(Protocol):
    """One process that serves the source."""

    def post(self, path: str, sent: Sent) -> Answer | None:
        """None: nobody listens, or the connection ended without an answer. Called from many threads."""

    def busy(self) -> int:
        """Requests that it has begun and not answered."""

    def stop(self) -> None:
        """As by SIGTERM; returns once it has ended."""

    def kill(self) -> None:
        """As by SIGKILL. Nothing where it has ended."""

    def done(self) -> None:
        """The check has ended: end it, or keep it for the next one."""


class Gateways(Protocol):
    """Any number of gateways before one log."""

    def start(self, source: WebhookSource) -> Gateway:
        """One more, that serves by now."""

    def stalled(self) -> AbstractContextManager[object]:
        """Meanwhile the log takes nothing: connections stand, and nothing is answered."""

    def records(self, topic: str) -> list[Record]:
        """All that is durable there, each partition in order."""


class MemoryLog:
    """A raw log with partitions; `heddle.sources.gateway`'s own gateway writes to it.

    Of what is sent while it is stalled every other record lands once it is not, whether the sender lives or not, as
    with a broker that had it in its socket."""

    def __init__(self) -> None:
        self._partitions: dict[str, list[list[Record]]] = {}
        self._lock = threading.Lock()
        self._afloat: list[Outgoing] = []
        self.is_stalled = False

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to leave."""

    async def renew(self, config: Mapping[str, str]) -> None:
        """Nobody logs in here."""

    async def reachable(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol's
        return not self.is_stalled

    async def send(self, record: Outgoing) -> tuple[int, int]:
        if self.is_stalled:
            self._afloat.append(record)
            while self.is_stalled:  # noqa: ASYNC110 - many loops wait, and another thread ends it
                await asyncio.sleep(TICK_S)
        return self.land(record)

    def land(self, record: Outgoing) -> tuple[int, int]:
        with self._lock:
            partitions = self._partitions.setdefault(record.topic, [[] for _ in range(PARTITIONS)])
            count = sum(map(len, partitions))
            partition = count % PARTITIONS if record.key is None else partition_of(record.key, PARTITIONS)
            offset, now_ms = len(partitions[partition]), time.time_ns() // 1_000_000
            partitions[partition].append(
                Record(record.topic, partition, offset, record.key, record.value, list(record.headers), now_ms)
            )
        return partition, offset

    def go_on(self) -> None:
        late, self._afloat = self._afloat[::2], []
        self.is_stalled = False
        for record in late:
            self.land(record)

    def records(self, topic: str) -> list[Record]:
        with self._lock:
            return [record for partition in self._partitions.get(topic, []) for record in partition]


class MemoryGateway:
    """Heddle's gateway on an event loop of its own, called as an HTTP server calls it."""

    def __init__(self, source: WebhookSource, log: MemoryLog) -> None:
        settings = Settings.model_construct(gateway_deadline_s=DEADLINE_S)
        self._app = gateway_app([source], settings, log)
        self._loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[Answer]] = set()
        self._listens = True
        self._ends = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = threading.Event()
        self._lifespan = asyncio.run_coroutine_threadsafe(self._live(started.set), self._loop)
        assert started.wait(CALL_LIMIT_S), "the gateway does not start"

    def post(self, path: str, sent: Sent) -> Answer | None:
        if not self._listens:
            return None
        call = asyncio.run_coroutine_threadsafe(self._call(path, sent), self._loop)
        try:
            return call.result(CALL_LIMIT_S)
        except (concurrent.futures.CancelledError, ConnectionError):
            return None

    def busy(self) -> int:
        return len(self._calls)

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._drained(), self._loop).result(CALL_LIMIT_S)
            self._lifespan.result(CALL_LIMIT_S)
            self._end()

    def kill(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._cancelled(), self._loop).result(CALL_LIMIT_S)
            self._end()

    def done(self) -> None:
        self.kill()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_LIMIT_S)
        self._loop.close()

    async def _call(self, path: str, sent: Sent) -> Answer:
        if not self._listens:
            raise ConnectionRefusedError
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await self._answered(_scope(path, sent), sent.body)
        finally:
            self._calls.discard(task)

    async def _answered(self, scope: MutableMapping[str, Any], body: bytes) -> Answer:
        answers: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            answers.append(message)

        await self._app(scope, receive, send)
        headers = {name.lower(): value.decode("latin-1") for name, value in answers[0]["headers"]}
        return Answer(answers[0]["status"], headers.get(b"retry-after"))

    async def _live(self, started: Callable[[], None]) -> None:
        async def receive() -> MutableMapping[str, Any]:
            if started_once:
                await self._ends.wait()
            started_once.append(True)
            return {"type": "lifespan"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                started()

        started_once: list[bool] = []
        await self._app({"type": "lifespan"}, receive, send)

    async def _drained(self) -> None:
        self._listens = False
        while self._calls:  # noqa: ASYNC110 - a set, of what comes and goes
            await asyncio.sleep(TICK_S)
        self._ends.set()

    async def _cancelled(self) -> None:
        self._listens = False
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class MemoryGateways:
    """The gateway of this very process: no port, no Kafka, and deadlines short enough for a unit test."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self._log = log or MemoryLog()

    def start(self, source: WebhookSource) -> Gateway:
        return MemoryGateway(source, self._log)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        self._log.is_stalled = True
        try:
            yield
        finally:
            self._log.go_on()

    def records(self, topic: str) -> list[Record]:
        return self._log.records(topic)


def _scope(path: str, sent: Sent) -> MutableMapping[str, Any]:
    given = {"host": "gateway"} | {name.lower(): value for name, value in sent.headers.items()}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    return {
        "type": "http", "scheme": "http", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": sent.query.encode(), "headers": headers, "client": ("127.0.0.1", 0),
    }  # fmt: skip
