"""What the scenario stands on: a broker, workers that can be killed, a ledger that keeps order. In memory, for real."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from faults_project import SmallProject

from heddle.broker.log import Broker
from heddle.contracts import Registry
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.integration import Component
from heddle.project import Project
from heddle.settings import Settings

LEDGER = "ledger"
BATCH_MAX_RECORDS = 500


class Copy(NamedTuple):
    """One copy of a component's worker, under an instance name of its own."""

    component: str
    instance: str


class Booked(NamedTuple):
    """One row of the ledger, in the order of its taking effect. `batch`: rows that took effect at once share it."""

    batch: int
    account: str
    seq: int
    cents: int


@dataclass
class Ground(ABC):
    """`components` as this process has them; the workers have the same."""

    project: SmallProject
    broker: Broker
    registry: Registry
    settings: Settings
    components: dict[str, Component]

    @property
    def declared(self) -> Project:
        """For operators."""
        return Project("faults", self.project.root, self.components, {"project": "faults"})

    @property
    def subscriptions(self) -> list[Subscription]:
        return [subscription_of(component) for component in self.components.values()]

    @abstractmethod
    def start(self, copy: Copy) -> None: ...

    @abstractmethod
    def kill(self, copy: Copy) -> None:
        """Wherever it is just then. Nothing is released; its session ends when the broker notices."""

    @abstractmethod
    def stop(self, copy: Copy) -> None:
        """As SIGTERM does."""

    @abstractmethod
    def check(self) -> None:
        """Raises when a worker has ended that nobody has ended."""

    @abstractmethod
    def ledger(self) -> list[Booked]: ...

    @abstractmethod
    def close(self) -> None: ...
