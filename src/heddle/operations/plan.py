"""`heddle plan` and `heddle apply`: what a project declares against what exists, and the difference made good.

Nothing else in Heddle creates topics, registers schemas or makes tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

from heddle.broker.log import Admin, TopicSpec, TopicState
from heddle.contracts import Contract, NotRegisteredError, Registry
from heddle.contracts.parser import parse_schema
from heddle.contracts.registry import COMPATIBILITY
from heddle.contracts.schema_diff import schema_changes
from heddle.errors import FailureClass, HeddleError, UsageError
from heddle.integration import Sink
from heddle.operations.dead_letter_topics import DeadLetterTopics
from heddle.operations.orphans import Orphan

_GROWTH = (
    "the number of partitions is fixed: keys would move to other partitions, and their order and dead letters with "
    "them; declare what exists, or start the contract's next major version on a topic of its own"
)
_FOLLOWING = (
    "{topic} has more partitions now, and the keys of these entries may be in others: `heddle dlq export` them, delete "
    "the dead-letter topic, `heddle apply`, and `heddle dlq import` them again"
)


class State(StrEnum):
    IN_ORDER = "in order"
    MISSING = "missing"
    DIFFERS = "differs"
    INCOMPATIBLE = "incompatible"
    REFUSED = "refused"


class PlanChangedError(HeddleError):
    """What exists, or what is declared, is no longer what the plan was made from."""

    failure_class = FailureClass.OURS
    code = "plan-changed"


class PlanRefusedError(HeddleError):
    """The plan holds something that `apply` will not do."""

    failure_class = FailureClass.OURS
    code = "plan-refused"


@runtime_checkable
class PlannedSink(Protocol):
    """A sink that owns tables: both are called by `plan` and `apply` alone, and may open connections."""

    def plan(self) -> list[str]:
        """The SQL statements that are missing; empty when all is there. Raises `UsageError` for a table that is
        there and cannot serve."""

    def apply_plan(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Item:
    """One declared thing. `details` say field by field what `act` will change; `notes` what it will not."""

    kind: str
    name: str
    state: State
    details: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    act: Callable[[], object] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """`orphans`: dead letters that no component answers for. They are told, and stop nothing."""

    items: tuple[Item, ...]
    orphans: tuple[Orphan, ...] = ()

    @property
    def pending(self) -> list[Item]:
        return [item for item in self.items if item.state in (State.MISSING, State.DIFFERS)]

    @property
    def blocked(self) -> list[Item]:
        return [item for item in self.items if item.state in (State.INCOMPATIBLE, State.REFUSED)]

    @property
    def in_order(self) -> bool:
        return not self.pending and not self.blocked

    @property
    def hash(self) -> str:
        """Changes with anything that `apply` would do or refuse."""
        digest = sha256()
        for item in (*self.pending, *self.blocked):
            for part in (item.kind, item.name, item.state, *item.details):
                digest.update(len(part.encode()).to_bytes(4, "big") + part.encode())
        return digest.hexdigest()[:12]

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        items = [
            {"kind": i.kind, "name": i.name, "state": str(i.state), "details": list(i.details), "notes": list(i.notes)}
            for i in self.items
        ]
        orphans = [orphan.document() for orphan in self.orphans]
        return {"hash": self.hash, "in_order": self.in_order, "items": items, "orphans": orphans}


def make_plan(
    topics: Sequence[TopicSpec],
    contracts: Sequence[Contract],
    sinks: Iterable[Sink[Any]],
    admin: Admin,
    registry: Registry,
    dead_letters: DeadLetterTopics,
) -> Plan:
    """Read what exists and compare. Changes nothing."""
    existing = admin.topics([spec.name for spec in topics])
    planning = _Topics(admin, admin.broker_count(), existing, dead_letters)
    items = [planning.item(spec) for spec in topics]
    items += [_schema_item(contract, registry) for contract in contracts]
    items += [_sink_item(sink) for sink in sinks if isinstance(sink, PlannedSink)]
    return Plan(tuple(items), tuple(dead_letters.orphans(spec.name for spec in topics)))


def apply(plan: Plan, *, expected: str = "", done: Callable[[Item], None] = lambda _: None) -> None:
    """Do what is pending, in order. Doing it again does nothing; a run that broke off is finished by the next.

    Raises `PlanChangedError` when `expected` is not the plan's hash, `PlanRefusedError` before anything is done
    when something in the plan is refused."""
    if expected and expected != plan.hash:
        raise PlanChangedError(
            f"the plan is {plan.hash} now, not {expected}", hint="look at `heddle plan` again, then apply that hash"
        )
    if plan.blocked:
        first = plan.blocked[0]
        raise PlanRefusedError(
            f"{first.kind} {first.name} is {first.state}: {'; '.join(first.details)}",
            hint=f"nothing was applied; {len(plan.blocked)} such in `heddle plan`",
        )
    for item in plan.pending:
        if item.act is not None:
            item.act()
        done(item)


@dataclass(frozen=True, slots=True)
class _Topics:
    """The topics as they are."""

    admin: Admin
    brokers: int
    existing: Mapping[str, TopicState]
    dead_letters: DeadLetterTopics

    def item(self, spec: TopicSpec) -> Item:
        found = self.existing.get(spec.name)
        if found is None:
            return self._missing(spec)
        if found.partitions != spec.partitions:
            refusal = self._refusal(spec, found)
            if refusal:
                return Item("topic", spec.name, State.REFUSED, refusal)
        return self._changes(spec, found)

    def _missing(self, spec: TopicSpec) -> Item:
        replication = spec.replication or 1
        if replication > self.brokers:
            hint = f"{replication} replicas need as many brokers; the cluster has {self.brokers}"
            return Item("topic", spec.name, State.REFUSED, (hint,))
        details = (f"{spec.partitions} partitions, {replication} replicas", *_settings(spec))
        return Item("topic", spec.name, State.MISSING, details, act=lambda: self.admin.create_topics([spec]))

    def _refusal(self, spec: TopicSpec, found: TopicState) -> tuple[str, ...]:
        """Why the number of partitions stays. A subscription's own topics follow their input topic, which somebody
        made larger, once nothing is unresolved: an entry is where its key was before."""
        told = f"partitions: {found.partitions} exist, {spec.partitions} declared"
        held = self.dead_letters.held(spec.name)
        leader = self.existing.get(self.dead_letters.input_of(spec.name))
        if leader is None or not found.partitions < spec.partitions == leader.partitions:
            return (told, _GROWTH, *held)
        return (told, *held, _FOLLOWING.format(topic=leader.name)) if held else ()

    def _changes(self, spec: TopicSpec, found: TopicState) -> Item:
        notes: tuple[str, ...] = ()
        if spec.replication is not None and found.replication < spec.replication:
            told = f"replicas: {found.replication} exist, {spec.replication} declared"
            notes = (f"{told}; reassign them with Kafka's own tool",)
        changed = {key: value for key, value in spec.config.items() if found.config.get(key) != value}
        details = [f"{key}: {found.config.get(key, 'the default')} → {changed[key]}" for key in sorted(changed)]
        grows = found.partitions != spec.partitions
        if grows:
            details.insert(0, f"partitions: {found.partitions} → {spec.partitions}")
        if not details:
            return Item("topic", spec.name, State.IN_ORDER, notes=notes)

        def make_good() -> None:
            if grows:
                self.admin.grow_topic(spec.name, spec.partitions)
            if changed:
                self.admin.alter_topic(spec.name, changed)

        return Item("topic", spec.name, State.DIFFERS, tuple(details), notes, make_good)


def _settings(spec: TopicSpec) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(spec.config.items())]


def _schema_item(contract: Contract, registry: Registry) -> Item:
    subject = contract.subject
    versions = registry.versions(subject)
    level = registry.compatibility(subject)
    if not versions:

        def register() -> None:
            registry.register(contract)
            registry.set_compatibility(subject)

        return Item("schema", subject, State.MISSING, ("version 1", f"compatibility {COMPATIBILITY}"), act=register)
    details: list[str] = []
    if not _registered(contract, registry):
        problems = registry.check(contract)
        if problems:
            return Item("schema", subject, State.INCOMPATIBLE, tuple(problems))
        latest = parse_schema(registry.schema_of(subject, versions[-1]))
        details += [f"version {versions[-1] + 1}", *schema_changes(latest, contract.root)]
    if level != COMPATIBILITY:
        details.append(f"compatibility: {level or 'the default'} → {COMPATIBILITY}")
    if not details:
        return Item("schema", subject, State.IN_ORDER)

    def make_good() -> None:
        registry.set_compatibility(subject)
        registry.register(contract)

    return Item("schema", subject, State.DIFFERS, tuple(details), act=make_good)


def _registered(contract: Contract, registry: Registry) -> bool:
    try:
        registry.id_of(contract)
    except NotRegisteredError:
        return False
    return True


def _sink_item(sink: Any) -> Item:
    try:
        statements = sink.plan()
    except UsageError as error:
        return Item("tables", sink.name, State.REFUSED, (str(error), *([error.hint] if error.hint else [])))
    state = State.MISSING if statements else State.IN_ORDER
    return Item("tables", sink.name, state, tuple(statements), act=sink.apply_plan)
