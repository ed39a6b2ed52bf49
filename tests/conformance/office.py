"""Two operators, their commands, and what became of these. The product's own client is tested elsewhere."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace

from delivery_harness import EchoStep, Scene

from heddle.audit import AuditRecord, Line
from heddle.broker.log import Outgoing, Record
from heddle.delivery.command import Action, Command, Kind, PlanHeader, Signature, Slice, Target
from heddle.delivery.envelope import entry_of
from heddle.delivery.steps import Result
from heddle.errors import ContractError
from heddle.on_failure import Breaker, FailureBudget, OnFailure, Retry
from heddle.operators import OperatorKey, Operators

POLICY = OnFailure(
    transient=Retry(tries=2, first_delay_s=3_600, longest_delay_s=3_600), breaker=Breaker(keys=100_000),
    budget=FailureBudget(ratio=1),
)  # fmt: skip


@dataclass
class Office:
    ada: OperatorKey
    grace: OperatorKey
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def operators(self) -> Operators:
        return Operators({key.name: key._private.public_key() for key in (self.ada, self.grace)})

    def command(
        self, scene: Scene, action: Action, part: Slice, *, expires_in_s: float = 600.0, kind: Kind = Kind.ACT,
        job: str = "", **header: object,
    ) -> Command:  # fmt: skip
        """Signed by Ada."""
        plan = PlanHeader(scene.subscription.name, action, **header)  # type: ignore[arg-type]
        expires_ms = int((time.time() + expires_in_s) * 1000)
        job = job or f"job{next(self.numbers)}"
        command = Command(kind, job, plan, (part.hash,), "a test", expires_ms, "root", (), 0, part)
        return self.signed(command, self.ada)

    def signed(self, command: Command, key: OperatorKey) -> Command:
        signature = Signature(key.name, key.sign(command.statement))
        return replace(command, signatures=(*command.signatures, signature))


def targets(scene: Scene, *values: str) -> tuple[Target, ...]:
    found = {(record.value or b"").decode(): entry_of(record) for record in scene.newest()}
    return tuple(Target(found[v].topic_id, found[v].offset, found[v].version) for v in values)


def send(scene: Scene, *commands: Command, partition: int = 0) -> None:
    for command in commands:
        record = Record(scene.subscription.command_topic, partition, 0, None, command.pack(), [], 0)
        scene.append(scene.subscription.command_topic, record)


def lines_of(scene: Scene, job: str) -> list[Line]:
    return [line for record in scene.audit() for line in record.lines if line.job == job]


def outcomes(scene: Scene, command: Command) -> list[str]:
    """By entry, the first line of each counts."""
    first: dict[str, str] = {}
    for line in lines_of(scene, command.job):
        first.setdefault(line.entry, line.outcome)
    return [first[name] for name in sorted(first)]


def refusals(scene: Scene) -> list[AuditRecord]:
    return [record for record in scene.audit() if record.kind == "refused"]


def unless(broken: Container[str], step: EchoStep) -> Callable[[Record], Result]:
    """Fails on what `broken` holds, until it no longer does; all else is well."""

    def one(record: Record) -> Result:
        value = (record.value or b"").decode()
        if value == "bad 4" or value in broken:
            raise ContractError("bad value")
        return [Outgoing(step.output, record.key, value.upper().encode())]

    return one
