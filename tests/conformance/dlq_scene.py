"""A project of one flow, with contracts and topics that no other test has, and what an operator needs to act on it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from broker_world import World

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record as schema_of
from building import types_of, write_contract

from heddle.broker.log import Outgoing, Record, TopicSpec
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.delivery.envelope import Envelope, State
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.errors import ContractError, Failure, FailureClass
from heddle.integration import Flow
from heddle.on_failure import Order
from heddle.operations.dead_letters.session import Session, open_session
from heddle.project import Project
from heddle.settings import Settings

PARTITIONS = 2
_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}


@dataclass
class DlqScene:
    """Orders whose product is not among `products` fail. `calls` counts what the handler was given."""

    world: World
    folder: Path
    order: Order = "park"
    config: dict[str, Any] = field(default_factory=dict)
    products: set[str] = field(default_factory=lambda: {"tea"})
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"f{uuid.uuid4().hex[:10]}"
        order = [("id", "string"), ("product", "string"), ("amount", _MONEY)]
        for name, fields in (("order", order), ("bill", [("id", "string"), ("total", _MONEY)])):
            schema = schema_of(fields, name.capitalize(), f"{self.name}.v1")
            write_contract(self.folder, schema, f"{self.name}/{name}.v1")
        self.types = types_of(self.folder, self.name)
        self.flow: Flow[Any, Any] = Flow(
            self.name, reads=self.types.Order, writes=self.types.Bill, do=self._bill, owner="testers", order=self.order
        )
        self.registry = MemoryRegistry([contract_of(self.types.Order), contract_of(self.types.Bill)])
        self.codec: AvroCodec[Any] = AvroCodec(contract_of(self.types.Order), self.registry)
        self.project = Project("tests", self.folder, {self.name: self.flow}, {"project": "tests", **self.config})
        self.settings = Settings()
        subscription = self.subscription
        names = [subscription.topic, *subscription.writes, subscription.dead_letter_topic]
        names += [subscription.command_topic, subscription.audit_topic]
        self.world.admin.create_topics([TopicSpec(name, PARTITIONS) for name in names])

    @property
    def subscription(self) -> Subscription:
        return subscription_of(self.flow)

    def body(self, order_id: str, product: str, amount: str = "1.50") -> bytes:
        return self.codec.encode_dict({"id": order_id, "product": product, "amount": Decimal(amount)})

    def feed(self, *orders: tuple[str, str], partition: int = 0) -> None:
        """(key, product) pairs."""
        with self._transaction() as produce:
            produce(
                Outgoing(self.subscription.topic, key.encode(), self.body(key, product), partition=partition)
                for key, product in orders
            )

    def emitted(self, key: bytes, value: bytes) -> None:
        """An event in the output topic."""
        with self._transaction() as produce:
            produce([Outgoing(self.subscription.writes[0], key, value)])

    def ends(self) -> list[int]:
        """Where the output, dead-letter, command and audit topics end."""
        subscription = self.subscription
        topics = (*subscription.writes, subscription.dead_letter_topic, subscription.command_topic)
        found = [
            self.world.admin.end_offsets(topic, range(PARTITIONS)) for topic in (*topics, subscription.audit_topic)
        ]
        return [offset for offsets in found for offset in offsets.values()]

    def park(self, *entries: tuple[int, str | None, State, bytes], partition: int = 0, topic_id: str = "") -> None:
        """(offset, key, state, body) as its owner would have written them."""
        topic = self.world.admin.topics([self.subscription.topic])[self.subscription.topic]
        envelope = Envelope(self.name, self.subscription.dead_letter_topic, topic_id or topic.topic_id, "0" * 64)
        failure = Failure(0, FailureClass.CONTRACT, "bad", "product", "no such product", ContractError("no product"))
        outgoing = []
        for offset, key, state, body in entries:
            record = Record(
                self.subscription.topic, partition, offset, None if key is None else key.encode(), body, [], 0
            )
            if state is State.WAITING:
                outgoing.append(envelope.waiting(record, "0-0"))
            else:
                outgoing.append(envelope.failed(record, failure, state))
        with self._transaction() as produce:
            produce(outgoing)

    def session(self) -> AbstractContextManager[Session]:
        return open_session(self.project, self.settings, self.name, self.world.broker, self.registry)

    def _bill(self, order: Any) -> Any:
        self.calls.append(order.id)
        if order.product not in self.products:
            raise ContractError("no such product", path="product")
        return self.types.Bill(id=order.id, total=order.amount)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        producer = self.world.broker.producer(self.world.name("tx"))
        try:
            producer.init(30)
            producer.begin()
            yield producer.produce
            producer.commit(30)
        finally:
            producer.close()
