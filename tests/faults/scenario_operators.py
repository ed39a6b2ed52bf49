"""Operators at work while everything breaks: they mend what can be mended and replay what is dead."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from dataclasses import dataclass, field

from scenario_grounds import Ground

from heddle.delivery.command import Action
from heddle.errors import UsageError
from heddle.operations.dead_letters.jobs import find_job, first_command
from heddle.operations.dead_letters.pursuit import End, Pursuit
from heddle.operations.dead_letters.receipt import Receipt
from heddle.operations.dead_letters.select import selection
from heddle.operations.dead_letters.session import open_session
from heddle.operations.dead_letters.trail import receipts_of

IDLE_S = 0.2
JOIN_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A job, as its sender saw it end."""

    subscription: str
    job: str
    end: End
    targets: int


@dataclass
class Operators:
    """A thread of its own. `misspelt`: the products that are mended one by one."""

    ground: Ground
    misspelt: list[str]
    dice: random.Random
    sent: list[Sent] = field(default_factory=list)
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="operators", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT_S)

    def finish(self) -> None:
        self.stop()
        assert not self._thread.is_alive(), "the operators do not come to an end"
        self.check()

    def replay(self, name: str) -> bool:
        """Everything of a subscription that is dead, if anything is; waits for what comes of it."""
        ground = self.ground
        with open_session(ground.declared, ground.settings, name, ground.broker, ground.registry) as session:
            dead = selection([name], states=["dead"])
            if not session.select(dead)[0]:
                return False
            try:
                plan, _ = session.plan(session.header(Action.REPLAY), dead)
            except UsageError:  # all of it was resolved since
                return False
            key = ground.project.key_of(self.dice)
            with closing(Pursuit(ground.broker, session.shelf, plan, first_command(plan, "a try"), key)) as pursuit:
                end = pursuit.run()
                self.sent.append(Sent(name, pursuit.job, end, len(plan.targets)))
        return True

    def receipts(self) -> list[Receipt]:
        """What the topics tell of every job."""
        ground = self.ground
        found = []
        for name in ground.components:
            with open_session(ground.declared, ground.settings, name, ground.broker, ground.registry) as session:
                jobs = [
                    find_job(session.reader, [session.shelf], s.job)[1] for s in self.sent if s.subscription == name
                ]
                found += receipts_of(session.reader, session.shelf, jobs) if jobs else []
        return found

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._round()
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        name = self.dice.choice(sorted(self.ground.components))
        if not self.replay(name):
            self._stop.wait(IDLE_S)
        elif self.misspelt and self.dice.random() < 0.5:
            self.ground.project.mend(self.misspelt.pop())
