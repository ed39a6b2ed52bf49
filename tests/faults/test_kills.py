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
from faults_load import RECOVERY_TIMEOUT_S, Load, assert_holds, events, outcome_figures
from faults_watch import Watch, locked_ledger, sink_waits_for_table

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
# Rounds of (changes that the CRM posts, the first of them, kills). Before change 1,200 no deal is won.
ROUNDS = [(10_000, 1_200, 25), (10_000, 5_000, 25)] if FULL else [(2_000, 1_200, 8)]
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

    def strike(self, victim: str, deliveries: int, *, inside: bool) -> None:
        """Kill it while it works on these next deliveries. `inside`: with its transaction open.

        Who was killed twice may get over it first: a record that is killed from outside a third time, alone by then,
        cannot be told from one that kills the process (DESIGN.md, known limits)."""
        if victim != GATEWAY and self.kills[victim] and self.kills[victim] % 2 == 0:
            self._app.until(f"{victim} is calm", lambda: self._watch.is_calm(victim), RECOVERY_TIMEOUT_S)
        if inside and victim == SINK:
            self._kill_inside_database_transaction(deliveries)
        else:
            worked = self._next_progress(victim)
            with self._load.playing(deliveries):
                self._app.until(f"{victim} works", worked, RECOVERY_TIMEOUT_S)
                if inside and victim != GATEWAY:
                    self._kill_inside_kafka_transaction(victim)
                else:
                    moment(self._dice.random() * 0.05)
                    self._app.process(victim).kill()
        self.kills[victim] += 1

    def tally(self) -> str:
        by_kind = ", ".join(f"{name} {number}" for name, number in sorted(self.kills.items()))
        return f"{sum(self.kills.values())} kill -9 ({by_kind}; {self.inside} with a transaction open)"

    def _next_progress(self, victim: str) -> Callable[[], bool]:
        """The condition that it has done some more than it had when this was called."""
        more = self._dice.randint(1, PROGRESS)
        if victim != GATEWAY:
            return self._watch.progress(victim, more)
        goal = self._load.accepted + more
        return lambda: self._load.accepted >= goal

    def _kill_inside_database_transaction(self, deliveries: int) -> None:
        dsn = self._app.stack.dsn
        with locked_ledger(dsn), self._load.playing(deliveries):
            self._app.until("the sink's transaction is open", lambda: sink_waits_for_table(dsn), RECOVERY_TIMEOUT_S)
            self._app.process(SINK).kill()
            self.inside += 1

    def _kill_inside_kafka_transaction(self, victim: str) -> None:
        """Freezes it until it is caught with records written and not committed; kills it where it stands at last."""
        topic = next(s.writes[0] for s in self._app.subscriptions if s.name == victim)
        process = self._app.process(victim)
        for _ in range(OPEN_TRANSACTION_TRIES):
            process.suspend()
            if self._watch.is_transaction_left_open(topic):
                self.inside += 1
                break
            process.resume()
            moment(self._dice.random() * 0.01)
        process.kill()


def plan_of(kills: int, dice: random.Random, components: list[str]) -> list[tuple[str, bool]]:
    """Every component, the sink in both ways, the others by chance; in any order."""
    plan = [(name, name == "deal-to-invoice") for name in components] + [(SINK, True)]
    plan += [(dice.choice(components), dice.random() < 0.4) for _ in range(kills - len(plan))]
    dice.shuffle(plan)
    return plan


@pytest.mark.parametrize(("changes", "first", "kills"), ROUNDS)
def test_nothing_is_lost_or_doubled_when_processes_are_killed(
    running_app: Application,
    watch: Watch,
    changes: int,
    first: int,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    seed = os.environ.get("HEDDLE_FAULTS_SEED") or secrets.token_hex(4)
    dice = random.Random(seed)
    began = time.monotonic()
    running_app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
    with Load(running_app, watch, changes, first) as load:
        assassin = Assassin(running_app, watch, load, dice)
        plan = plan_of(kills, dice, running_app.components)
        for victim, inside in plan:
            assassin.strike(victim, len(load.deliveries) // len(plan), inside=inside)
        with load.playing():
            pass
        census, recovery_s = load.finish()
    summary = (
        f"{assassin.tally()}, {events(census):,} events, {time.monotonic() - began:.0f} s, "
        f"lag 0 after {recovery_s:.1f} s; {outcome_figures(census, load)}; seed {seed}"
    )
    record_property("summary", summary)
    assert_holds(census, summary)


def test_a_killed_supervisor_takes_its_workers_along_and_another_goes_on(
    running_app: Application, watch: Watch, record_property: Callable[[str, object], None]
) -> None:
    running_app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
    with Load(running_app, watch, 600, 1_200) as load:
        works = watch.progress(SINK)
        with load.playing():
            running_app.until("the sink works", works, RECOVERY_TIMEOUT_S)
            running_app.kill_supervisor()
        census, recovery_s = load.finish()
    summary = f"{events(census):,} events, lag 0 after {recovery_s:.1f} s; {outcome_figures(census, load)}"
    record_property("summary", summary)
    assert_holds(census, summary)
