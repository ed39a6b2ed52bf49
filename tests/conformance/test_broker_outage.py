"""What only a real broker can do: not answer, refuse us, answer too late."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from broker_world import TIMEOUT_S, KafkaWorld, take, values_of
from confluent_kafka import KafkaError
from pydantic import SecretStr

from heddle.broker.async_edge import AsyncProducer, connection_options
from heddle.broker.kafka import KafkaBroker
from heddle.broker.kafka.failures import Reasons, failure
from heddle.broker.kafka.producer import KafkaProducer
from heddle.broker.log import NEVER_COMMITTED, Outgoing, Position
from heddle.errors import (
    AuthError,
    BrokerDownError,
    BrokerError,
    CommitUnknownError,
    FencedError,
    HeddleError,
    OffsetLostError,
    StaleGenerationError,
    UsageError,
)
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

NO_BROKER = "127.0.0.1:9"
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "u"}


@contextlib.contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """The broker keeps its connections and answers nothing."""
    pid = stack.kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.stack
def test_a_commit_without_answer_is_unknown_and_can_be_asked_again(stack: Stack, kafka_world: KafkaWorld) -> None:
    topic = kafka_world.topic()
    producer = kafka_world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, b"k", b"once")])
    placed = producer.produce_placed([Outgoing(topic, b"k", b"placed")])
    with frozen(stack), pytest.raises(CommitUnknownError):
        producer.commit(0.5)
    producer.commit(TIMEOUT_S)
    assert [(r.value, r.offset) for r in kafka_world.read(topic)] == [(b"once", 0), (b"placed", 1)]
    assert placed == [1]


@pytest.mark.stack
def test_places_are_known_after_a_commit_of_which_only_the_answer_was_missing(
    stack: Stack, kafka_world: KafkaWorld, until: Callable[..., None]
) -> None:
    topic, producer = kafka_world.topic(), kafka_world.producer()
    producer.begin()
    placed = producer.produce_placed([Outgoing(topic, b"k", b"0"), Outgoing(topic, b"k", b"1")])
    until(lambda: kafka_world.written(topic) == 2)
    with frozen(stack), pytest.raises(CommitUnknownError):
        producer.commit(0.5)
    producer.commit(TIMEOUT_S)
    assert placed == [0, 1]


class AcknowledgedByImplication:
    """What librdkafka reports of a record whose acknowledgement was lost while that of a later one came."""

    def offset(self) -> None:
        return None


@pytest.mark.stack
def test_what_has_no_known_place_is_not_committed(kafka_world: KafkaWorld) -> None:
    topic, producer = kafka_world.topic(), kafka_world.producer()
    producer.begin()
    placed = producer.produce_placed([Outgoing(topic, b"k", b"somewhere")])
    assert isinstance(producer, KafkaProducer)
    producer._place(placed, 0, None, AcknowledgedByImplication())  # type: ignore[arg-type]
    with pytest.raises(BrokerError, match="where"):
        producer.commit(TIMEOUT_S)
    producer.abort(TIMEOUT_S)
    producer.begin()
    placed = producer.produce_placed([Outgoing(topic, b"k", b"known")])
    producer.commit(TIMEOUT_S)
    assert [(r.value, r.offset) for r in kafka_world.read(topic)] == [(b"known", placed[0])]


@pytest.mark.stack
def test_a_consumer_waits_through_an_outage(stack: Stack, kafka_world: KafkaWorld) -> None:
    topic = kafka_world.topic()
    owner = kafka_world.owner(topic, offsets={0: 0})
    with frozen(stack):
        assert owner.consume(10, 0.02) == []
        with pytest.raises(BrokerDownError):
            owner.committed([0], 0.5)
    kafka_world.write(topic, b"after")
    assert values_of(take(owner, 1)) == [b"after"]


@pytest.mark.stack
def test_membership_lost_in_the_background_commits_nothing(kafka_world: KafkaWorld, until: Callable[..., None]) -> None:
    """Between losing its membership and the next poll a client holds a generation below zero, which the coordinator
    takes unchecked, whoever owns the partition by then."""
    topic, group = kafka_world.topic(), kafka_world.name("g")
    owner, producer = kafka_world.owner(topic, group, offsets={0: 0}), kafka_world.producer()
    kept = owner.group_metadata()
    kafka_world.expire(owner)
    until(lambda: owner.group_metadata() != kept)
    producer.begin()
    with pytest.raises(StaleGenerationError):
        producer.send_offsets(topic, {0: Position(5)}, owner.group_metadata())
    producer.abort(TIMEOUT_S)
    assert kafka_world.admin.group_positions(group, topic, [0]) == {0: Position(NEVER_COMMITTED)}


@pytest.mark.stack
def test_the_event_loop_producer_waits_through_an_outage(stack: Stack, kafka_world: KafkaWorld) -> None:
    topic = kafka_world.topic()

    async def scenario() -> tuple[bool, bool, tuple[int, int]]:
        producer = AsyncProducer({"bootstrap.servers": stack.bootstrap_servers})
        with pytest.raises(BrokerDownError):
            await producer.send(Outgoing(topic, b"k", b"not started"))
        assert not await producer.reachable(1.0)
        await producer.start()
        assert await producer.send(Outgoing(topic, b"k", b"before", [("a", None), ("a", b"1")])) == (0, 0)
        with frozen(stack):
            during = await producer.reachable(0.3)
            sending = asyncio.create_task(producer.send(Outgoing(topic, b"k", b"during")))
            done, _ = await asyncio.wait([sending], timeout=0.3)
            assert not done
        landed = await sending
        after = await producer.reachable(5.0)
        with pytest.raises(BrokerError, match="MessageSizeTooLarge"):
            await producer.send(Outgoing(topic, b"k", b"x" * 2_000_000))
        await producer.stop()
        return during, after, landed

    assert asyncio.run(scenario()) == (False, True, (0, 1))
    assert kafka_world.values(topic) == [b"before", b"during"]
    assert kafka_world.read(topic)[0].headers == [("a", None), ("a", b"1")]


def clients(broker: KafkaBroker) -> list[Callable[[], object]]:
    """One call of each kind of client."""

    def consume() -> None:
        consumer = broker.consumer("g", "t")
        try:
            consumer.consume(1, 0.01)
            consumer.committed([0], 1.0)
        finally:
            consumer.close()

    def read() -> None:
        reader = broker.reader()
        try:
            reader.last_stable_offset("t", 0, 1.0)
        finally:
            reader.close()

    def init() -> None:
        producer = broker.producer("x")
        try:
            producer.init(1.0)
        finally:
            producer.close()

    return [consume, read, init]


def test_no_broker_is_told_with_its_reason() -> None:
    for call in clients(KafkaBroker(Settings(bootstrap_servers=NO_BROKER))):
        with pytest.raises(BrokerDownError, match="refused") as caught:
            call()
        assert caught.value.hint

    async def start() -> None:
        await AsyncProducer({"bootstrap.servers": NO_BROKER}).start()

    with pytest.raises(BrokerDownError):
        asyncio.run(start())


@pytest.mark.stack
def test_refused_credentials_are_no_outage(stack: Stack) -> None:
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, kafka=SASL, kafka_password=SecretStr("hidden"))
    broker = KafkaBroker(settings)
    asking = [lambda: broker.admin().topics(["t"]), lambda: broker.admin().topic_names()]
    for call in [*clients(broker), *asking]:
        with pytest.raises(AuthError) as caught:
            call()
        assert "hidden" not in str(caught.value)

    async def start() -> None:
        await AsyncProducer(settings.kafka_config()).start()

    with pytest.raises(AuthError):
        asyncio.run(start())


@pytest.mark.parametrize("config", [{"security.protocol": "nonsense"}, {"no.such.setting": "1"}])
def test_a_wrong_setting_is_a_usage_error(config: dict[str, str]) -> None:
    broker = KafkaBroker(Settings(bootstrap_servers=NO_BROKER, kafka=config))
    for make in (broker.admin, broker.reader, lambda: broker.producer("x"), lambda: broker.consumer("g", "t")):
        with pytest.raises(UsageError, match="Kafka settings"):
            make()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._FENCED, FencedError),
        (KafkaError.PRODUCER_FENCED, FencedError),
        (KafkaError.INVALID_PRODUCER_EPOCH, FencedError),
        (KafkaError.ILLEGAL_GENERATION, StaleGenerationError),
        (KafkaError.UNKNOWN_MEMBER_ID, StaleGenerationError),
        (KafkaError.REBALANCE_IN_PROGRESS, StaleGenerationError),
        (KafkaError.FENCED_INSTANCE_ID, StaleGenerationError),
        (KafkaError._AUTO_OFFSET_RESET, OffsetLostError),
        (KafkaError.OFFSET_OUT_OF_RANGE, OffsetLostError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AuthError),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, AuthError),
        (KafkaError._AUTHENTICATION, AuthError),
        (KafkaError._TRANSPORT, BrokerDownError),
        (KafkaError._ALL_BROKERS_DOWN, BrokerDownError),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, BrokerDownError),
        (KafkaError.INVALID_TXN_STATE, BrokerError),
    ],
)
def test_each_code_has_the_class_by_which_the_engine_decides(code: int, expected: type[HeddleError]) -> None:
    assert type(failure(KafkaError(code), "committing", Reasons())) is expected


def test_the_gateway_speaks_of_the_same_connection() -> None:
    options = connection_options({**SASL, "bootstrap.servers": "a:1,b:2", "sasl.password": "p"})
    assert options == {
        "bootstrap_servers": "a:1,b:2",
        "client_id": "heddle-edge",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
    tls = {"security.protocol": "ssl", "ssl.ca.location": "probe"}
    assert connection_options(tls)["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    unnamed = connection_options({**tls, "ssl.endpoint.identification.algorithm": "none"})["ssl_context"]
    assert (unnamed.check_hostname, unnamed.verify_mode) == (False, ssl.CERT_REQUIRED)
    unverified = connection_options({**tls, "enable.ssl.certificate.verification": "false"})["ssl_context"]
    assert unverified.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    "config",
    [
        {"security.protocol": "nonsense"},
        {"security.protocol": "SSL", "ssl.ca.location": "absent.pem"},
        {**SASL, "sasl.mechanisms": "OAUTHBEARER"},
        SASL,
    ],
)
def test_what_the_gateway_cannot_do_is_a_usage_error(config: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        AsyncProducer(config)
