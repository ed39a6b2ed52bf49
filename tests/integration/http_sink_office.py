"""One HTTP sink's subscription on a log in memory, with a target of its own, and a process that dies."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from http_sink_harness import QUICK, sink_of
from http_target import Target
from sql_sink_harness import entry

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from delivery_harness import PARTITIONS, Scene

from heddle import OnFailure
from heddle.broker.log import Outgoing, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import AvroCodec, Contract, MemoryRegistry, contract_of, load_contracts
from heddle.delivery.build import open_step
from heddle.delivery.steps import Budget, NoFence, Run
from heddle.event import Identity, Lineage, event_headers, stable_id
from heddle.settings import Settings
from schemas.ledger import Entry

ROOT = Path(__file__).parents[2]
SOURCE = "/sources/crm"


class Killed(BaseException):
    """The process is gone, at this point."""


class Office:
    """`emits`: contracts of events that the sink makes of answers."""

    def __init__(self, target: Target, policy: OnFailure = QUICK, emits: Iterable[Contract] = ()) -> None:
        self.target = target
        self.scene = Scene(MemoryBroker(), on_failure=policy)
        self.registry = MemoryRegistry([*load_contracts(ROOT), *emits])
        self.scene.admin.create_topics([TopicSpec(contract.topic, PARTITIONS) for contract in emits])
        self._codec: AvroCodec[Entry] = AvroCodec(contract_of(Entry), self.registry)

    def feed(self, *names: str, first: int = 0) -> None:
        """One event for each name, which is its key; ids count from `first`. A name behind a "-" is a tombstone's."""
        producer = self.scene._feeder
        producer.begin()
        for number, name in enumerate(names, first):
            identity = Identity(SOURCE, f"e{number}")
            headers = event_headers(
                identity, "ledger.entry.v1", b"2026-01-01T00:00:00Z", Lineage("r.0", identity).pack(), None, []
            )
            key, is_gone = f"default/{name.removeprefix('-')}".encode(), name.startswith("-")
            value = None if is_gone else self._codec.encode(entry(name, number))
            producer.produce([Outgoing(self.scene.subscription.topic, key, value, headers, 0)])
        producer.commit(30)

    def step(self, **options: Any) -> Any:
        sink = sink_of(self.target.url, on_failure=self.scene.on_failure, **options)
        return open_step(sink, "shop", "0" * 64, self.registry, Settings.model_validate({}))

    def states(self) -> list[tuple[str, str]]:
        """(state, code or what it waits for) of each unresolved entry."""
        found = []
        for record in self.scene.newest():
            headers = {name: (value or b"").decode() for name, value in record.headers}
            found.append((headers["heddle-state"], headers.get("heddle-blocked-by") or headers.get("heddle-code", "")))
        return found

    def effects(self) -> Counter[str]:
        return Counter(seen.headers["idempotency-key"] for seen in self.target.effects)


def keys(count: int) -> list[str]:
    return [stable_id(SOURCE, f"e{number}") for number in range(count)]


class Dying(NoFence):
    """A step whose process dies after its `n`th run: the effects are made, nothing is committed."""

    def __init__(self, step: Any, deaths: Iterator[bool]) -> None:
        self.digest, self.longest_call_s = step.digest, step.longest_call_s
        self.close = step.close
        self.holds, self.forget = step.holds, step.forget
        self._step = step
        self._deaths = deaths

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        run: Run = self._step.run(records, budget)
        if next(self._deaths, False):
            raise Killed
        return run
