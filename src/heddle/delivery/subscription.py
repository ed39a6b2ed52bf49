"""A subscription: one component reading one topic as one consumer group. Its names are fixed for ever."""

from __future__ import annotations

from dataclasses import dataclass, replace

from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.integration import Component, Flow, Sink, Source, Start
from heddle.on_failure import DEFAULT, OnFailure, Order

_NEVER = 1_000_000_000
"""Keys. What has opened the breaker counts as unattempted and runs again: not what may have had its effect."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """`writes`: output topics. `start` counts only for a group that never committed on the topic. `at_most_once`: what
    is handed over is marked before (write_ahead.py)."""

    name: str
    topic: str
    writes: tuple[str, ...] = ()
    order: Order = "park"
    start: Start = "earliest"
    on_failure: OnFailure = DEFAULT
    regulated: bool = False
    at_most_once: bool = False

    @property
    def group(self) -> str:
        return self.name

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.name}.dlq"

    @property
    def command_topic(self) -> str:
        """What operators ask of a partition's owner, in the partition of the same number."""
        return f"{self.name}.commands"

    @property
    def audit_topic(self) -> str:
        """The chained records of what was done, in the partition of the same number."""
        return f"{self.name}.audit"

    def transactional_id(self, instance: str) -> str:
        """Stable per copy, so that a successor decides its predecessor's unfinished commit at once."""
        return f"{self.name}.{instance}"


def subscription_of(component: Component) -> Subscription:
    match component:
        case Source():
            topic, writes = component.raw_topic, tuple(contract_of(kind).topic for kind in component.emits)
        case Flow():
            topic, writes = contract_of(component.reads).topic, (contract_of(component.writes).topic,)
        case Sink():
            emits = component.emits
            topic, writes = contract_of(component.reads).topic, () if emits is None else (contract_of(emits).topic,)
        case _:
            raise UsageError(f"{component.name} is neither source, flow nor sink")
    start: Start = "earliest" if isinstance(component, Source) else component.start
    at_most_once, on_failure = isinstance(component, Sink) and component.at_most_once, component.on_failure
    if at_most_once:
        on_failure = replace(on_failure, breaker=replace(on_failure.breaker, keys=_NEVER))
    return Subscription(
        component.name, topic, writes, component.order, start, on_failure, component.regulated, at_most_once
    )
