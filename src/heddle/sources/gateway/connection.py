"""The gateway's end of the log: connect in the background, append within the deadline, say whether it is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

import structlog

from heddle.broker.log import Outgoing
from heddle.errors import AuthError, BrokerDownError, BrokerError, HeddleError
from heddle.settings import Settings
from heddle.sources.gateway.responses import unavailable

FIRST_WAIT_S = 3.0
RETRY_PAUSE_S = 1.0
READY_TIMEOUT_S = 2.0

log = structlog.get_logger("heddle.gateway")


class RawLog(Protocol):
    """What the gateway needs of an asynchronous producer (`heddle.broker.async_edge.AsyncProducer`)."""

    async def start(self) -> None:
        """Raises `BrokerDownError` or `AuthError`, after which it may be called again."""

    async def send(self, record: Outgoing) -> tuple[int, int]:
        """(partition, offset) once every in-sync replica has it. Raises `BrokerDownError`, `AuthError`, or
        `BrokerError` for a record that the topic will not take."""

    async def renew(self, config: Mapping[str, str]) -> None:
        """Log in as `config` says from now on; nothing when it says the same. Raises as `start` does, and goes on as
        before then."""

    async def reachable(self, timeout_s: float) -> bool:
        """Whether a broker answers a metadata request within the time."""

    async def stop(self) -> None: ...


class Connection:
    """A gateway starts without a broker and answers 503 until one is there."""

    def __init__(self, raw_log: RawLog) -> None:
        self._raw_log = raw_log
        self._connecting: asyncio.Task[None] | None = None
        self._told: set[tuple[str, type]] = set()
        self.connected = False

    async def open(self) -> None:
        """Returns when connected, or after a short wait while connecting goes on."""
        self._connecting = asyncio.create_task(self._connect())
        await asyncio.wait([self._connecting], timeout=FIRST_WAIT_S)
        if self._connecting.done():
            self._connecting.result()

    async def close(self) -> None:
        """Let what was sent land, then leave."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self.connected:
            self.connected = False
            await self._raw_log.stop()

    async def renew(self, settings: Settings) -> None:
        """With the password of this moment, where that is a secret. Raises nothing."""
        if not settings.kafka_password_secret:
            return
        try:
            await self._raw_log.renew(await asyncio.to_thread(settings.kafka_config))
        except HeddleError as error:
            self._tell(error, "renewing")

    async def append(self, record: Outgoing, deadline: float) -> None:
        """Returns once the record is durable. Refuses with 503 otherwise; the record may land all the same."""
        if not self.connected:
            raise unavailable("broker-down")
        try:
            async with asyncio.timeout_at(deadline):
                await self._raw_log.send(record)
        except TimeoutError:
            raise unavailable("deadline") from None
        except BrokerDownError:
            raise unavailable("broker-down") from None
        except (AuthError, BrokerError) as error:
            self._tell(error, record.topic)
            raise unavailable("broker-refused") from None

    def _tell(self, error: HeddleError, topic: str = "") -> None:
        """Once for each mistake that a person must mend; the counters say how often it happens."""
        mistake = (topic, type(error.__cause__))
        if mistake not in self._told:
            self._told.add(mistake)
            log.error("gateway.broker_refused", error=str(error), hint=error.hint)

    async def ready(self) -> bool:
        """Whether a broker answers now."""
        return self.connected and await self._raw_log.reachable(READY_TIMEOUT_S)

    async def _connect(self) -> None:
        told = False
        while True:
            try:
                await self._raw_log.start()
            except AuthError as error:
                self._tell(error)
                await asyncio.sleep(RETRY_PAUSE_S)
            except HeddleError as error:
                if not told:
                    log.warning("gateway.no_broker", error=error.code, hint="deliveries get 503 until it answers")
                told = True
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                self.connected = True
                return
