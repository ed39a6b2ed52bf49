"""kill -9 of every kind of process, at points that a seed decides: nothing lost, nothing twice, I1 to I7.

HEDDLE_FAULTS=full: 50 kills over more than 20,000 events (`make faults`). HEDDLE_FAULTS_SEED repeats a run."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable

import pytest
from faults_app import GATEWAY, READY_TIMEOUT_S, Application, moment
from faults_load import RECOVERY_TIMEOUT_S, Load, assert_holds, events
from faults_watch import Watch, locked_ledger, sink_waits_for

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
# Rounds of (changes that the CRM posts, the first of them, kills).
ROUNDS = [(10_000, 0, 25), (10_000, 5_000, 25)] if FULL else [(2_000, 1_000, 8)]
PROGRESS = 12
SINK = "ledger"
OPEN_TRANSACTION_TRIES = 20

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(3600 if FULL else 400)]


class Assassin:
    """Ends processes, and knows where they were when it did."""

    def __init__(self, app: Application, watch: Watch, load: Load, dice: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self.inside = 0
        self._app = app
        self._watch = watch
        self._load = load
        self._dice = dice

    def kill(self, victim: str, *, inside: bool) -> None:
        """Once it has worked on something of what is coming in now. `inside`: with its transaction open."""
        self._await_progress(victim)
        if not inside or victim == GATEWAY:
            moment(self._dice.random() * 0.05)
            self._app.process(victim).kill()
        elif victim == SINK:
            self._kill_inside_database_transaction()
        else:
            self._kill_inside_kafka_transaction(victim)
        self.kills[victim] += 1

    def _await_progress(self, victim: str) -> None:
        done: Callable[[], int] = (
            (lambda: self._load.accepted) if victim == GATEWAY else lambda: self._watch.settled(victim)
        )
        goal = done() + self._dice.randrange(PROGRESS)
        self._app.until(f"{victim} works", lambda: done() > goal, RECOVERY_TIMEOUT_S)

    def _kill_inside_database_transaction(self) -> None:
        dsn = self._app.stack.dsn
        with locked_ledger(dsn):
            self._app.until("the sink is inside its transaction", lambda: sink_waits_for(dsn, "Lock"), READY_TIMEOUT_S)
            self._app.process(SINK).kill()
            self.inside += 1

    def _kill_inside_kafka_transaction(self, victim: str) -> None:
        """Freezes it until it is caught with records written and not committed; kills it where it stands at last."""
        topic = next(s.writes[0] for s in self._app.subscriptions if s.name == victim)
        process = self._app.process(victim)
        for _ in range(OPEN_TRANSACTION_TRIES):
            process.suspend()
            if all(self._watch.has_open_transaction(topic) for _ in range(3)):
                self.inside += 1
                break
            process.resume()
            moment(self._dice.random() * 0.05)
        process.kill()


def plan_of(kills: int, dice: random.Random, components: list[str]) -> list[tuple[str, bool]]:
    """Every component, the sink in both ways, the others by chance; in any order."""
    plan = [(name, name == "deal-to-invoice") for name in components] + [(SINK, True)]
    plan += [(dice.choice(components), dice.random() < 0.4) for _ in range(kills - len(plan))]
    dice.shuffle(plan)
    return plan


@pytest.mark.parametrize(("changes", "first", "kills"), ROUNDS)
def test_nothing_is_lost_or_doubled_when_processes_are_killed(
    app: Application,
    watch: Watch,
    changes: int,
    first: int,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    seed = os.environ.get("HEDDLE_FAULTS_SEED") or secrets.token_hex(4)
    dice = random.Random(seed)
    began = time.monotonic()
    with app.running():
        app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
        load = Load(app, watch, changes, first)
        assassin = Assassin(app, watch, load, dice)
        plan = plan_of(kills, dice, app.components)
        part = len(load.deliveries) // len(plan)
        for victim, inside in plan:
            with load.playing(part):
                assassin.kill(victim, inside=inside)
        with load.playing():
            pass
        census, recovery_s = load.finish()
    total = sum(census.settled.values(), start=type(census.settled[SINK])())
    summary = (
        f"{sum(assassin.kills.values())} kill -9 ({assassin.inside} inside a transaction: "
        f"{', '.join(f'{name} {n}' for name, n in sorted(assassin.kills.items()))}), {events(census):,} events, "
        f"{time.monotonic() - began:.0f} s, lag 0 after {recovery_s:.1f} s; retried deliveries {load.crm.retried}, "
        f"recovered {total.recovered}, duplicates dropped {census.settled[SINK].by_outcome['duplicate']}; seed {seed}"  # type: ignore[index]
    )
    record_property("summary", summary)
    assert_holds(census, summary)
