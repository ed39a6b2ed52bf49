"""The audit trails of the gateway: with which versions of its secrets a webhook source verifies, told before it does.

Any number of gateways may serve one source, and a chain has one end. So they write one after the other: all use one
transactional id, whose broker lets only who has come last commit; and who comes looks for the end of the chain only
then, when nobody before it can write any more. There is one such transaction at a start and at a rotation, and none for
a delivery."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import stamina

from heddle.audit import AuditTrail, heads
from heddle.broker.log import Broker, Producer
from heddle.errors import BrokerDownError, BrokerError, UsageError
from heddle.secrets import Use
from heddle.sources.webhook import WebhookSource

TIMEOUT_S = 5.0
"""A gateway that drains waits for a call that has begun."""
TRIES = 8
_PARTITION = 0


def gateway_audit_topic(source: WebhookSource) -> str:
    """Beside that of the raw topic's subscription, which another process chains on."""
    return f"{source.name}.gateway.audit"


class GatewayAudit:
    """Implements `heddle.sources.gateway.Audit`, for one process. `key`, `secrets`: as of `AuditTrail`."""

    def __init__(
        self, sources: Iterable[WebhookSource], broker: Broker, instance: str, key: bytes,
        secrets: Callable[[], tuple[Use, ...]],
    ) -> None:  # fmt: skip
        names = {source.name: source.secret_names for source in sources}
        everything = frozenset().union(*names.values())
        self._others = {name: everything - own for name, own in names.items()}
        self._broker = broker
        self._actor = f"gateway:{instance}"
        self._key = key
        self._secrets = secrets
        self._told: dict[str, tuple[Use, ...]] = {}

    def tell(self, source: WebhookSource) -> None:
        """Its secrets, and those of the process itself (Kafka's password, the audit key); nothing if they were told.

        Raises `UsageError` without the topic, `BrokerDownError`, `AuthError`, and what `Producer.commit` raises."""
        others = self._others[source.name]
        uses = tuple(use for use in self._secrets() if use.name not in others)
        if uses == self._told.get(source.name):
            return
        for attempt in stamina.retry_context(
            on=_is_overtaken, attempts=TRIES, timeout=None, wait_initial=0.05, wait_max=1.0
        ):
            with attempt, contextlib.closing(self._broker.producer(f"{source.name}.gateway")) as producer:
                self._append(producer, source, uses)
        self._told[source.name] = uses

    def _append(self, producer: Producer, source: WebhookSource, uses: tuple[Use, ...]) -> None:
        topic = gateway_audit_topic(source)
        producer.init(TIMEOUT_S)
        with contextlib.closing(self._broker.admin()) as admin:
            if not admin.topics([topic]):
                raise UsageError(f"{source.name}: no topic {topic}", hint="run `heddle apply`")
        with contextlib.closing(self._broker.reader()) as reader:
            tail = heads(reader, topic, [_PARTITION], TIMEOUT_S)[_PARTITION]
        trail = AuditTrail(f"{source.name}.gateway", source.raw_topic, topic, self._actor, self._key)
        records, _ = trail.event(
            _PARTITION, tail.hash if tail else "", "secrets", {"in_use": [use._asdict() for use in uses]}
        )
        producer.begin()
        producer.produce(records)
        producer.commit(TIMEOUT_S)


def _is_overtaken(error: Exception) -> bool:
    """Another gateway has come after us: fenced, or whatever the broker says to a commit in the middle of that
    ("unknown error" was seen). Whether it took effect after all our next `init` decides; to tell twice is well."""
    return isinstance(error, BrokerError) and not isinstance(error, BrokerDownError)
