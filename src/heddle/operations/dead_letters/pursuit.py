"""From a plan to its receipt: send the canary, then the rest, and watch the audit trail until all is accounted for.

Whoever watches may leave at any time: what was sent goes on without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heddle.broker.log import Admin, Broker, Reader
from heddle.delivery.command import Command, Slice
from heddle.errors import UsageError
from heddle.operations.dead_letters.entries import Shelf
from heddle.operations.dead_letters.jobs import cancellation, send_slices, send_to_all, signed, workers_of
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.receipt import Receipt, Result, entry_names
from heddle.operations.dead_letters.trail import Trail
from heddle.operators import OperatorKey

POLL_S: Final = 0.2
WORKER_CHECK_S: Final = 2.0
NO_WORKER_AFTER_S: Final = 10.0
"""A rolling restart leaves a group empty for a moment."""

FOLLOWERS_QUIET_S: Final = 2.0
MIN_RUNS_TO_JUDGE: Final = 20
"""As the owners have it: a share of fewer runs says nothing."""


class End(StrEnum):
    COMPLETE = "complete"
    CANARY_FAILED = "canary failed"
    NO_WORKER = "no worker"
    WAITS_FOR_APPROVAL = "waits for approval"


@dataclass(slots=True)
class Progress:
    """`sent` of `planned` targets; the receipt counts those that were sent. `aborted`: too many failed."""

    receipt: Receipt
    planned: int
    sent: int = 0
    aborted: bool = False


OnProgress = Callable[[Progress], None]


class Pursuit:
    """One plan being applied. Its clients are its own; close it."""

    def __init__(self, broker: Broker, shelf: Shelf, plan: ReplayPlan, command: Command, key: OperatorKey) -> None:
        """`command` is what the plan's slices have in common, not yet signed."""
        if plan.header.approvals > 1 and any(part.canary for part in plan.slices):
            raise UsageError(
                "a canary needs somebody who waits for it, and this plan waits for approval",
                hint="leave --canary out, or plan fewer entries first",
            )
        self.job = command.job
        self._broker = broker
        self._shelf = shelf
        self._plan = plan
        self._key = key
        self._command = signed(command, key)
        self._admin: Admin = broker.admin()
        self._reader: Reader = broker.reader()
        self._progress = Progress(Receipt(command.job, {}, plan.header.run), len(plan.targets))
        self._trail = Trail.from_now_on(self._admin, self._reader, shelf)

    @property
    def receipt(self) -> Receipt:
        return self._progress.receipt

    def run(self, on_progress: OnProgress = lambda _: None) -> End:
        """Blocks until the end. KeyboardInterrupt leaves the job to its owners."""
        numbered = list(enumerate(self._plan.slices))
        canary = [(index, part) for index, part in numbered if part.canary]
        rest = [(index, part) for index, part in numbered if not part.canary]
        for stage in (stage for stage in (canary, rest) if stage):
            self._send(stage)
            on_progress(self._progress)
            if self._plan.header.approvals > 1:
                return End.WAITS_FOR_APPROVAL
            if not self._watch(on_progress):
                return End.NO_WORKER
            if stage is canary and not self._all_good():
                return End.CANARY_FAILED
        return End.COMPLETE

    def close(self) -> None:
        self._reader.close()
        self._admin.close()

    def _send(self, stage: Sequence[tuple[int, Slice]]) -> None:
        for command in send_slices(self._broker, self._shelf, self._command, stage):
            for name in entry_names(command, self._shelf.topic_id):
                self.receipt.targets[name] = command.index
        self._progress.sent = len(self.receipt.targets)

    def _watch(self, on_progress: OnProgress) -> bool:
        """Until all that was sent is accounted for. False: there is no worker to do it."""
        checked_s = news_s = worker_seen_s = time.monotonic()
        while not (self.receipt.is_complete and self._followers_done(news_s)):
            if self._trail.feed(self.receipt, POLL_S):
                news_s = worker_seen_s = time.monotonic()
                self._abort_if_due()
                on_progress(self._progress)
            now_s = time.monotonic()
            if now_s - checked_s > WORKER_CHECK_S:
                checked_s = now_s
                if workers_of(self._admin, self._shelf):
                    worker_seen_s = now_s
                elif now_s - worker_seen_s > NO_WORKER_AFTER_S:
                    return False
        return True

    def _followers_done(self, news_s: float) -> bool:
        """They come right after their head, unless that failed again: a while without news ends the wait. Those of an
        edited head run by themselves, and no line of theirs names the job."""
        expected = 0 if self._plan.header.run else self._plan.followers
        if len(self.receipt.followers) >= expected or self.receipt.failed:
            return True
        return time.monotonic() - news_s > FOLLOWERS_QUIET_S

    def _abort_if_due(self) -> None:
        """Each owner judges its own partition; only here are all of them seen."""
        limit = self._plan.header.max_failed
        receipt = self.receipt
        if not self._progress.aborted and receipt.ran >= MIN_RUNS_TO_JUDGE and receipt.failed_ratio > limit:
            self._progress.aborted = True
            send_to_all(self._broker, self._shelf, cancellation(self._command, self._key))

    def _all_good(self) -> bool:
        return all(a.result.is_good and a.result is not Result.SKIPPED for a in self.receipt.accounts.values())
