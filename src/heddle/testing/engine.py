"""The worker, driven turn by turn on the caller's thread, and what becomes of it: pauses, a stop, crashes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event

from heddle.delivery.build import open_step
from heddle.delivery.patience import growing_delays
from heddle.delivery.settlement import Interruption, Waiting
from heddle.delivery.worker import Worker
from heddle.errors import DependencyDownError, FailureClass, UsageError
from heddle.project import sources_digest
from heddle.testing.clock import TurnEnded
from heddle.testing.faults import Crash
from heddle.testing.reading import Reading
from heddle.testing.values import Pause, PauseKind
from heddle.testing.world import World

IDLE_TURNS = 3
"""One joins the group, one takes partitions over; after the third nothing is left to do."""

MAX_CRASHES = 100
FOREVER_S = 1e6
"""For somebody in a debugger: a worker ends its process when a call takes too long, and this one is theirs."""

AUDIT_KEY = b"heddle.testing"


class Engine:
    """`stopped`: what ended the worker. A worker that has crashed is followed by the next one; one that has stopped is
    not, until `open`."""

    def __init__(self, world: World, reading: Reading) -> None:
        self._world = world
        self._reading = reading
        self._worker: Worker | None = None
        self._until_s = 0.0
        self._wait: Pause | None = None
        self._cap: Pause | None = None
        self._opening_delays = growing_delays()
        self.pauses: list[Pause] = []
        self.stopped: BaseException | None = None
        self.crashes = 0

    @property
    def paused(self) -> Pause | None:
        return self._wait or self._cap

    def open(self) -> None:
        """A worker that begins anew, if none is at work. Raises `UsageError` for a declaration that cannot be right."""
        self.stopped = None
        if self._worker is None:
            self._guarded(self._start)
        if isinstance(self.stopped, UsageError):
            raise self.stopped

    def close(self) -> None:
        """A clean end, as by SIGTERM."""
        worker, self._worker = self._worker, None
        self._forget_pauses()
        if worker is not None:
            worker.close()

    def crash(self) -> None:
        """The end of a process that is killed."""
        worker, self._worker = self._worker, None
        self._forget_pauses()
        self.crashes += 1
        if worker is not None:
            worker.abandon()

    def run(self) -> None:
        """Turn by turn, until nothing is left to do now, or a pause or a stop forbids it."""
        idle, limit = 0, self.crashes + MAX_CRASHES
        while idle < IDLE_TURNS and self._may_turn():
            idle = 0 if self._guarded(self._turn) else idle + 1
            if self.crashes >= limit:
                raise AssertionError(f"the process crashed {MAX_CRASHES} times in one run") from None

    def advance_to(self, moment: datetime) -> None:
        """As if the worker had been at work all the time: time halts wherever there is something to do."""
        clock = self._world.clock
        self.run()
        while (following := self._next_moment()) is not None and following <= moment and self.stopped is None:
            clock.move_to(following)
            self.run()
        clock.move_to(moment)
        if self._worker is not None and not self._may_turn():
            self._guarded(self._worker.stand_by)
        self.run()

    # Inside

    def _start(self) -> bool:
        world = self._world
        try:
            step = open_step(
                world.component, world.project.name, sources_digest(world.project.root), world.registry, world.settings
            )
        except DependencyDownError as error:
            until_s = world.clock.monotonic() + next(self._opening_delays)
            self._begin_pause(Waiting(Interruption(error), until_s))
            return False
        self._opening_delays = growing_delays()
        worker = Worker(
            world.subscription, step, world.broker, world.settings, audit_key=AUDIT_KEY, operators=world.operators,
            clock=world.clock,
        )  # fmt: skip
        step.longest_call_s = FOREVER_S
        worker.open(Event())
        self._worker = worker
        return True

    def _may_turn(self) -> bool:
        return self.stopped is None and self._until_s <= self._world.clock.monotonic()

    def _turn(self) -> bool:
        if self._worker is None:
            return self._start()
        worked = self._worker.turn()
        self._until_s, self._wait = 0.0, None
        self._follow_caps(self._worker)
        return worked

    def _guarded(self, act: Callable[[], bool | None]) -> bool:
        """Whether it did something. A pause, a crash and an error end it, each in its way."""
        try:
            return bool(act())
        except TurnEnded:
            assert self._worker is not None
            assert self._worker.waiting is not None
            self._begin_pause(self._worker.waiting)
            self._worker.stand_by()
            return False
        except Exception as error:
            self.stopped = error
            self.close()
            return False
        except BaseException as error:
            if not _is_crash(error):
                raise
            self.crash()
            return True

    def _begin_pause(self, waiting: Waiting) -> None:
        clock, error = self._world.clock, waiting.why.error
        left = timedelta(seconds=waiting.until_s - clock.monotonic())
        pause = Pause(_kind_of(waiting.why), error.code, str(error), clock.now, clock.now + left)
        self._until_s, self._wait = waiting.until_s, pause
        self.pauses.append(pause)

    def _forget_pauses(self) -> None:
        self._until_s, self._wait, self._cap = 0.0, None, None

    def _follow_caps(self, worker: Worker) -> None:
        full = next(iter(worker.full.values()), None)
        if full is None:
            self._cap = None
        elif self._cap is None:
            self._cap = Pause(PauseKind.CAP, "cap", full.reason, self._world.clock.now, None)
            self.pauses.append(self._cap)

    def _next_moment(self) -> datetime | None:
        """When there is something to do again; None when time brings nothing."""
        if self._wait is not None:
            return self._wait.until
        now = self._world.clock.now
        return min((time for time in self._reading.retry_times() if time > now), default=None)


def _is_crash(error: BaseException) -> bool:
    return isinstance(error, Crash) or (isinstance(error, BaseExceptionGroup) and error.subgroup(Crash) is not None)


def _kind_of(why: Interruption) -> PauseKind:
    if why.failed_alike:
        return PauseKind.BREAKER
    match why.error.failure_class:
        case FailureClass.RATE_LIMIT:
            return PauseKind.RATE_LIMIT
        case FailureClass.DEPENDENCY_DOWN:
            return PauseKind.DEPENDENCY
        case _:
            return PauseKind.RETRY
