"""The harness: one flow, source or sink at work on a log in memory, and a test that sees what becomes of failures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal

from heddle.delivery.command import Action
from heddle.event import Event
from heddle.integration import Component
from heddle.operations.dead_letters.receipt import Receipt
from heddle.testing.clock import ManualClock
from heddle.testing.engine import Engine
from heddle.testing.feeding import BY_CONTRACT, Feeder
from heddle.testing.keys import is_key
from heddle.testing.operating import EditOf, Operator, Selected, edit_of
from heddle.testing.reading import Reading
from heddle.testing.story import story
from heddle.testing.values import DeadLetter, Fed, Pause
from heddle.testing.world import open_world

_REASON = "a test"


class Harness:
    """Runs a flow, a source's conversion or a sink as a worker does, without Kafka, on the caller's thread.

    with Harness(flow) as h:
        h.feed(order(product="GTXPro"))
        h.run()
        assert h.outcomes == {"parked": 1}
        [entry] = h.dead_letters
        assert (entry.state, entry.path) == ("dead", "product")

    Everything is the real thing but the log and the clock: the same worker, decisions, transactions and commands.
    Nothing sleeps. Time stands still until `advance` moves it; a pause or a retry comes to its end in no other way.

    A test that fails within the block is told what happened (`explain`). A subscription that has stopped fails the
    test at the end of the block, unless the test has looked at `stopped`, or started it again."""

    def __init__(self, component: Component) -> None:
        self._component = component
        self._has_looked = False

    def __enter__(self) -> Harness:
        with ExitStack() as stack:
            self._world = stack.enter_context(open_world(self._component))
            self._reading = Reading(self._world)
            self._engine = Engine(self._world, self._reading)
            self._feeder = Feeder(self._world)
            self._operator = Operator(self._world, self._engine)
            stack.callback(self._engine.close)
            self._engine.open()
            self._engine.run()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stopped = self._engine.stopped
        told = self._told() if error is not None or stopped is not None else ""
        self._stack.close()
        if error is not None:
            error.add_note(told)
        elif stopped is not None and not self._has_looked:
            stopped.add_note(told)
            raise stopped

    # What comes in

    def feed(self, value: Any, *, key: str | None = BY_CONTRACT, id: str = "", time: datetime | None = None) -> Fed:
        """One event of the contract that the component reads, as of now, with an id of its own.

        `key` is the contract's own unless it is given (`D-1` is short for `default/D-1`); None is a null key. Raises
        `EncodeError` for a value that its contract refuses."""
        return self._feeder.value(value, key, id, time)

    def feed_tombstone(self, key: Any, *, id: str = "", time: datetime | None = None) -> Fed:
        """A record with a key and no value: the entity of that key is gone. For a flow or a sink.

        `key`: as text (`D-1` is short for `default/D-1`), or a value of the contract, or a dict of its key fields. What
        the component makes of it says its `on_tombstone`. Raises `EncodeError` for a key field that is missing."""
        return self._feeder.tombstone(key, id, time)

    def feed_bytes(self, data: bytes | None, *, key: str | None = None, id: str = "") -> Fed:
        """A record that nobody should have written: bytes as they are, or null."""
        return self._feeder.raw(data, key, id)

    def deliver(self, body: Any, *, headers: Mapping[str, str] | None = None, id: str | None = None) -> Fed:
        """A delivery to a webhook source, as its gateway keeps it once the signature was found to be right.

        `body`: bytes or text as they are, all else as JSON. `id`: what the vendor's signature headers name it; without
        it the source's `delivery_id` counts, else a hash of the body."""
        return self._feeder.delivery(body, headers or {}, id)

    # What happens

    @property
    def now(self) -> datetime:
        return self._world.clock.now

    @property
    def clock(self) -> ManualClock:
        """For fakes that need the time. Move it with `advance`."""
        return self._world.clock

    def run(self) -> Harness:
        """Until nothing is left to do at the present time, or the subscription pauses or stops."""
        self._engine.run()
        return self

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> Harness:
        """Let so much time pass, with the worker at work: retries and probes happen in it, each at its time."""
        return self.advance_to(self.now + timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days))

    def advance_to(self, moment: datetime) -> Harness:
        """For example to `entry.retry_at`, or to `h.paused.until`."""
        self._engine.advance_to(moment)
        return self

    def restart(self, component: Component | None = None) -> Harness:
        """Stop cleanly and start again; with another version of the component, as a deployment does.

        Starts also what has stopped. Call `run` to go on."""
        self._engine.close()
        if component is not None:
            self._world.deploy(component)
        self._engine.open()
        return self

    def crash(self) -> Harness:
        """Kill the process between two batches; the next one takes over. (`Crash`, raised by a handler or a fake, kills
        it in the middle of one.)"""
        self._engine.crash()
        self._engine.open()
        return self

    # What came of it

    @property
    def outcomes(self) -> dict[str, int]:
        """How many events settled how: emitted, applied, duplicate, superseded, parked, diverted."""
        return _counted(self._reading.metadata().counts.by_outcome)

    @property
    def entry_outcomes(self) -> dict[str, int]:
        """The same for runs of dead letters."""
        return _counted(self._reading.metadata().entry_counts.by_outcome)

    @property
    def recovered(self) -> int:
        """Of what was applied: effects that a crashed try had made already."""
        metadata = self._reading.metadata()
        return metadata.counts.recovered + metadata.entry_counts.recovered

    def history(self, fed: Fed) -> list[str]:
        """What became of one event, by the audit trail: its outcome, then each run and each act on its dead letter."""
        return self._reading.history(fed)

    @property
    def outputs(self) -> list[Any]:
        """The values that were emitted, in the order of the log; of several output topics one after the other. None for
        a tombstone."""
        return [event.value for event in self.emitted]

    def outputs_of(self, key: str) -> list[Any]:
        """Those of one key, in order."""
        return [event.value for event in self.emitted if is_key(key, event.key)]

    @property
    def emitted(self) -> list[Event[Any]]:
        """`outputs` with identity, key, time and headers."""
        return self._reading.emitted()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Those that are unresolved, in the order of the log."""
        return self._reading.dead_letters()

    @property
    def paused(self) -> Pause | None:
        """Why nothing is attempted now; None while it works, or has nothing to do."""
        return self._engine.paused

    @property
    def pauses(self) -> list[Pause]:
        """All waits so far, one for each try that ended in one."""
        return list(self._engine.pauses)

    @property
    def stopped(self) -> BaseException | None:
        """What ended the subscription: `Stop`, `AuthError`, or an error that nobody foresaw."""
        self._has_looked = True
        return self._engine.stopped

    @property
    def crashes(self) -> int:
        return self._engine.crashes

    def explain(self) -> str:
        """What happened, in a few lines."""
        return story(self._world, self._engine, self._reading)

    def _told(self) -> str:
        """Nothing that goes wrong here may hide why a test failed."""
        try:
            return self.explain()
        except Exception as error:
            return f"what happened cannot be told: {type(error).__name__}: {error}"

    # What on-call does

    def replay(self, *entries: Selected, reason: str = _REASON, **filters: Any) -> Receipt:
        """`heddle dlq replay`: run entries again now, by a signed command, and wait for the receipt.

        `entries` are dead letters or their names; `filters` as on the command line: `key=`, `fingerprint=`, `code=`,
        `failure_class=`, `states=`, `where=`. With neither: all of them. Moves the clock by a moment."""
        return self._operator.act(Action.REPLAY, entries, filters, reason)

    def discard(self, *entries: Selected, reason: str = _REASON, **filters: Any) -> Receipt:
        """`heddle dlq discard`; selects as `replay`."""
        return self._operator.act(Action.DISCARD, entries, filters, reason)

    def edit(
        self, *entries: Selected, to: EditOf, replay: bool = True, reason: str = _REASON, **filters: Any
    ) -> Receipt:
        """`heddle dlq edit --set … --replay`: correct bodies, and run them. Selects as `replay`.

        `to`: new values by field path, in the JSON form of the contract (`{"product": "GTX Pro"}`), or a function from
        the old document to the new one. Raises `ContractError` for a body that the contract refuses."""
        return self._operator.act(Action.EDIT, entries, filters, reason, change_of=edit_of(to), run=replay)

    def settle(self, *entries: Selected, applied: bool, reason: str = _REASON, **filters: Any) -> Receipt:
        """`heddle dlq settle`: decide entries whose effect is unknown. Selects as `replay`."""
        settle_as: Literal["applied", "not-applied"] = "applied" if applied else "not-applied"
        return self._operator.act(Action.SETTLE, entries, filters, reason, settle_as=settle_as)


def _counted(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(outcome): count for outcome, count in counts.items() if count}
