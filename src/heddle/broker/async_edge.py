"""An idempotent producer that lives on an event loop, for edges such as the webhook gateway. Through aiokafka.

Never for workers: aiokafka commits transactional offsets without a group generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from heddle.broker import advice
from heddle.broker.log import ANY_PARTITION, Outgoing
from heddle.errors import AuthError, BrokerDownError, BrokerError, HeddleError, UsageError

START_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 10.0
_HANDSHAKE_TIMEOUT_S = 2.0
_ALERT_WAIT_S = 0.5
_LINGER_MS = 2
_BATCH_BYTES = 256 * 2**10
_MAX_REQUEST_BYTES = 64 * 2**20  # the topic's own limit decides

# What matters in aiokafka's log lines is in the errors that we raise.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

_CREDENTIALS = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
_RULES = (
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
)
_REFUSED = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.UnknownTopicOrPartitionError,
    kafka.InvalidTopicError,
    kafka.CorruptRecordException,
)
# After these the producer has no identity any more with which to go on.
_ENDS_PRODUCER = (
    kafka.OutOfOrderSequenceNumber,
    kafka.InvalidProducerEpoch,
    kafka.UnknownProducerId,
    kafka.ProducerFenced,
    kafka.ProducerClosed,
)


class AsyncProducer:
    """Appends single records, durable on all in-sync replicas, batched between concurrent callers.

    `config` is librdkafka's (`Settings.kafka_config()`): bootstrap.servers, security.protocol, sasl.*, ssl.* count.
    All methods run on one event loop. Keys go to the partition where librdkafka's `murmur2_random` puts them."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = dict(config)
        self._options = connection_options(config)
        self._producer: Any = None
        self._replacing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises `BrokerDownError` (call it again) or `AuthError`."""
        self._producer = await _connected(self._options)

    async def send(self, record: Outgoing) -> tuple[int, int]:
        """(partition, offset) once every in-sync replica has the record.

        Raises `BrokerDownError` when that is unknown or untrue after `DELIVERY_TIMEOUT_S`, `AuthError`, or
        `BrokerError` for a record that the topic will not take. Cancelled, the record may land all the same."""
        producer = self._producer
        if producer is None:
            raise BrokerDownError("this producer is not connected", hint="start it first")
        topic, key, value, headers, partition = record
        where = None if partition == ANY_PARTITION else partition
        try:
            delivery = await producer.send(topic, value, key, where, headers=list(headers))
            landed = await delivery
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, _ENDS_PRODUCER) or type(error) is kafka.KafkaError:
                self._replace(producer)
            raise _failure(error, f"producing to {topic}") from error
        return landed.partition, landed.offset

    async def renew(self, config: Mapping[str, str]) -> None:
        """Connect as `config` says, then leave the connection before it: what was sent there lands there. Nothing when
        it says the same. Raises as `start` does, and stays as it was then."""
        if config == self._config:
            return
        options = connection_options(config)
        if self._producer is None:  # it is being replaced, perhaps with these already; the next call knows
            self._options = options
            return
        fresh = await _connected(options)
        before, self._producer = self._producer, fresh
        self._options, self._config = options, dict(config)
        if before is not None:
            await before.stop()

    async def reachable(self, timeout_s: float) -> bool:
        """Whether a broker answers a metadata request within the time."""
        if self._producer is None:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                return bool(await self._producer.client.force_metadata_update())
        except (kafka.KafkaError, OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Deliver what is under way, then disconnect."""
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    def _replace(self, broken: Any) -> None:
        """Once per broken producer; until the new one is there, `send` raises `BrokerDownError`."""
        if broken is self._producer:
            self._producer = None
            self._replacing = asyncio.create_task(self._reconnect(broken))

    async def _reconnect(self, broken: Any) -> None:
        await asyncio.gather(broken.stop(), return_exceptions=True)
        while self._producer is None:
            try:
                await self.start()
            except HeddleError:
                await asyncio.sleep(1.0)


async def _connected(options: Mapping[str, Any]) -> AIOKafkaProducer:
    """Raises `BrokerDownError` or `AuthError`."""
    producer = AIOKafkaProducer(
        **options,
        acks="all",
        enable_idempotence=True,
        linger_ms=_LINGER_MS,
        max_batch_size=_BATCH_BYTES,
        max_request_size=_MAX_REQUEST_BYTES,
        request_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
    )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await producer.start()
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        await producer.stop()
        raise await _refusal(options) or _failure(error, "connecting") from error
    except BaseException:
        await producer.stop()
        raise
    return producer


async def _refusal(given: Mapping[str, Any]) -> AuthError | None:
    """aiokafka tells "no broker" from "refused" only in its log: ask once more, by hand."""
    options = {name: value for name, value in given.items() if name != "bootstrap_servers"}
    for address in given["bootstrap_servers"].split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            await _shake_hands(host, int(port), options.get("ssl_context"))
            connection = await create_conn(host, int(port), request_timeout_ms=2000, **options)
        except _CREDENTIALS as error:
            return AuthError(f"connecting: refused by Kafka ({_words(error)})", hint=advice.CREDENTIALS)
        except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
            if isinstance(error, ssl.SSLError) and advice.is_about_certificates(str(error)):
                return AuthError(f"connecting: TLS with Kafka fails ({error})", hint=advice.CERTIFICATES)
            continue
        connection.close()
    return None


async def _shake_hands(host: str, port: int, context: ssl.SSLContext | None) -> None:
    """Raises `ssl.SSLError` when the broker distrusts us: in TLS 1.3 it says so after the client's handshake is done,
    to the first read. A broker that trusts us has nothing to say."""
    if context is None:
        return
    async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        async with asyncio.timeout(_ALERT_WAIT_S):
            await reader.read(1)
    except TimeoutError:
        return
    finally:
        writer.close()


def connection_options(config: Mapping[str, str]) -> dict[str, Any]:
    """librdkafka's connection settings in aiokafka's words. Raises `UsageError` for what is wrong or not possible."""
    protocol = config.get("security.protocol", "plaintext").upper()
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise UsageError(f"security.protocol {protocol} does not exist", hint="correct HEDDLE_KAFKA")
    options: dict[str, Any] = {
        "bootstrap_servers": config.get("bootstrap.servers", ""),
        "client_id": config.get("client.id", "heddle-edge"),
        "security_protocol": protocol,
    }
    if protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = tls_context(config)
    return options | (_sasl_options(config) if protocol.startswith("SASL_") else {})


def _sasl_options(config: Mapping[str, str]) -> dict[str, Any]:
    mechanism = config.get("sasl.mechanism") or config.get("sasl.mechanisms") or "GSSAPI"
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise UsageError(
            f"the gateway cannot authenticate with {mechanism}",
            hint="give it SCRAM, PLAIN over TLS, or a client certificate (security.protocol=SSL)",
        )
    if not config.get("sasl.username") or not config.get("sasl.password"):
        raise UsageError(f"{mechanism} needs sasl.username and sasl.password", hint="set HEDDLE_KAFKA_PASSWORD")
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": config["sasl.username"],
        "sasl_plain_password": config["sasl.password"],
    }


def tls_context(config: Mapping[str, str]) -> ssl.SSLContext:
    """From ssl.ca.location or .pem, ssl.certificate.location, ssl.key.location and .password, and the two switches."""
    authority = config.get("ssl.ca.location")
    if authority == "probe":  # librdkafka's word for the system's authorities
        authority = None
    with _usable("ssl.ca.location"):
        context = ssl.create_default_context(cafile=authority or None, cadata=config.get("ssl.ca.pem") or None)
    if config.get("ssl.certificate.location"):
        with _usable("ssl.certificate.location and ssl.key.location"):
            context.load_cert_chain(
                config["ssl.certificate.location"],
                config.get("ssl.key.location") or None,
                config.get("ssl.key.password") or None,
            )
    is_verified = config.get("enable.ssl.certificate.verification", "true").lower() != "false"
    if not is_verified or config.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if not is_verified:
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _usable(names: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"Kafka settings: {names} cannot be used: {error}", hint="correct HEDDLE_KAFKA") from error


def _failure(error: Exception, doing: str) -> HeddleError:
    if isinstance(error, _CREDENTIALS + _RULES):
        hint = advice.RULES if isinstance(error, _RULES) else advice.CREDENTIALS
        return AuthError(f"{doing}: refused by Kafka ({_words(error)})", hint=hint)
    if isinstance(error, _REFUSED):
        return BrokerError(f"{doing}: {_words(error)}", hint="run `heddle apply`, or check the topic's limits")
    return BrokerDownError(f"{doing}: no answer from Kafka ({_words(error)})", hint=advice.DOWN)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
