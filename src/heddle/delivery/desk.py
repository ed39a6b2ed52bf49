"""The owner's side of commands: what operators ask is checked, done by compare-and-set, and accounted for.

A command that is read again (after a restart) finds other versions and does nothing; the first audit line of an entry
and a job is the one that counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heddle.audit import AuditTrail, Line
from heddle.broker.log import Reader, Record
from heddle.delivery.acts import changed, imported, size_of, target_of
from heddle.delivery.clock import Clock
from heddle.delivery.command import Action, Command, Kind, Target
from heddle.delivery.envelope import Entry, Envelope, State, original_of
from heddle.delivery.index import EntryId, Pace, PartitionIndex, Run
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.settlement import Change, Due, Event, Settlement, size_in_log
from heddle.delivery.subscription import Subscription
from heddle.errors import FormatError, OffsetLostError
from heddle.operators import Operators

TIMEOUT_S = 30.0
DONE_KEPT = 12
"""Commands that are remembered as done beyond one that is not."""

POLL_INTERVAL_S = 0.2
SWEEP_INTERVAL_S = 0.5
TARGETS_AT_ONCE = 200
MIN_RUNS_TO_JUDGE = 20

Fetch = Callable[[int, Sequence[int]], Mapping[int, Record]]
"""Bodies of a partition's entries by version."""


@dataclass(slots=True)
class Errand:
    """One slice that was accepted, or waits for approval: what of it is still to be done."""

    command: Command
    offset: int
    partition: int
    approved: bool
    todo: deque[int] = field(default_factory=deque)
    running: dict[EntryId, Target] = field(default_factory=dict)
    pace: Pace = field(default_factory=lambda: Pace(0))
    ran: int = 0
    failed: int = 0

    @property
    def run(self) -> Run:
        """The job, as its entries carry it."""
        return Run(self.command.job, self.pace)

    @property
    def is_done(self) -> bool:
        return self.approved and not self.todo and not self.running


class Desk:
    """One per worker, on its thread. `needed`: signatures that the project asks for, whatever a command says of it.

    `follow` names the partitions; `work` gives what is to be committed."""

    def __init__(
        self, subscription: Subscription, reader: Reader, operators: Operators, indexes: Mapping[int, PartitionIndex],
        envelope: Envelope, trail: AuditTrail, clock: Clock, fetch: Fetch, needed: Mapping[Action, int],
        max_entry_bytes: int,
    ) -> None:  # fmt: skip
        self._subscription = subscription
        self._reader = reader
        self._operators = operators
        self._indexes = indexes
        self._envelope = envelope
        self._trail = trail
        self._clock = clock
        self._fetch = fetch
        self._needed = needed
        self._max_entry_bytes = max_entry_bytes
        self._next: dict[int, int] = {}
        self._errands: dict[int, list[Errand]] = {}
        self._done: dict[int, list[int]] = {}
        self._followed: dict[int, PartitionIndex] = {}
        self._approvals: dict[bytes, set[str]] = {}  # by what was signed: a job's id alone is anybody's to choose
        self._poll_due_s = self._sweep_due_s = 0.0
        self._out = Settlement()

    def follow(self, owned: Mapping[int, PartitionMetadata]) -> None:
        """The partitions owned now, and how far their commands are; what is in hand of others is forgotten."""
        kept = {p for p in owned if p in self._next and self._followed.get(p) is self._indexes[p]}
        if kept == owned.keys() == self._next.keys():
            return
        self._next = {p: self._next[p] if p in kept else metadata.next_command for p, metadata in owned.items()}
        self._done = {p: self._done[p] if p in kept else [*metadata.done_commands] for p, metadata in owned.items()}
        self._errands = {p: self._errands[p] if p in kept else [] for p in owned}
        self._followed = {p: self._indexes[p] for p in owned}
        self._out.lines = {p: lines for p, lines in self._out.lines.items() if p in kept}
        if self._next:
            self._reader.assign(self._subscription.command_topic, self._next)

    def forget(self) -> None:
        """What `work` gave was not committed: all commands are read again."""
        for partition, errands in self._errands.items():
            for errand in errands:
                for entry_id in errand.running:
                    self._indexes[partition].cancel_run(entry_id)
        self._next.clear()
        self._errands.clear()
        self._done.clear()

    def progress(self, partition: int, known: PartitionMetadata) -> tuple[int, tuple[int, ...]]:
        """Where to read on, and what beyond that is done: one slow job must not make later ones run twice.

        Done is what is committed: lines of an errand that has just ended are not until `work` has given them out.
        `known`: as it stands before anything was read."""
        if partition not in self._next:
            return known.next_command, known.done_commands
        open_offsets = [errand.offset for errand in self._errands.get(partition, ())]
        next_command = min(open_offsets, default=self._next[partition])
        self._done[partition] = [offset for offset in self._done[partition] if offset > next_command][-DONE_KEPT:]
        return next_command, tuple(self._done[partition])

    def work(self) -> Settlement | None:
        """Take new commands in and go on with those in hand. What it returns is to be committed; if that fails, the
        next owner reads the commands again."""
        now_s = self._clock.monotonic()
        if now_s >= self._poll_due_s:
            self._poll_due_s = now_s + POLL_INTERVAL_S
            for record in self._read():
                if record.partition in self._next:
                    self._take(record)
        for errands in self._errands.values():
            for errand in errands:
                self._go_on(errand)
        if now_s >= self._sweep_due_s:
            self._sweep_due_s = now_s + SWEEP_INTERVAL_S
            self._sweep()
        for partition, errands in self._errands.items():
            self._done[partition] += [errand.offset for errand in errands if errand.is_done]
            self._errands[partition] = [errand for errand in errands if not errand.is_done]
        out, self._out = self._out, Settlement()
        return None if out.is_empty else out

    def ran(self, due: Due, *, resolved: bool) -> None:
        """A run that was ordered here has come to an end, and its line is committed."""
        if due.run is None:
            return
        for errand in self._errands.get(due.entry.partition, ()):
            if errand.command.job == due.run.job and errand.running.pop(due.entry_id, None) is not None:
                errand.ran += 1
                errand.failed += not resolved
                self._judge(errand)

    def has_done(self, partition: int, end: int) -> bool:
        """Whether nothing before that offset of the command partition will order another run, as far as it may run."""
        return self._next.get(partition, 0) >= end and not any(
            errand.approved and not errand.is_done for errand in self._errands.get(partition, ())
        )

    # Taking in

    def _read(self) -> list[Record]:
        """Positions are an optimisation: commands expire, and a topic may have been made again. Where a position lies
        outside of what is kept, everything that is kept is read."""
        topic = self._subscription.command_topic
        if not self._next:
            return []
        try:
            return self._reader.consume(100, 0.0, first_wait_s=0.0)
        except OffsetLostError:
            for partition, offset in self._next.items():
                first = self._reader.offset_at(topic, partition, 0, TIMEOUT_S)
                if not first <= offset <= self._reader.last_stable_offset(topic, partition, TIMEOUT_S):
                    self._next[partition] = first
            self._reader.assign(topic, self._next)
            return []

    def _take(self, record: Record) -> None:
        self._next[record.partition] = record.offset + 1
        if record.offset in self._done[record.partition]:
            return
        try:
            command = Command.unpack(record.value or b"")
        except FormatError as error:
            self._refuse(record.partition, {}, str(error))
            return
        problem = self._problem(command, record.partition)
        if problem is not None:
            self._refuse(record.partition, _told(command), problem)
            return
        actors = {signature.actor for signature in command.signatures}
        match command.kind:
            case Kind.APPROVE:
                self._approvals.setdefault(command.statement, set()).update(actors)
                self._tell(record.partition, "approved", command, actors)
            case Kind.CANCEL:
                self._tell(record.partition, "cancel", command, actors)
                self._cancel(record.partition, command.job, "cancelled")
            case Kind.ACT:
                self._approvals.setdefault(command.statement, set()).update(actors)
                self._tell(record.partition, "command", command, actors)
                part = command.slice
                assert part is not None
                errand = Errand(command, record.offset, record.partition, False, deque(range(size_of(command))))
                errand.pace = self._pace_of(command)
                self._errands[record.partition].append(errand)

    def _problem(self, command: Command, partition: int) -> str | None:
        """Why it is not for us, or not to be believed."""
        header = command.header
        if header.subscription != self._subscription.name:
            return f"it is for {header.subscription}"
        if not command.signatures:
            return "it is not signed"
        for actor, signature in command.signatures:
            if not self._operators.verify(actor, signature, command.statement):
                return f"the signature of {actor!r} is not that of an operator known here"
        if command.kind is not Kind.ACT:
            return None
        if command.slice is None or command.slice.partition != partition:
            return "its slice belongs to another partition"
        if header.action is Action.EDIT and len(command.slice.bodies) != len(command.slice.targets):
            return "it has not one body for each entry"
        runs = header.action is Action.REPLAY or header.run
        if runs and header.handler and header.handler != self._envelope.handler:
            return "the handler has changed since it was planned"
        return None

    def _refuse(self, partition: int, told: dict[str, Any], reason: str) -> None:
        self._out.events.append(Event(partition, "refused", told | {"why": reason}))

    def _tell(self, partition: int, kind: str, command: Command, actors: Iterable[str]) -> None:
        self._out.events.append(Event(partition, kind, _told(command) | {"actors": sorted(actors)}))

    def _pace_of(self, command: Command) -> Pace:
        """One for all slices of a job in a partition."""
        part = command.slice
        known = self._errands[part.partition] if part is not None else []
        same = (errand.pace for errand in known if errand.command.job == command.job)
        return next(same, Pace(command.header.rate_per_s))

    # Doing

    def _go_on(self, errand: Errand) -> None:
        command = errand.command
        if not errand.approved:
            needed = max(command.header.approvals, self._needed.get(command.header.action, 1))
            errand.approved = len(self._approvals.get(command.statement, ())) >= needed
        if self._clock.wall_ms() > command.expires_at_ms:
            errand.approved = True
            self._end(errand, "expired")
        if not errand.approved or not errand.todo:
            return
        numbers = [errand.todo.popleft() for _ in range(min(TARGETS_AT_ONCE, len(errand.todo)))]
        match command.header.action:
            case Action.REPLAY:
                for number in numbers:
                    self._order(errand, target_of(command, number))
            case Action.IMPORT:
                for number in numbers:
                    self._import(errand, number)
            case Action.REVEAL:
                for number in numbers:
                    target = target_of(command, number)
                    self._line(errand, target, "revealed", self._found(errand.partition, target))
            case _:
                self._change(errand, numbers)

    def _order(self, errand: Errand, target: Target) -> None:
        index = self._indexes[errand.partition]
        entry = self._found(errand.partition, target)
        entry_id = EntryId(target.topic_id, target.offset)
        if entry is None:
            self._line(errand, target, "skipped", None, code="changed")
            return
        if entry.state is State.UNKNOWN:
            self._line(errand, target, "skipped", entry, code="unknown")
            return
        if index.run_of(entry_id) is not None:
            self._line(errand, target, "skipped", entry, code="ordered")
            return
        errand.running[entry_id] = target
        index.order_run(entry_id, errand.run, self._clock.monotonic())

    def _change(self, errand: Errand, numbers: Sequence[int]) -> None:
        """Discard, edit, settle: all by a new version of the entry."""
        targets = {number: target_of(errand.command, number) for number in numbers}
        found = {number: self._found(errand.partition, target) for number, target in targets.items()}
        stored = self._fetch(errand.partition, sorted(entry.version for entry in found.values() if entry is not None))
        for number, target in targets.items():
            entry = found[number]
            record = None if entry is None else stored.get(entry.version)
            if entry is None or record is None:
                self._line(errand, target, "skipped", None, code="changed")
            else:
                self._change_one(errand, number, entry, record)

    def _change_one(self, errand: Errand, number: int, entry: Entry, record: Record) -> None:
        now_ms = self._clock.wall_ms()
        change, outcome = changed(errand.command, number, entry, record, self._envelope, now_ms, errand.run)
        target = target_of(errand.command, number)
        if change is None:
            self._line(errand, target, "skipped", entry, code=outcome)
            return
        if size_in_log(change.outgoing) > self._max_entry_bytes:
            self._line(errand, target, "skipped", entry, code="too-large")
            return
        self._out.change(change)
        self._line(errand, target, outcome, entry, record=original_of(record))

    def _import(self, errand: Errand, number: int) -> None:
        part = errand.command.slice
        assert part is not None
        foreign, target = part.foreign[number], target_of(errand.command, number)
        entry_id = EntryId(foreign.origin, foreign.offset)
        if self._indexes[errand.partition].has_met(entry_id) or (errand.partition, entry_id) in self._out.changes:
            self._line(errand, target, "skipped", None, code="exists")
            return
        try:
            record, change = imported(foreign, errand.partition, self._envelope, self._clock.wall_ms())
        except FormatError:  # nobody could read that entry again
            self._line(errand, target, "skipped", None, code="unreadable")
            return
        is_too_large = size_in_log(change.outgoing) > self._max_entry_bytes
        if is_too_large or not self._indexes[errand.partition].room():
            self._line(errand, target, "skipped", None, code="too-large" if is_too_large else "cap")
            return
        self._out.change(change)
        self._line(errand, target, "imported", None, record=record)

    # Ending

    def _sweep(self) -> None:
        """Targets that another job or a live record has decided, or whose lane is held up by a failed head; and
        markers that have outlived the rewind horizon."""
        for index in self._indexes.values():
            for marker in index.expired_markers(self._clock.wall_ms(), TARGETS_AT_ONCE):
                self._out.change(Change(self._envelope.resolved(marker), marker, put=False))
        for partition, errands in self._errands.items():
            index = self._indexes[partition]
            for errand in errands:
                for entry_id, target in list(errand.running.items()):
                    run = index.run_of(entry_id)
                    if run is None or run.job != errand.command.job:
                        self._drop(errand, entry_id, target, "skipped", "changed")
                    elif index.is_held_up(entry_id):
                        index.cancel_run(entry_id)
                        self._drop(errand, entry_id, target, "skipped", "blocked")

    def _drop(self, errand: Errand, entry_id: EntryId, target: Target, outcome: str, code: str) -> None:
        del errand.running[entry_id]
        self._line(errand, target, outcome, self._indexes[errand.partition].get(entry_id), code=code)

    def _judge(self, errand: Errand) -> None:
        if errand.ran >= MIN_RUNS_TO_JUDGE and errand.failed / errand.ran > errand.command.header.max_failed:
            self._cancel(errand.partition, errand.command.job, "cancelled")

    def _cancel(self, partition: int, job: str, outcome: str) -> None:
        for errand in self._errands[partition]:
            if errand.command.job == job:
                errand.approved = True
                self._end(errand, outcome)

    def _end(self, errand: Errand, outcome: str) -> None:
        index = self._indexes[errand.partition]
        for entry_id, target in list(errand.running.items()):
            index.cancel_run(entry_id)
            self._drop(errand, entry_id, target, outcome, "")
        while errand.todo:
            target = target_of(errand.command, errand.todo.popleft())
            self._line(errand, target, outcome, self._found(errand.partition, target))

    def _found(self, partition: int, target: Target) -> Entry | None:
        """Compare-and-set: the entry in the version that the plan saw."""
        entry_id = EntryId(target.topic_id, target.offset)
        entry = self._indexes[partition].get(entry_id)
        is_same = entry is not None and entry.version == target.version
        return entry if is_same and (partition, entry_id) not in self._out.changes else None

    def _line(
        self, errand: Errand, target: Target, outcome: str, entry: Entry | None, *, code: str = "",
        record: Record | None = None,
    ) -> None:  # fmt: skip
        partition = errand.partition
        name = f"{partition}-{target.offset}"
        if target.topic_id != self._envelope.topic_id:
            name = f"{name}@{target.topic_id}"
        line = Line(target.offset, outcome) if record is None else self._trail.line(record, outcome)
        line = line._replace(
            entry=name, version=target.version, job=errand.command.job, code=code,
            state="" if entry is None else str(entry.state), attempts=0 if entry is None else entry.attempts,
        )  # fmt: skip
        self._out.line(partition, line)


def _told(command: Command) -> dict[str, Any]:
    """What the audit trail keeps of a command."""
    return {
        "job": command.job,
        "action": command.header.action,
        "plan": command.plan_hash,
        "index": command.index,
        "targets": 0 if command.slice is None else size_of(command),
        "reason": command.reason,
        "os_user": command.os_user,
        "expires_at_ms": command.expires_at_ms,
        "actors": [signature.actor for signature in command.signatures],
    }
