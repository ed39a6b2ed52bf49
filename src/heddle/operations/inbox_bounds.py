"""How far back the sinks that a subscription's records end up in still know what they have applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from heddle.delivery.subscription import Subscription, subscription_of
from heddle.integration import Component, Sink


@runtime_checkable
class PruningSink(Protocol):
    """A sink that forgets, some day, what it has applied."""

    def pruned_before(self) -> datetime | None:
        """Events from before this may take effect a second time; None when nothing was ever forgotten."""


class InboxBound(NamedTuple):
    """`before` None: the sink has forgotten nothing. `is_told` False: it does not tell what it has forgotten."""

    sink: str
    before: datetime | None
    is_told: bool = True


def inbox_bounds(subscription: Subscription, components: Iterable[Component]) -> list[InboxBound]:
    """Of every sink downstream: what is run again anywhere comes by there again, with its old identity.

    Asks the targets: raises what their sinks raise, `DependencyDownError` and `AuthError` among it."""
    return [_bound(sink) for sink in _sinks_behind(subscription, list(components))]


def _bound(sink: Component) -> InboxBound:
    if isinstance(sink, PruningSink):
        return InboxBound(sink.name, sink.pruned_before())
    return InboxBound(sink.name, None, is_told=False)


def _sinks_behind(subscription: Subscription, components: list[Component]) -> Iterator[Component]:
    """Flows may form a ring, so each is walked once."""
    reached, open_ends = {subscription.name}, [subscription]
    by_name = {component.name: component for component in components}
    while open_ends:
        here = open_ends.pop()
        if isinstance(component := by_name.get(here.name), Sink):
            yield component
        for other in map(subscription_of, components):
            if other.topic in here.writes and other.name not in reached:
                reached.add(other.name)
                open_ends.append(other)
