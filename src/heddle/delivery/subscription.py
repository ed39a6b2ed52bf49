"""A subscription: one component reading one topic as one consumer group. Its names are fixed for ever."""

from __future__ import annotations

from dataclasses import dataclass

from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.integration import Component, Flow, Order, Sink, Source, Start


@dataclass(frozen=True, slots=True)
class Subscription:
    """`writes`: output topics. `start` counts only for a group that never committed on the topic."""

    name: str
    topic: str
    writes: tuple[str, ...] = ()
    order: Order = "park"
    start: Start = "earliest"

    @property
    def group(self) -> str:
        return self.name

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.name}.dlq"

    def transactional_id(self, instance: str) -> str:
        """Stable per copy, so that a successor decides its predecessor's unfinished commit at once."""
        return f"{self.name}.{instance}"


def subscription_of(component: Component) -> Subscription:
    match component:
        case Source():
            writes = tuple(contract_of(kind).topic for kind in component.emits)
            return Subscription(component.name, component.raw_topic, writes, component.order)
        case Flow():
            writes = (contract_of(component.writes).topic,)
            return Subscription(
                component.name, contract_of(component.reads).topic, writes, component.order, component.start
            )
        case Sink():
            return Subscription(
                component.name, contract_of(component.reads).topic, (), component.order, component.start
            )
        case _:
            raise UsageError(f"{component.name} is neither source, flow nor sink")
