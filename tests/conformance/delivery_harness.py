"""What the delivery tests share: topics of their own, a step that does as it is told, a worker in a thread."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from heddle.audit import AuditRecord, first_break
from heddle.audit import read as read_audit
from heddle.broker.log import Broker, Outgoing, Position, Record, TopicSpec
from heddle.delivery import envelope
from heddle.delivery.command import Action
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.steps import Budget, NoFence, Result, Run, run_in_order
from heddle.delivery.subscription import Subscription
from heddle.delivery.worker import Worker
from heddle.errors import ContractError
from heddle.integration import Outcome, Start
from heddle.on_failure import DEFAULT, OnFailure, Order, holds_keys
from heddle.operators import Operators
from heddle.settings import Settings

PARTITIONS = 2
AUDIT_KEY = b"a key of these tests"
DEADLINE_S = 40.0


def eventually(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition, not for a time."""
    pace = threading.Event()
    deadline = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        pace.wait(0.02)


class EchoStep(NoFence):
    """Emits each value, upper-cased, under its key. Values that begin with `bad` fail. `before` may raise or wait."""

    digest = "0" * 64

    def __init__(self, output: str, *, by_key: bool = True) -> None:
        self.output = output
        self.by_key = by_key
        self.before: Callable[[Record], None] = lambda _: None
        self.attempts: list[bytes] = []

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        return run_in_order(records, budget, self.by_key, lambda _, record: self.one(record))

    def one(self, record: Record) -> Result:
        self.before(record)
        value = record.value or b""
        self.attempts.append(value)
        if value.startswith(b"bad"):
            raise ContractError("bad value", path="value")
        return [Outgoing(self.output, record.key, value.upper())]


@dataclass
class Scene:
    """One subscription on topics that no other test has."""

    broker: Broker
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    order: Order = "park"
    start: Start = "earliest"
    partitions: int = PARTITIONS
    on_failure: OnFailure = DEFAULT
    operators: Operators = field(default_factory=lambda: Operators({}))
    approvals: dict[Action, int] = field(default_factory=dict)
    regulated: bool = False

    def __post_init__(self) -> None:
        self.subscription = Subscription(
            self.name,
            f"{self.name}.in",
            (f"{self.name}.out",),
            self.order,
            self.start,
            self.on_failure,
            self.regulated,
        )
        self.admin = self.broker.admin()
        names = [self.subscription.topic, *self.subscription.writes, self.subscription.dead_letter_topic]
        names += [self.subscription.command_topic, self.subscription.audit_topic]
        self.admin.create_topics([TopicSpec(name, self.partitions) for name in names])
        self._feeder = self.broker.producer(f"{self.name}-feeder")
        self._feeder.init(30)

    def members(self, group: str = "") -> int:
        """Of the subscription's group, or of another one."""
        group = group or self.subscription.group
        return self.admin.group_members([group])[group]

    def ends(self, topic: str = "") -> dict[int, int]:
        """Last stable offsets of the subscription's topic, or of another one with as many partitions."""
        topic = topic or self.subscription.topic
        return self.admin.end_offsets({topic: range(self.partitions)})[topic]

    def close(self) -> None:
        self._feeder.close()
        self.admin.close()

    def feed(self, *records: tuple[str, str], partition: int = 0) -> None:
        """(key, value) pairs, as one transaction; an empty key is null."""
        self._feeder.begin()
        self._feeder.produce(
            Outgoing(self.subscription.topic, key.encode() or None, value.encode(), partition=partition)
            for key, value in records
        )
        self._feeder.commit(30)

    def step(self) -> EchoStep:
        return EchoStep(self.subscription.writes[0], by_key=holds_keys(self.order))

    def worker(self, step: NoFence, **settings: object) -> Worker:
        return Worker(
            self.subscription, step, self.broker, Settings.model_validate(settings), audit_key=AUDIT_KEY,
            operators=self.operators, approvals=self.approvals,
        )  # fmt: skip

    def read(self, topic: str) -> list[Record]:
        reader = self.broker.reader()
        try:
            return [
                r for partition in range(self.partitions) for r in reader.read_range(topic, partition, 30, settled=True)
            ]
        finally:
            reader.close()

    def outputs(self) -> list[str]:
        return [(record.value or b"").decode() for record in self.read(self.subscription.writes[0])]

    def entries(self) -> list[tuple[str, str, str]]:
        """(state, original value, code or what it waits for) of each dead-letter entry."""
        found = []
        for record in self.read(self.subscription.dead_letter_topic):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            why = headers.get(envelope.CODE) or headers.get(envelope.BLOCKED_BY, "")
            found.append((headers[envelope.STATE], (record.value or b"").decode(), why))
        return found

    def outputs_of(self, key: str) -> list[str]:
        records = self.read(self.subscription.writes[0])
        return [(record.value or b"").decode() for record in records if record.key == key.encode()]

    def newest(self) -> list[Record]:
        """The newest version of each unresolved entry, by partition and origin."""
        found: dict[bytes | None, Record] = {}
        for record in self.read(self.subscription.dead_letter_topic):
            found[record.key] = record
        entries = [record for record in found.values() if record.value is not None]
        return sorted(entries, key=lambda record: (record.partition, envelope.entry_of(record).offset))

    def unresolved(self) -> list[tuple[str, str, str]]:
        """(state, value, code or what it waits for), markers left out."""
        found = []
        for record in self.newest():
            headers = {name: (value or b"").decode() for name, value in record.headers}
            if headers[envelope.STATE] in ("discarded", "revised"):
                continue
            why = headers.get(envelope.BLOCKED_BY) or headers.get(envelope.CODE, "")
            found.append((headers[envelope.STATE], (record.value or b"").decode(), why))
        return found

    def header_of(self, value: str, name: str) -> str:
        """Of the newest entry with that body; empty when there is none."""
        for record in self.newest():
            if record.value == value.encode():
                return (dict(record.headers).get(name) or b"").decode()
        return ""

    def drained(self) -> None:
        eventually(lambda: not self.unresolved(), "every entry resolved")

    def entry_counts(self) -> dict[Outcome, int]:
        total = sum((self.metadata(partition).entry_counts for partition in range(self.partitions)), Counts())
        return total.by_outcome

    def audit(self) -> list[AuditRecord]:
        reader = self.broker.reader()
        try:
            return [r for p in range(self.partitions) for r in read_audit(reader, self.subscription.audit_topic, p, 30)]
        finally:
            reader.close()

    def chain_break(self) -> AuditRecord | None:
        breaks = [
            first_break(record for record in self.audit() if record.partition == partition)
            for partition in range(self.partitions)
        ]
        return next((found for found in breaks if found is not None), None)

    def append(self, topic: str, record: Record) -> None:
        """Something that only the owner may write."""
        self._feeder.begin()
        self._feeder.produce([Outgoing(topic, record.key, record.value, record.headers, record.partition)])
        self._feeder.commit(30)

    def move_offsets(self, offsets: dict[int, int]) -> None:
        """As another tool sets a stopped group's offsets."""
        member = self.broker.consumer(self.subscription.group, self.subscription.topic)
        eventually(lambda: member.consume(1, 0.01) == [] and len(member.assignment()) == self.partitions, "joined")
        producer = self.broker.producer(self.name + "-tool")
        producer.init(30)
        producer.begin()
        positions = {partition: Position(offset) for partition, offset in offsets.items()}
        producer.send_offsets(self.subscription.topic, positions, member.group_metadata())
        producer.commit(30)
        producer.close()
        member.close()

    def positions(self) -> dict[int, Position]:
        return self.admin.group_positions(self.subscription.group, self.subscription.topic, range(self.partitions))

    def metadata(self, partition: int = 0) -> PartitionMetadata:
        position = self.positions().get(partition)
        return PartitionMetadata.unpack(position.metadata) if position else PartitionMetadata()

    def counts(self) -> Counts:
        return sum((self.metadata(partition).counts for partition in range(self.partitions)), Counts())

    def settled(self, count: int) -> None:
        eventually(lambda: self.counts().total >= count, f"{count} records settled")
        assert self.counts().total == count


class Running:
    """A worker in a thread. `error` is what ended it, if anything did."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.worker.run(self.stop)
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), "the worker did not end"
        return self.error


class Driven:
    """A worker that the test drives turn by turn, on its own thread; `abandon` is a crash."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def __enter__(self) -> Driven:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        self.worker.open(threading.Event())

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self.worker.turn()
            if holds():
                return
            assert time.monotonic() < deadline, "not in time"

    def close(self) -> None:
        self.worker.close()

    def abandon(self) -> None:
        """The process is gone: connections close, nothing is given back."""
        self.worker._close_parts()


@contextmanager
def running(*workers: Worker) -> Iterator[list[Running]]:
    """Stopped cleanly at the end; an error that the test has not looked at fails it."""
    started = [Running(worker) for worker in workers]
    try:
        yield started
    finally:
        for each in started:
            each.stop.set()
        for each in started:
            each.thread.join(DEADLINE_S)
    for each in started:
        assert not each.thread.is_alive(), "the worker did not stop"
        if each.error is not None:
            raise each.error


def values(records: Iterable[tuple[str, str]]) -> list[str]:
    return [value.upper() for _, value in records]
