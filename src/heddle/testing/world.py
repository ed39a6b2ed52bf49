"""One component on a log in memory, with a registry, topics, and an operator who may command it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TypeVar

from heddle.broker.log import Admin, Broker, Outgoing, Producer, Reader, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import MemoryRegistry, contract_of
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.errors import UsageError
from heddle.integration import Component, Flow, Sink, Source
from heddle.operators import FILE, OperatorKey, Operators, entry_of, make_key
from heddle.project import Project
from heddle.settings import Settings
from heddle.sinks.http import HttpSink
from heddle.testing.clock import CallsOnManualClock, ManualClock
from heddle.testing.sinks import BreakableSink

C = TypeVar("C", bound=Component)

TIMEOUT_S = 30.0
OPERATOR = "tester"
_QUICK_DELAY_S = 1e-6


@dataclass
class World:
    """`component` is the one that was given, but for three things that a test never wants otherwise: its quick tries
    follow at once, an HTTP sink goes by the test's clock, and the audit trail names every event."""

    project: Project
    component: Component
    clock: ManualClock
    broker: Broker
    registry: MemoryRegistry
    settings: Settings
    key: OperatorKey
    operators: Operators
    admin: Admin
    reader: Reader
    feeder: Producer
    feeds: int = 0

    @property
    def subscription(self) -> Subscription:
        return subscription_of(self.component)

    def deploy(self, component: Component) -> None:
        """Another version of the component. Raises `UsageError` for another subscription."""
        was, new = self.subscription, subscription_of(component)
        if (was.name, was.topic, was.writes) != (new.name, new.topic, new.writes):
            raise UsageError(f"{component.name} is not another version of {was.name}")
        self.component = _prepared(component, self.clock)
        self.project.components[component.name] = self.component

    def append(self, record: Outgoing) -> int:
        """In a transaction of its own; returns the offset."""
        self.feeder.begin()
        placed = self.feeder.produce_placed([record])
        self.feeder.commit(TIMEOUT_S)
        self.feeds += 1
        return placed[0]


@contextmanager
def open_world(component: Component) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="heddle-testing-") as folder:
        root, clock = Path(folder), ManualClock()
        prepared = _prepared(component, clock)
        key = make_key(root, OPERATOR)
        (root / FILE).write_text(entry_of(key), encoding="utf-8")
        # The manual clock may leap by days: that must not look like a member or a transaction that has gone quiet.
        broker = MemoryBroker(
            clock=clock.monotonic, now_ms=clock.wall_ms, max_poll_interval_s=inf, transaction_timeout_s=inf,
            polls_wait=False,
        )  # fmt: skip
        admin, reader, feeder = broker.admin(), broker.reader(), broker.producer("feeder")
        feeder.init(TIMEOUT_S)
        world = World(
            Project("test", root, {component.name: prepared}), prepared, clock, broker,
            MemoryRegistry([contract_of(kind) for kind in _types_of(component)]),
            Settings.model_construct(instance="test"), key, Operators.load(root, local=False), admin, reader, feeder,
        )  # fmt: skip
        admin.create_topics(TopicSpec(name, 1) for name in _topics_of(world.subscription))
        yield world


def _prepared(component: C, clock: ManualClock) -> C:
    prepared = copy.copy(component)
    prepared.on_failure = replace(component.on_failure, quick_delay_s=_QUICK_DELAY_S)
    prepared.regulated = True
    if isinstance(prepared, BreakableSink) and isinstance(prepared.behind, HttpSink):
        prepared.behind = _prepared(prepared.behind, clock)
    if isinstance(prepared, HttpSink):
        prepared.clock = CallsOnManualClock(clock)
        prepared.target = replace(prepared.target, policy=prepared.on_failure)
    return prepared


def _types_of(component: Component) -> list[type]:
    match component:
        case Source():
            return list(component.emits)
        case Flow():
            return [component.reads, component.writes]
        case Sink():
            return [component.reads, *([] if component.emits is None else [component.emits])]
        case _:
            raise UsageError(f"{component.name} is neither source, flow nor sink")


def _topics_of(subscription: Subscription) -> list[str]:
    topics = [subscription.topic, *subscription.writes, subscription.dead_letter_topic]
    return list(dict.fromkeys([*topics, subscription.command_topic, subscription.audit_topic]))
