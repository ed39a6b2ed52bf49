"""The scenario's ground in memory: workers are threads that die at any call of theirs to the world outside."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import faults_flow
from faults_project import PARTITIONS, SmallProject
from scenario_grounds import BATCH_MAX_RECORDS, LEDGER, Booked, Copy, Ground

from heddle.broker.log import Broker, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import MemoryRegistry, contract_of
from heddle.delivery.build import open_step
from heddle.delivery.steps import Step
from heddle.delivery.subscription import subscription_of
from heddle.delivery.worker import Worker
from heddle.errors import ContractError, Failure, FailureClass, TransientError
from heddle.event import Identity
from heddle.integration import Applied, Component, Delivered, Outcome, Sink, SinkWriter
from heddle.project import sources_digest
from heddle.settings import Settings

JOIN_TIMEOUT_S = 60.0
LATEST_CALL = 40
AUDIT_KEY = b"of these tests"


class Killed(BaseException):
    """kill -9: nothing of the thread's own runs any more that reaches the world."""


class Life:
    """Counts down a doomed worker's calls to the world outside. After the last of them none goes through."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        return self._left == 0

    def end_after(self, calls: int) -> None:
        with self._lock:
            self._left = calls

    def tick(self) -> None:
        with self._lock:
            if self._left:
                self._left -= 1
            if self._left == 0:
                raise Killed


class Mortal:
    """An object of the world outside, as a mortal worker has it: it may die before a call, and after it."""

    def __init__(self, life: Life, real: Any) -> None:
        self._life = life
        self._real = real

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value):
            return value
        return lambda *given, **named: self._call(name, value, given, named)

    def _call(self, name: str, real: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name == "close" and self._life.is_over:
            return None  # the operating system closes what a dead process had open, and tells nobody
        self._life.tick()
        answer = real(*given, **named)
        self._life.tick()
        return answer


class MortalBroker:
    """Makes mortal clients. `consumers`: the real ones, whose sessions end with the worker."""

    def __init__(self, life: Life, real: MemoryBroker) -> None:
        self._life = life
        self._real = real
        self.consumers: list[Any] = []

    def consumer(self, *given: Any, **named: Any) -> Any:
        self.consumers.append(self._real.consumer(*given, **named))
        return Mortal(self._life, self.consumers[-1])

    def producer(self, transactional_id: str) -> Any:
        return Mortal(self._life, self._real.producer(transactional_id))

    def reader(self) -> Any:
        return Mortal(self._life, self._real.reader())

    def admin(self) -> Any:
        return Mortal(self._life, self._real.admin())


@dataclass
class Thread:
    """A worker at work. `error`: what ended it."""

    life: Life
    broker: MortalBroker
    worker: Worker
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def ended(self) -> BaseException | None:
        self.thread.join(JOIN_TIMEOUT_S)
        assert not self.thread.is_alive(), "the worker did not end"
        return self.error

    def _run(self) -> None:
        try:
            self.worker.run(self.stop)
        except Killed as error:
            self.error = error
            self.worker.abandon()
        except BaseException as error:
            self.error = error


class MemoryLedger(Sink[Any]):
    """Rows in memory, with an inbox: what has taken effect does not take effect twice. Fails by its own dice."""

    TRANSIENT, REFUSED = 0.01, 0.002

    def __init__(self, reads: type[Any], seed: str) -> None:
        super().__init__(LEDGER, owner="testers")
        self.reads = reads
        self.on_failure = faults_flow.POLICY
        self.life = Life()
        self.rows: list[Booked] = []
        self.inbox: dict[Identity, tuple[int, int]] = {}
        self.dice = random.Random(seed)

    def open(self) -> SinkWriter[Any]:
        return _MemoryLedgerWriter(self, self.life)


class _MemoryLedgerWriter:
    def __init__(self, sink: MemoryLedger, life: Life) -> None:
        self._sink = sink
        self._life = life

    def bump(self, partitions: Iterable[int]) -> None:
        """There is one worker, and a dead one writes no more."""

    def release(self, partitions: Iterable[int]) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        """One by one: a worker may die between any two of them."""
        answers: list[Applied | None] = []
        failures: list[Failure] = []
        failed: set[bytes | None] = set()
        for index, delivered in enumerate(batch):
            self._life.tick()
            key = delivered.record.key
            answer = None if key in failed else self._one(index, delivered)
            if isinstance(answer, Failure):
                failures.append(answer)
                failed.add(key)
            answers.append(None if isinstance(answer, Failure) else answer)
        return answers, failures

    def _one(self, index: int, delivered: Delivered[Any]) -> Applied | Failure:
        sink, record, value = self._sink, delivered.record, delivered.event.value
        origin = (record.partition, record.offset)
        known = sink.inbox.get(delivered.event.identity)
        if known is not None:
            return Applied(Outcome.APPLIED, recovered=True) if known == origin else Applied(Outcome.DUPLICATE)
        dice = sink.dice.random()
        if dice < sink.TRANSIENT:
            return Failure(index, FailureClass.TRANSIENT, "reset", "", "connection reset", TransientError("reset"))
        if dice < sink.TRANSIENT + sink.REFUSED:
            return Failure(index, FailureClass.CONTRACT, "refused", "seq", "refused", ContractError("refused"))
        sink.inbox[delivered.event.identity] = origin
        sink.rows.append(Booked(len(sink.rows), value.account, value.seq, value.cents))
        return Applied(Outcome.APPLIED)


class MemoryGround(Ground):
    """A killed worker's session ends at once: time in memory is short."""

    def __init__(self, project: SmallProject, seed: str) -> None:
        types = project.types
        flow = faults_flow.flow_of(types.Order, types.Bill, project.mended, seed)
        self._sink = MemoryLedger(types.Bill, seed)
        self._memory = MemoryBroker()
        self._dice = random.Random(seed)
        self._running: dict[Copy, Thread] = {}
        contracts = [contract_of(types.Order), contract_of(types.Bill)]
        components: dict[str, Component] = {flow.name: flow, LEDGER: self._sink}
        super().__init__(project, self._memory, MemoryRegistry(contracts), Settings(), components)
        topics = {contract.topic for contract in contracts}
        for subscription in self.subscriptions:
            topics |= {subscription.dead_letter_topic, subscription.command_topic, subscription.audit_topic}
        admin = self.broker.admin()
        admin.create_topics([TopicSpec(topic, PARTITIONS) for topic in sorted(topics)])
        admin.close()

    def start(self, copy: Copy) -> None:
        component = self.components[copy.component]
        life = Life()
        if component is self._sink:
            self._sink.life = life
        digest = sources_digest(self.project.root)
        settings = Settings(instance=copy.instance, batch_max_records=BATCH_MAX_RECORDS)
        step = open_step(component, "faults", digest, self.registry, settings)
        broker = MortalBroker(life, self._memory)
        worker = Worker(
            subscription_of(component), cast(Step, Mortal(life, step)), cast(Broker, broker), settings,
            audit_key=AUDIT_KEY, operators=self.project.operators,
        )  # fmt: skip
        self._running[copy] = Thread(life, broker, worker)

    def kill(self, copy: Copy) -> None:
        thread = self._running.pop(copy)
        thread.life.end_after(self._dice.randint(1, LATEST_CALL))
        error = thread.ended()
        assert isinstance(error, Killed), f"{copy} ended by {error!r}"
        for consumer in thread.broker.consumers:
            self._memory.expire(consumer)

    def stop(self, copy: Copy) -> None:
        thread = self._running.pop(copy)
        thread.stop.set()
        error = thread.ended()
        if error is not None:
            raise error

    def check(self) -> None:
        for thread in self._running.values():
            if thread.error is not None:
                raise thread.error

    def ledger(self) -> list[Booked]:
        return self._sink.rows

    def close(self) -> None:
        for thread in self._running.values():
            thread.stop.set()
        for thread in self._running.values():
            thread.ended()
