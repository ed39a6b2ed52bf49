"""The scenario: orders of many accounts, failures in one attempt of twenty, kills and rebalances, replays meanwhile.

The same on every ground; `scenario_census` says what has to hold afterwards."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import faults_flow
from faults_app import moment
from faults_project import feed
from scenario_grounds import LEDGER, Booked, Copy, Ground
from scenario_operators import Operators
from scenario_witness import Witness

from heddle.contracts import contract_of
from heddle.integration import Outcome

FLOW = faults_flow.NAME
WORKERS = (Copy(FLOW, "a"), Copy(FLOW, "b"), Copy(LEDGER, "a"))
VISITOR = Copy(FLOW, "c")
MISSPELT = [f"te{number}" for number in range(1, 9)]
STEP_TIMEOUT_S = 90.0
RECOVERY_TIMEOUT_S = 120.0
POLL_S = 0.02
DRIP = 20
DRIP_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Size:
    events: int
    accounts: int
    kills: int
    rebalances: int


@dataclass
class Scenario:
    """`fed`: all orders in the order of the log, as the ledger should know them."""

    ground: Ground
    size: Size
    dice: random.Random
    fed: list[Booked] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    rebalances: Counter[str] = field(default_factory=Counter)
    drain_s: float = 0.0
    lasted_s: float = 0.0

    def __post_init__(self) -> None:
        self.witness = Witness(self.ground.broker, self.ground.subscriptions)
        self._codec = self.ground.project.codec(self.ground.registry)
        self._order = self.ground.project.types.Order
        contract = contract_of(self._order)
        self._topic, self._key_of = contract.topic, contract.key_of
        self._seqs: Counter[str] = Counter()
        self._names = itertools.count()
        self._operators: Operators | None = None

    @property
    def operators(self) -> Operators:
        assert self._operators is not None
        return self._operators

    def play(self) -> None:
        """From the first order until everything has settled and nothing is unresolved."""
        began = time.monotonic()
        for copy in WORKERS:
            self.ground.start(copy)
        self._operators = Operators(self.ground, list(MISSPELT), random.Random(self.dice.random()))
        steps = [self._kill] * self.size.kills
        for number in range(self.size.rebalances):
            steps.append(self._visit if number % 2 else self._restart)
        self.dice.shuffle(steps)
        for left, step in zip(range(len(steps), 0, -1), steps, strict=True):
            step((self.size.events - len(self.fed)) // (left + 1))
        self._feed(self.size.events - len(self.fed))
        self._drain()
        self.lasted_s = time.monotonic() - began

    def close(self) -> None:
        if self._operators is not None:
            self._operators.stop()
        self.ground.close()
        self.witness.close()

    def until(self, what: str, holds: Callable[[], bool], timeout_s: float = STEP_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            self.ground.check()
            self.operators.check()
            assert time.monotonic() < deadline, (
                f"not within {timeout_s:g} s: {what}\n{self.ground.project.last_lines()}"
            )
            moment(POLL_S)

    # What happens

    def _kill(self, events: int) -> None:
        """One of those that are at work just now; it is started again at once, as a supervisor would."""
        self.witness.look()
        before, batches = self.witness.batches.copy(), self.dice.randint(1, 4)
        self._feed(events)
        busy: list[Copy] = []

        def somebody_works() -> bool:
            self.witness.look()
            busy[:] = [copy for copy in WORKERS if self.witness.batches[copy] - before[copy] >= batches]
            return bool(busy) or self._is_settled()

        self.until("somebody works", somebody_works)
        victim = self.dice.choice(busy or WORKERS)
        moment(self.dice.random() * 0.02)
        self.ground.kill(victim)
        self.kills[victim.component] += 1
        self.ground.start(victim)

    def _visit(self, events: int) -> None:
        """A third worker joins, takes its part of the work, and leaves."""
        self.ground.start(VISITOR)
        self._drip_until_at_work(VISITOR, events)
        self.ground.stop(VISITOR)
        self.rebalances["third worker came and went"] += 1

    def _restart(self, events: int) -> None:
        """SIGTERM: partitions are released, and taken over by others."""
        copy = self.dice.choice(WORKERS)
        self._drip_until_at_work(copy, events)
        self.ground.stop(copy)
        self.ground.start(copy)
        self.rebalances["stopped and started"] += 1

    def _drip_until_at_work(self, copy: Copy, events: int) -> None:
        """Orders keep coming while it waits for its part of them; then the rest of this step's at once."""
        self.witness.look()
        goal, end, drip_s = self.witness.batches[copy] + 1, len(self.fed) + events, 0.0

        def at_work() -> bool:
            nonlocal drip_s
            if time.monotonic() > drip_s and len(self.fed) + DRIP < self.size.events:
                drip_s = time.monotonic() + DRIP_EVERY_S
                self._feed(DRIP)
            self.witness.look()
            return self.witness.batches[copy] >= goal

        self.until(f"{copy} works", at_work)
        self._feed(max(0, end - len(self.fed)))

    def _feed(self, count: int) -> None:
        if not count:
            return
        records = []
        for _ in range(count):
            account = f"A{self.dice.randrange(self.size.accounts)}"
            self._seqs[account] += 1
            row = Booked(0, account, self._seqs[account], self.dice.randint(1, 100_000))
            is_misspelt = self.dice.random() < faults_flow.MISSPELT_SHARE
            product = self.dice.choice(MISSPELT) if is_misspelt else "tea"
            order = self._order(account=row.account, seq=row.seq, cents=row.cents, product=product)
            self.fed.append(row)
            records.append((self._key_of(order), self._codec.encode(order)))
        feed(self.ground.broker, self._topic, records, str(next(self._names)))

    # How it ends

    def _drain(self) -> None:
        """After the last fault: everything is mended, what is dead is replayed until nothing is (I7)."""
        began = time.monotonic()
        self.ground.project.mend(*MISSPELT)
        self.until("everything settled", self._is_settled, RECOVERY_TIMEOUT_S)
        self.operators.finish()
        self.until("nothing is unresolved", self._is_resolved, RECOVERY_TIMEOUT_S)
        self.until("everything is in the ledger", self._is_booked, RECOVERY_TIMEOUT_S)
        self.drain_s = time.monotonic() - began

    def _is_settled(self) -> bool:
        return self.witness.settled(FLOW) == len(self.fed)

    def _is_resolved(self) -> bool:
        """Replays meanwhile what died at its last try."""
        self.operators.replay(FLOW)
        return self._unresolved(FLOW) == 0

    def _is_booked(self) -> bool:
        self.operators.replay(LEDGER)
        return self.witness.settled(LEDGER) >= len(self.fed) and self._unresolved(LEDGER) == 0

    def _unresolved(self, name: str) -> int:
        """By the outcomes that are committed: what was parked or diverted, less what came to a good end since."""
        left = 0
        for metadata in self.witness.positions(name).values():
            live, entries = metadata.counts.by_outcome, metadata.entry_counts.by_outcome
            left += live[Outcome.PARKED] + live[Outcome.DIVERTED] + entries[Outcome.PARKED] - sum(entries.values())
        return left
