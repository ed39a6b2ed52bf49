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
from delivery_harness import eventually, running

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record as schema_of
from building import types_of, write_contract

from heddle.broker.log import Outgoing, Record, TopicSpec
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of, decode_any
from heddle.delivery.build import open_step
from heddle.delivery.envelope import Envelope, State
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.delivery.worker import Worker
from heddle.errors import ContractError, Failure, FailureClass, UnknownEffectError
from heddle.integration import Flow
from heddle.on_failure import Breaker, FailureBudget, OnFailure, Order, Retry
from heddle.operations.dead_letters.entries import read_entries
from heddle.operations.dead_letters.session import Session, open_session
from heddle.operators import Operators, make_key
from heddle.project import Project, sources_digest
from heddle.settings import Settings

PARTITIONS = 2
AUDIT_KEY = b"a key of these tests"
POLICY = OnFailure(
    transient=Retry(tries=9, first_delay_s=3_600, longest_delay_s=3_600),
    breaker=Breaker(keys=100_000),
    budget=FailureBudget(ratio=1),
)
"""Retries are for operators alone, and no flood of failures stops the worker."""

_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}


@dataclass
class DlqScene:
    """Orders whose product is not among `products` fail; those among `unsure` have an unknown effect. `calls`: what the
    handler was given."""

    world: World
    folder: Path
    order: Order = "park"
    config: dict[str, Any] = field(default_factory=dict)
    products: set[str] = field(default_factory=lambda: {"tea"})
    unsure: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    policy: OnFailure = POLICY

    def __post_init__(self) -> None:
        self.name = f"f{uuid.uuid4().hex[:10]}"
        order = [("id", "string"), ("product", "string"), ("amount", _MONEY)]
        for name, fields in (("order", order), ("bill", [("id", "string"), ("total", _MONEY)])):
            schema = schema_of(fields, name.capitalize(), f"{self.name}.v1")
            write_contract(self.folder, schema, f"{self.name}/{name}.v1")
        self.types = types_of(self.folder, self.name)
        self.flow: Flow[Any, Any] = Flow(
            self.name, reads=self.types.Order, writes=self.types.Bill, do=self._bill, owner="testers", order=self.order,
            on_failure=self.policy,
        )  # fmt: skip
        self.ada, self.grace = make_key(self.folder, "ada"), make_key(self.folder, "grace")
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
        """Where the output, dead-letter, command and audit topics end, once all that is in them is decided."""
        subscription = self.subscription
        topics = [*subscription.writes, subscription.dead_letter_topic, subscription.command_topic]
        topics.append(subscription.audit_topic)
        reader = self.world.reader()
        for topic in topics:
            reader.tails(topic, range(PARTITIONS), 30)
        found = self.world.admin.end_offsets(dict.fromkeys(topics, range(PARTITIONS)))
        return [offset for offsets in found.values() for offset in offsets.values()]

    def park(self, *entries: tuple[int, str | None, State, bytes], partition: int = 0, topic_id: str = "") -> None:
        """(offset, key, state, body) as its owner would have written them."""
        topic = self.world.admin.topics([self.subscription.topic])[self.subscription.topic]
        envelope = Envelope(self.name, self.subscription.dead_letter_topic, topic_id or topic.topic_id, "0" * 64)
        failure = Failure(0, FailureClass.CONTRACT, "bad", "product", "no such product", LookupError("no product"))
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

    def worker(self) -> Worker:
        """Trusts the keys of Ada and Grace."""
        digest = sources_digest(self.folder)
        step = open_step(self.flow, self.project.name, digest, self.registry, self.settings)
        keys = {key.name: key._private.public_key() for key in (self.ada, self.grace)}
        return Worker(
            self.subscription, step, self.world.broker, self.settings, audit_key=AUDIT_KEY, operators=Operators(keys)
        )

    @contextmanager
    def failed(self, *orders: tuple[str, str], partition: int = 0) -> Iterator[None]:
        """A worker, by which these orders have settled."""
        self.feed(*orders, partition=partition)
        with running(self.worker()):
            self.settled(len(orders))
            yield

    def settled(self, count: int) -> None:
        """Offsets are committed with everything that belongs to them, of which entries may show a moment later."""

        def settled() -> int:
            positions = self.world.admin.group_positions(self.name, self.subscription.topic, range(PARTITIONS))
            return sum(PartitionMetadata.unpack(p.metadata).counts.total for p in positions.values())

        eventually(lambda: settled() >= count, f"{count} orders settled")
        self.world.reader().tails(self.subscription.dead_letter_topic, range(PARTITIONS), 30)

    def bills(self) -> list[tuple[str, str]]:
        """(id, total) of what was emitted, by partition."""
        records = [r for p in range(PARTITIONS) for r in self.world.read(self.subscription.writes[0], p)]
        values = [decode_any(record.value or b"", self.registry) for record in records]
        return [(value["id"], str(value["total"])) for value in values]

    def unresolved(self) -> dict[str, str]:
        """State by entry."""
        with self.session() as session:
            views = read_entries(session.reader, session.shelf)
        return {view.entry_id: str(view.state) for view in views if not view.state.is_marker}

    def session(self) -> AbstractContextManager[Session]:
        return open_session(self.project, self.settings, self.name, self.world.broker, self.registry)

    def _bill(self, order: Any) -> Any:
        self.calls.append(order.id)
        if order.product in self.unsure:
            raise UnknownEffectError("no answer came")
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
