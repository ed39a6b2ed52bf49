"""What became of a job, from the audit trail alone: the first line of each target is the one that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from heddle.audit import Line
from heddle.delivery.command import Action, Command, Kind


class Result(StrEnum):
    """How a target is accounted for."""

    APPLIED = "applied"
    ALREADY_APPLIED = "already applied"
    SUPERSEDED = "superseded"
    EMITTED = "emitted"
    DISCARDED = "discarded"
    EDITED = "edited"
    SETTLED = "settled"
    IMPORTED = "imported"
    REVEALED = "revealed"
    FAILED_AGAIN = "failed again"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    REFUSED = "refused"
    CANCELLED = "cancelled"

    @property
    def is_good(self) -> bool:
        """What was asked for, or had happened already."""
        return self not in _BAD


_BAD = frozenset({Result.FAILED_AGAIN, Result.EXPIRED, Result.REFUSED, Result.CANCELLED})
RUNS = frozenset({Result.APPLIED, Result.ALREADY_APPLIED, Result.SUPERSEDED, Result.EMITTED, Result.FAILED_AGAIN})

_RESULTS = {
    "applied": Result.APPLIED,
    "recovered": Result.ALREADY_APPLIED,
    "duplicate": Result.ALREADY_APPLIED,
    "superseded": Result.SUPERSEDED,
    "emitted": Result.EMITTED,
    "failed-again": Result.FAILED_AGAIN,
    **{str(result): result for result in Result},
}


class Account(NamedTuple):
    """One target or follower, as the trail tells it. `code`: of the failure, or why it was skipped."""

    entry: str
    result: Result
    code: str = ""
    reason: str = ""


class Event(NamedTuple):
    """An audit record about a command itself. `part`: its place in the plan, -1 for a job as a whole."""

    kind: str
    job: str
    part: int
    why: str


@dataclass(slots=True)
class Receipt:
    """`targets` by name, each with the index of its slice. An edit that also runs ends with its entries' next lines."""

    job: str
    targets: dict[str, int]
    runs_edits: bool = False
    accounts: dict[str, Account] = field(default_factory=dict)
    followers: dict[str, Account] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    refusals: dict[int, str] = field(default_factory=dict)
    cancelled: bool = False

    def line(self, line: Line) -> bool:
        """Whether it is about this job."""
        result = _RESULTS.get(line.outcome, Result.SKIPPED)
        if line.entry in self.targets:
            known = self.accounts.get(line.entry)
            open_ = known is None or known.result is Result.REFUSED  # a forged command's refusal decides nothing
            edited = self.runs_edits and known is not None and known.result is Result.EDITED
            if (line.job == self.job and open_) or (edited and result in RUNS):
                self.accounts[line.entry] = Account(line.entry, result, line.code)
                return True
        elif line.job == self.job:
            self.followers.setdefault(line.entry, Account(line.entry, result, line.code))
            return True
        return False

    def event(self, event: Event) -> bool:
        if event.job != self.job:
            return False
        match event.kind:
            case "command":
                self.accepted.add(event.part)
            case "cancel":
                self.cancelled = True
            case "refused" if event.part >= 0:
                self._refuse(event)
        return True

    @property
    def missing(self) -> int:
        return len(self.targets) - len(self.accounts) + self._unrun

    @property
    def is_complete(self) -> bool:
        return self.missing == 0

    @property
    def counts(self) -> dict[Result, int]:
        """Of the targets, in the order of `Result`; what never occurred is left out."""
        found = Counter(account.result for account in self.accounts.values())
        return {result: found[result] for result in Result if result in found}

    @property
    def failed(self) -> list[Account]:
        return [account for account in self.accounts.values() if not account.result.is_good]

    @property
    def ran(self) -> int:
        """Targets that were tried."""
        return sum(account.result in RUNS for account in self.accounts.values())

    @property
    def failed_ratio(self) -> float:
        """Of the targets that were tried; 0 as long as none was."""
        return self.counts.get(Result.FAILED_AGAIN, 0) / (self.ran or 1)

    @property
    def _unrun(self) -> int:
        return sum(a.result is Result.EDITED for a in self.accounts.values()) if self.runs_edits else 0

    def _refuse(self, event: Event) -> None:
        self.refusals[event.part] = event.why
        for entry, index in self.targets.items():
            if index == event.part:
                self.accounts.setdefault(entry, Account(entry, Result.REFUSED, reason=event.why))


def receipt_of(commands: Iterable[Command], topic_id: str) -> Receipt:
    """An empty receipt of a job; `commands` are its slices, `topic_id` is the input topic's present one."""
    acts = [command for command in commands if command.kind is Kind.ACT]
    header = acts[0].header
    targets = {name: command.index for command in acts for name in entry_names(command, topic_id)}
    return Receipt(acts[0].job, targets, header.action is Action.EDIT and header.run)


def entry_names(command: Command, topic_id: str) -> list[str]:
    """As the owner names them in the trail: `<partition>-<offset>`, with `@<topic id>` where that is another one."""
    part = command.slice
    if part is None:
        return []
    if command.header.action is Action.IMPORT:
        return [f"{part.partition}-{foreign.offset}@{foreign.origin}" for foreign in part.foreign]
    return [
        f"{part.partition}-{target.offset}" + ("" if target.topic_id == topic_id else f"@{target.topic_id}")
        for target in part.targets
    ]
