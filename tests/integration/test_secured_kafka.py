"""A cluster as companies run it serves by settings alone: TLS, SCRAM or client certificates, and access rules.

`WORKER_RULES`, `OPERATOR_RULES`, `GATEWAY_RULES` and `DEPLOYER_RULES` are what to ask of a cluster's owner. The tests
show that they are enough, and of all but the deployer's that none can be left out.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from certificates import Authority
from secured_kafka import AclOperation, ResourceType, Rule, SecuredKafka, secured_kafka

from heddle.broker.async_edge import AsyncProducer
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import BEGINNING, Consumer, Outgoing, Position, Record, TopicSpec
from heddle.delivery.gateway_audit import GatewayAudit, gateway_audit_topic
from heddle.delivery.subscription import Subscription
from heddle.errors import AuthError, UsageError
from heddle.secrets import Use, secret
from heddle.settings import Settings, load_settings
from heddle.sources.signatures import GitHub
from heddle.sources.webhook import WebhookSource

TIMEOUT_S = 20.0
REFUSED_WITHIN_S = 10.0
PASSWORD = "correct horse battery staple"
WRONG_PASSWORD = "incorrect horse battery staple"

FLOW = Subscription("deal-to-invoice", "crm.deal.v1", ("billing.invoice.v1",))
TRANSACTIONAL_ID = FLOW.transactional_id("0")
SOURCE = WebhookSource(
    "crm", path="/crm", signature=GitHub(secret("crm/webhook")), emits=dict, convert=lambda _: (), owner="tests"
)
RAW_TOPIC, GATEWAY_AUDIT = SOURCE.raw_topic, gateway_audit_topic(SOURCE)
FORBIDDEN = "hr.salary.v1"
OWN_TOPICS = (FLOW.dead_letter_topic, FLOW.command_topic, FLOW.audit_topic)
TOPICS = (FLOW.topic, *FLOW.writes, *OWN_TOPICS, RAW_TOPIC, GATEWAY_AUDIT)

_TOPIC, _GROUP, _TRANSACTIONAL_ID = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
_READ, _WRITE = AclOperation.READ, AclOperation.WRITE
_SETTINGS = AclOperation.DESCRIBE_CONFIGS

# A worker of one flow. To read or write implies to describe. A sink writes to no topic but these of its own.
WORKER_RULES = (
    Rule(_TOPIC, FLOW.topic, _READ),
    Rule(_TOPIC, FLOW.topic, _SETTINGS),
    Rule(_TOPIC, FLOW.writes[0], _WRITE),
    Rule(_TOPIC, FLOW.writes[0], _SETTINGS),  # how large a record may be
    Rule(_TOPIC, FLOW.dead_letter_topic, _WRITE),
    Rule(_TOPIC, FLOW.dead_letter_topic, _READ),  # which keys wait
    Rule(_TOPIC, FLOW.dead_letter_topic, _SETTINGS),
    Rule(_TOPIC, FLOW.command_topic, _READ),  # what operators ask of it; it writes none
    Rule(_TOPIC, FLOW.command_topic, _SETTINGS),
    Rule(_TOPIC, FLOW.audit_topic, _WRITE),
    Rule(_TOPIC, FLOW.audit_topic, _READ),  # its last record is the truth
    Rule(_TOPIC, FLOW.audit_topic, _SETTINGS),
    Rule(_GROUP, FLOW.group, _READ),
    Rule(_TRANSACTIONAL_ID, TRANSACTIONAL_ID, _WRITE),  # one for each instance, or the prefix "deal-to-invoice."
)
# Whoever runs `heddle dlq`: reads what is parked, asks its owner to act, and reads what came of it.
OPERATOR_RULES = (
    Rule(_TOPIC, FLOW.topic, _SETTINGS),
    Rule(_TOPIC, FLOW.topic, AclOperation.DESCRIBE),
    Rule(_TOPIC, FLOW.dead_letter_topic, _READ),
    Rule(_TOPIC, FLOW.dead_letter_topic, _SETTINGS),
    Rule(_TOPIC, FLOW.command_topic, _WRITE),
    Rule(_TOPIC, FLOW.command_topic, _READ),  # which jobs there are
    Rule(_TOPIC, FLOW.audit_topic, _READ),
    Rule(_TOPIC, FLOW.audit_topic, _SETTINGS),
    Rule(_GROUP, FLOW.group, AclOperation.DESCRIBE),  # whether a worker is there
    Rule(_TRANSACTIONAL_ID, "heddle-operator.", _WRITE, is_prefix=True),
)
# The webhook gateway, for each source.
GATEWAY_RULES = (
    Rule(_TOPIC, RAW_TOPIC, _WRITE),
    Rule(_TOPIC, GATEWAY_AUDIT, _WRITE),
    Rule(_TOPIC, GATEWAY_AUDIT, _READ),  # its last record is what the next one continues
    Rule(_TOPIC, GATEWAY_AUDIT, _SETTINGS),
    Rule(_TRANSACTIONAL_ID, "crm.gateway", _WRITE),
)
# Whoever runs `heddle plan` and `heddle apply`.
DEPLOYER_RULES = tuple(
    Rule(_TOPIC, topic, operation)
    for topic in TOPICS
    for operation in (AclOperation.CREATE, AclOperation.DESCRIBE, _SETTINGS, AclOperation.ALTER_CONFIGS)
)

RULES = {"worker": WORKER_RULES, "operator": OPERATOR_RULES, "gateway": GATEWAY_RULES, "deployer": DEPLOYER_RULES}

Connect = Callable[..., Settings]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SecuredKafka]:
    with secured_kafka() as kafka:
        for user, rules in RULES.items():
            kafka.add_user(user, PASSWORD, rules)
        with closing(owners(kafka).admin()) as admin:
            admin.create_topics([TopicSpec(FORBIDDEN, 1, replication=1)])
        with closing(KafkaBroker(scram(kafka, "deployer")).admin()) as admin:
            admin.create_topics([TopicSpec(topic, 1, replication=1) for topic in TOPICS])
        for topic in OWN_TOPICS:
            feed(kafka, b"there already", topic)  # of an empty topic nothing is read, and so nothing refused
        yield kafka


def owners(kafka: SecuredKafka) -> KafkaBroker:
    """The cluster's owner: may do everything, comes by the inner listener."""
    return KafkaBroker(Settings(bootstrap_servers=kafka.bootstrap_servers))


def from_environment(servers: str, kafka: dict[str, str], password: str | None = None) -> Settings:
    """As the README says to set them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEDDLE_BOOTSTRAP_SERVERS", servers)
        environment.setenv("HEDDLE_KAFKA", json.dumps(kafka))
        if password is not None:
            environment.setenv("HEDDLE_KAFKA_PASSWORD", password)
        return load_settings()


def scram(
    kafka: SecuredKafka, user: str, password: str | None = PASSWORD, authority: Authority | None = None
) -> Settings:
    trusted = authority or kafka.authority
    return from_environment(
        f"127.0.0.1:{kafka.sasl_port}",
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": user,
            "ssl.ca.location": str(trusted.write(kafka.data_dir)),
        },
        password,
    )


def mutual_tls(kafka: SecuredKafka, user: str | None, authority: Authority | None = None) -> Settings:
    """The user is the common name of the client's certificate; None shows none."""
    config = {"security.protocol": "SSL", "ssl.ca.location": str(kafka.authority.write(kafka.data_dir))}
    if user is not None:
        identity = (authority or kafka.authority).issue(kafka.data_dir, user)
        config |= {"ssl.certificate.location": str(identity.certificate), "ssl.key.location": str(identity.key)}
    return from_environment(f"127.0.0.1:{kafka.mtls_port}", config)


def administer(settings: Settings, topic: str = FLOW.topic) -> None:
    with closing(KafkaBroker(settings).admin()) as admin:
        admin.topics([topic])


def create(settings: Settings, topic: str = "new.topic.v1") -> None:
    with closing(KafkaBroker(settings).admin()) as admin:
        admin.create_topics([TopicSpec(topic, 1, replication=1)])


def consume(settings: Settings, topic: str = FLOW.topic, group: str = FLOW.group) -> None:
    with closing(KafkaBroker(settings).consumer(group, topic)) as consumer:
        until_assigned(consumer)


def read(settings: Settings, topic: str = FLOW.dead_letter_topic) -> list[Record]:
    with closing(KafkaBroker(settings).reader()) as reader:
        return reader.read_range(topic, 0, TIMEOUT_S, settled=True)


def follow(settings: Settings, topic: str = FLOW.topic) -> None:
    with closing(KafkaBroker(settings).reader()) as reader:
        reader.assign(topic, {0: BEGINNING})
        reader.consume(1, 0.01)


def produce(settings: Settings, topic: str = FLOW.writes[0], transactional_id: str = TRANSACTIONAL_ID) -> None:
    with closing(KafkaBroker(settings).producer(transactional_id)) as producer:
        producer.init(TIMEOUT_S)
        producer.begin()
        producer.produce([Outgoing(topic, b"k", b"v")])
        producer.commit(TIMEOUT_S)


def send(settings: Settings, topic: str = RAW_TOPIC, value: bytes = b"v") -> tuple[int, int]:
    async def scenario() -> tuple[int, int]:
        producer = AsyncProducer(settings.kafka_config())
        try:
            await producer.start()
            return await producer.send(Outgoing(topic, b"k", value))
        finally:
            await producer.stop()

    return asyncio.run(scenario())


EVERY_CLIENT = [administer, create, consume, read, follow, produce, send]


def until_assigned(consumer: Consumer) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not consumer.assignment():
        assert consumer.consume(1, 0.01) == []
        assert time.monotonic() < deadline, "no partition was assigned"


def settle_one(settings: Settings) -> tuple[Record, Position]:
    """What a worker asks of Kafka in its life, in its order: describe its topics, join, take the position, see how its
    audit trail ends, restore its gates, look for commands, and settle one batch with an output, a dead letter and an
    audit record. Returns the input and the new position."""
    broker = KafkaBroker(settings)
    with closing(broker.admin()) as admin:
        admin.topics([FLOW.topic, *FLOW.writes, *OWN_TOPICS])
    with (
        closing(broker.consumer(FLOW.group, FLOW.topic)) as consumer,
        closing(broker.producer(TRANSACTIONAL_ID)) as producer,
        closing(broker.reader()) as reader,
    ):
        producer.init(TIMEOUT_S)
        until_assigned(consumer)
        position = consumer.committed([0], TIMEOUT_S)[0]
        reader.tails(FLOW.audit_topic, [0], TIMEOUT_S)
        reader.read_range(FLOW.dead_letter_topic, 0, TIMEOUT_S)
        reader.read_range(FLOW.command_topic, 0, TIMEOUT_S)
        consumer.start({0: max(position.offset, consumer.watermarks(0, TIMEOUT_S)[0])})
        record = first(consumer)
        producer.begin()
        producer.produce(
            Outgoing(topic, record.key, record.value)
            for topic in (*FLOW.writes, FLOW.dead_letter_topic, FLOW.audit_topic)
        )
        producer.send_offsets(FLOW.topic, {0: Position(record.offset + 1, "meta")}, consumer.group_metadata())
        producer.commit(TIMEOUT_S)
        return record, consumer.committed([0], TIMEOUT_S)[0]


def operate(settings: Settings) -> None:
    """What `heddle dlq` asks of Kafka: list, see who works, send a command, and follow what comes of it."""
    broker = KafkaBroker(settings)
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader:
        admin.topics([FLOW.topic, FLOW.dead_letter_topic, FLOW.audit_topic])
        admin.group_members([FLOW.group])
        for topic in OWN_TOPICS:
            reader.read_range(topic, 0, TIMEOUT_S)
    produce(settings, FLOW.command_topic, f"heddle-operator.{uuid.uuid4().hex}")


def put_on_record(settings: Settings) -> None:
    """What a gateway does before it uses a secret."""
    uses = (Use("crm/webhook", "vault", "7"),)
    GatewayAudit([SOURCE], KafkaBroker(settings), "0", b"key", lambda: uses).tell(SOURCE)


def first(consumer: Consumer) -> Record:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        records = consumer.consume(1, 0.01)
        if records:
            return records[0]
        assert time.monotonic() < deadline, "no record came"


def feed(cluster: SecuredKafka, value: bytes, topic: str = FLOW.topic) -> None:
    with closing(owners(cluster).producer("feeder")) as producer:
        producer.init(TIMEOUT_S)
        producer.begin()
        producer.produce([Outgoing(topic, b"default/D-1", value)])
        producer.commit(TIMEOUT_S)


def values(cluster: SecuredKafka, topic: str) -> list[bytes | None]:
    with closing(owners(cluster).reader()) as reader:
        return [record.value for record in reader.read_range(topic, 0, TIMEOUT_S, settled=True)]


def refusal(call: Callable[[], object]) -> AuthError:
    """The `AuthError` that `call` ends with, soon, with advice, and with no password anywhere in its chain."""
    started = time.monotonic()
    with pytest.raises(AuthError) as caught:
        call()
    assert time.monotonic() - started < REFUSED_WITHIN_S
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert PASSWORD not in told
    assert WRONG_PASSWORD not in told
    assert caught.value.hint
    return caught.value


@pytest.mark.stack
def test_a_deployer_changes_a_topic_with_its_rules(cluster: SecuredKafka) -> None:
    wanted = {"retention.ms": "86400000"}
    with closing(KafkaBroker(scram(cluster, "deployer")).admin()) as admin:
        admin.alter_topic(FLOW.topic, wanted)
        deadline = time.monotonic() + TIMEOUT_S
        while admin.topics([FLOW.topic])[FLOW.topic].config != wanted:  # the broker learns of it a moment later
            assert time.monotonic() < deadline, "the change is not seen"


@pytest.mark.stack
@pytest.mark.parametrize("connect", [scram, mutual_tls])
def test_a_worker_settles_with_its_rules(cluster: SecuredKafka, connect: Connect) -> None:
    feed(cluster, uuid.uuid4().bytes)
    record, position = settle_one(connect(cluster, "worker"))
    assert position == Position(record.offset + 1, "meta")
    for topic in (*FLOW.writes, FLOW.dead_letter_topic, FLOW.audit_topic):
        assert values(cluster, topic)[-1] == record.value


@pytest.mark.stack
@pytest.mark.parametrize("left_out", WORKER_RULES, ids=str)
def test_a_worker_without_one_of_its_rules_is_told_which(cluster: SecuredKafka, left_out: Rule) -> None:
    user = f"worker-{WORKER_RULES.index(left_out)}"
    cluster.add_user(user, PASSWORD, (rule for rule in WORKER_RULES if rule is not left_out))
    feed(cluster, b"waits")
    error = refusal(lambda: settle_one(scram(cluster, user)))
    assert left_out.name in str(error)
    assert "ACL" in error.hint


@pytest.mark.stack
def test_an_operator_asks_and_follows_with_its_rules(cluster: SecuredKafka) -> None:
    before = len(values(cluster, FLOW.command_topic))
    operate(scram(cluster, "operator"))
    assert len(values(cluster, FLOW.command_topic)) == before + 1


@pytest.mark.stack
@pytest.mark.parametrize("left_out", OPERATOR_RULES, ids=str)
def test_an_operator_without_one_of_its_rules_is_told_which(cluster: SecuredKafka, left_out: Rule) -> None:
    user = f"operator-{OPERATOR_RULES.index(left_out)}"
    cluster.add_user(user, PASSWORD, (rule for rule in OPERATOR_RULES if rule is not left_out))
    assert left_out.name in str(refusal(lambda: operate(scram(cluster, user))))


@pytest.mark.stack
@pytest.mark.parametrize("connect", [scram, mutual_tls])
def test_the_gateway_sends_with_a_password_or_a_certificate(cluster: SecuredKafka, connect: Connect) -> None:
    value = connect.__name__.encode()
    send(connect(cluster, "gateway"), value=value)
    assert value in values(cluster, RAW_TOPIC)


@pytest.mark.stack
def test_the_gateway_puts_its_secrets_on_record_with_its_rules(cluster: SecuredKafka) -> None:
    put_on_record(scram(cluster, "gateway"))
    assert b'"version":"7"' in (values(cluster, GATEWAY_AUDIT)[-1] or b"")


@pytest.mark.stack
@pytest.mark.parametrize("left_out", GATEWAY_RULES[1:], ids=str)
def test_a_gateway_without_one_of_its_rules_is_told_which(cluster: SecuredKafka, left_out: Rule) -> None:
    user = f"gateway-{GATEWAY_RULES.index(left_out)}"
    cluster.add_user(user, PASSWORD, (rule for rule in GATEWAY_RULES if rule is not left_out))
    put_on_record(scram(cluster, "gateway"))  # a topic without a record needs no right to read it
    assert left_out.name in str(refusal(lambda: put_on_record(scram(cluster, user))))


@pytest.mark.stack
@pytest.mark.parametrize("client", EVERY_CLIENT)
def test_a_wrong_password_is_refused_and_no_outage(cluster: SecuredKafka, client: Callable[..., object]) -> None:
    settings = scram(cluster, "worker", WRONG_PASSWORD)
    error = refusal(lambda: client(settings))
    assert "invalid credentials" in str(error)
    assert "HEDDLE_KAFKA_PASSWORD" in error.hint


@pytest.mark.stack
@pytest.mark.parametrize("client", EVERY_CLIENT)
def test_an_authority_that_we_do_not_know(cluster: SecuredKafka, client: Callable[..., object]) -> None:
    settings = scram(cluster, "worker", authority=Authority.make("another authority"))
    error = refusal(lambda: client(settings))
    assert "TLS" in str(error)
    assert "certificate verify failed" in str(error)
    assert "ssl.ca.location" in error.hint


@pytest.mark.stack
@pytest.mark.parametrize("client", EVERY_CLIENT)
def test_a_broker_that_wants_a_certificate_and_gets_none(cluster: SecuredKafka, client: Callable[..., object]) -> None:
    settings = mutual_tls(cluster, None)
    error = refusal(lambda: client(settings))
    assert "certificate required" in str(error).lower().replace("_", " ")
    assert "ssl.certificate.location" in error.hint


@pytest.mark.stack
@pytest.mark.parametrize("client", [administer, send])
def test_a_certificate_that_the_broker_does_not_trust(cluster: SecuredKafka, client: Callable[..., object]) -> None:
    settings = mutual_tls(cluster, "worker", authority=Authority.make("another authority"))
    assert "ssl.certificate.location" in refusal(lambda: client(settings)).hint


@pytest.mark.stack
@pytest.mark.parametrize("client", EVERY_CLIENT)
def test_a_topic_that_is_not_ours_is_named(cluster: SecuredKafka, client: Callable[..., object]) -> None:
    settings = scram(cluster, "worker")
    error = refusal(lambda: client(settings, topic=FORBIDDEN))
    assert FORBIDDEN in str(error)
    assert "ACL" in error.hint


@pytest.mark.stack
@pytest.mark.parametrize(
    ("client", "name"),
    [
        (partial(consume, group="another-group"), "another-group"),
        (partial(produce, transactional_id="another-flow.0"), "another-flow.0"),
    ],
    ids=["group", "transactional id"],
)
def test_a_name_that_is_not_ours_is_named(cluster: SecuredKafka, client: Callable[..., object], name: str) -> None:
    settings = scram(cluster, "worker")
    assert name in str(refusal(lambda: client(settings)))


@pytest.mark.parametrize("name", ["ssl.ca.location", "ssl.certificate.location"])
def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path, name: str) -> None:
    absent = str(tmp_path / "absent.pem")
    settings = from_environment("127.0.0.1:9", {"security.protocol": "SSL", name: absent})
    for client in EVERY_CLIENT:
        with pytest.raises(UsageError, match=re.escape(name)) as caught:
            client(settings)
        assert "HEDDLE_KAFKA" in caught.value.hint


def test_settings_keep_passwords_to_themselves() -> None:
    inside = {"ssl.key.password": WRONG_PASSWORD, "security.protocol": "SSL"}
    settings = from_environment("127.0.0.1:9", inside, PASSWORD)
    for text in (repr(settings), str(settings)):
        assert PASSWORD not in text
        assert WRONG_PASSWORD not in text
    assert settings.kafka_config()["sasl.password"] == PASSWORD


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('{"sasl.password": "%s"', "not a JSON object"),
        ('["%s"]', "valid dictionary"),
        ('{"sasl.password": ["%s"]}', "sasl.password"),
    ],
)
def test_a_malformed_setting_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str, told: str) -> None:
    monkeypatch.setenv("HEDDLE_KAFKA", value % PASSWORD)
    with pytest.raises(UsageError, match="HEDDLE_KAFKA") as caught:
        load_settings()
    assert told in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_rotated_password_is_taken_up_by_those_who_are_connected(
    cluster: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named as a secret, the password is asked for by each new client, and by the gateway's while it serves."""
    cluster.add_user("rotating", PASSWORD, GATEWAY_RULES)
    monkeypatch.setenv("HEDDLE_KAFKA_PASSWORD_SECRET", "kafka/password")
    monkeypatch.setenv("HEDDLE_SECRET_KAFKA_PASSWORD", PASSWORD)
    settings = scram(cluster, "rotating", password=None)
    before = settings.kafka_config()

    async def scenario() -> None:
        producer = AsyncProducer(before)
        await producer.start()
        try:
            await producer.send(Outgoing(RAW_TOPIC, b"k", b"old"))
            await producer.renew(settings.kafka_config())
            monkeypatch.setenv("HEDDLE_SECRET_KAFKA_PASSWORD", WRONG_PASSWORD)
            with pytest.raises(AuthError):
                await producer.renew(settings.kafka_config())
            await producer.send(Outgoing(RAW_TOPIC, b"k", b"still there"))
            await asyncio.to_thread(cluster.add_user, "rotating", "another one", GATEWAY_RULES)
            monkeypatch.setenv("HEDDLE_SECRET_KAFKA_PASSWORD", "another one")
            await producer.renew(settings.kafka_config())
            await producer.send(Outgoing(RAW_TOPIC, b"k", b"new"))
        finally:
            await producer.stop()

    asyncio.run(scenario())
    send(settings)
    with pytest.raises(AuthError):
        asyncio.run(AsyncProducer(before).start())
