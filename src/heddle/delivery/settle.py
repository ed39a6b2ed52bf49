"""Every record and every due entry to exactly one outcome: what a batch's one transaction will hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, takewhile
from operator import attrgetter

from heddle.audit import AuditTrail
from heddle.broker.log import Headers, Outgoing, Record
from heddle.delivery.breaker import decides
from heddle.delivery.classify import fingerprint
from heddle.delivery.clock import Clock
from heddle.delivery.envelope import Entry, Envelope, State, original_of
from heddle.delivery.index import EntryId, PartitionIndex
from heddle.delivery.judge import Judge, interrupted_by
from heddle.delivery.revision import revised
from heddle.delivery.settlement import Change, Due, Settlement, size_in_log
from heddle.delivery.steps import SKIPPED, Budget, FailedKeys, Recovered, Result, Run, Step, parsed_headers
from heddle.errors import BrokerError, DependencyDownError, Failure, FailureClass
from heddle.event import TRACEPARENT
from heddle.integration import Applied, Outcome
from heddle.on_failure import Order, holds_keys

# Keys, the seven headers and the frame of a record batch: only what comes near the limit, or carries headers of
# others, is measured exactly.
OVERHEAD_BYTES = 4096
OWN_HEADERS = 7

PartitionRun = tuple[int, list[Record]]
"""A partition, and records of it that follow one another in a batch."""


@dataclass(slots=True)
class Settler:
    """Runs a subscription's step over a batch and settles what came out. Holds no state between batches."""

    step: Step
    order: Order
    indexes: Mapping[int, PartitionIndex]
    envelope: Envelope
    trail: AuditTrail
    clock: Clock
    judge: Judge
    max_output_bytes: int

    def settle(
        self, live: Sequence[Record], due: Sequence[Due], budget: Budget, *, condemned: Failure | None = None
    ) -> Settlement:
        """Due entries go before live records. Raises what `Step.run` raises; then nothing is settled.

        `condemned`: the one record or entry that was handed over is not run, because it has killed the process."""
        runs = _runs(live)
        blocked = self._blocked(runs, self._taken(due))
        attempt = [each.record for each in due]
        attempt += live if blocked is None else [r for r, waits in zip(live, blocked, strict=True) if not waits]
        run = Run([condemned] if condemned is not None else [])
        if attempt and condemned is None:
            run = self.step.run(attempt, budget)
        results = self._checked(run)
        cut = self.judge.cut(attempt, due, results, run.interrupted)
        out = Settlement(interrupted=cut.interruption)
        failed = FailedKeys(by_key=holds_keys(self.order))
        for each, result in zip(due, results[: cut.at], strict=False):
            self._settle_due(each, run.listed(result), failed, out)
        if cut.at >= len(due):
            self._settle_live(live, _answers(blocked, results[len(due) : cut.at]), run, failed, out)
            self._account(runs, out)
        return out

    def probe(self, live: Sequence[Record], due: Sequence[Due], budget: Budget, turn: int) -> Settlement | None:
        """While the breaker is open: try one record, of another key each `turn`, so that keys with troubles of their
        own do not speak for the target. Nothing is settled by it: what took effect is recognised when it comes again.

        One that says nothing about the target is followed by another. None when one went well, and the breaker is
        closed; when all of them say nothing, so that they are no reason to wait; and when nothing would be attempted
        anyway, because all of it waits behind entries: that takes no target to settle."""
        blocked = self._blocked(_runs(live), {})
        first_of: dict[tuple[int, bytes | int], Record] = {}
        heads = [entry.record for entry in due]
        heads += [r for n, r in enumerate(live) if blocked is None or not blocked[n]]
        for each in heads:
            first_of.setdefault((each.partition, each.offset if each.key is None else each.key), each)
        if not first_of:
            return None
        probes, first = list(first_of.values()), turn % len(first_of)
        for record in (probes[first:] + probes[:first])[: self.judge.policy.breaker.keys]:
            run = self.step.run([record], budget)
            result = run.results[0] if run.results else None
            if result is not None and not isinstance(result, Failure):
                self.judge.board.succeeded()
                return None
            if result is None or decides(result):
                error = run.interrupted or DependencyDownError(self.judge.board.reason or "")
                failed = [(record.key, result)] if isinstance(result, Failure) else []
                return Settlement(interrupted=interrupted_by(error, failed))
        return None

    # What is attempted

    def _taken(self, due: Sequence[Due]) -> dict[int, set[EntryId]]:
        taken: dict[int, set[EntryId]] = {}
        for each in due:
            taken.setdefault(each.entry.partition, set()).add(each.entry_id)
        return taken

    def _blocked(self, runs: Sequence[PartitionRun], taken: dict[int, set[EntryId]]) -> list[bool] | None:
        """Which live records are not attempted; None when all are."""
        if all(index.is_empty for index in self.indexes.values()):
            return None
        blocked: list[bool] = []
        for partition, records in runs:
            if partition in taken:
                blocked += [self._waits(record, taken[partition]) for record in records]
            else:
                blocked += self.indexes[partition].blocked(records)
        return blocked if True in blocked else None

    def _waits(self, record: Record, taken: set[EntryId]) -> bool:
        index = self.indexes[record.partition]
        if index.holds(record):
            return True
        return index.blocking(record) is not None and not index.covers(record.key, taken)

    # Entries

    def _settle_due(self, due: Due, result: Result, failed: FailedKeys, out: Settlement) -> None:
        """What was skipped because its lane's head failed stays as it is: no version of it is written."""
        if result is SKIPPED or (due.is_ordered and failed.head_of(due.record) is not None):
            return
        if isinstance(result, Failure):
            self._fail_again(due, result, out)
            if due.is_ordered:
                failed.add(due.record)
            return
        outcome, recovered = Outcome.EMITTED, isinstance(result, Recovered)
        if isinstance(result, list):
            edit = due.entry.edit
            out.outputs += result if not edit else [revised(output, edit) for output in result]
        else:
            assert isinstance(result, Applied)
            outcome, recovered = result.outcome, result.recovered
        self._resolve(due, outcome, recovered, out)

    def _resolve(self, due: Due, outcome: Outcome, recovered: bool, out: Settlement) -> None:
        entry = due.entry
        out.entry_tally[entry.partition, outcome] += 1
        out.entry_recovered[entry.partition] += recovered
        if entry.edit:
            marker, identity = self.envelope.marker(due.stored, State.REVISED), parsed_headers(due.record).identity
            renewed = entry.renewed(state=State.REVISED, appended_ms=self.clock.wall_ms())
            out.change(Change(marker, renewed, put=False, marks=identity))
        else:
            out.change(Change(self.envelope.resolved(entry), entry, put=False))
        self._note(due, "recovered" if recovered else str(outcome), out, state="resolved")
        out.ran.append((due, True))
        out.succeeded += 1
        self._supersede(due.record, out)

    def _fail_again(self, due: Due, failure: Failure, out: Settlement) -> None:
        entry = due.entry
        state, retry_after_ms = self.judge.parked_as(failure, entry)
        outgoing = self.envelope.failed(
            original_of(due.stored), failure, state, retry_after_ms=retry_after_ms, was=entry, earlier=due.stored
        )
        renewed = entry.renewed(
            state=state, attempts=entry.attempts + 1, retry_after_ms=retry_after_ms,
            first_failed_ms=entry.first_failed_ms or self.clock.wall_ms(), appended_ms=self.clock.wall_ms(),
        )  # fmt: skip
        out.change(Change(outgoing, renewed, put=True))
        out.entry_tally[entry.partition, Outcome.PARKED] += 1
        out.failures.append((due.record.key, failure))
        self._note(due, "failed-again", out, state=str(state), code=failure.code, failure=failure)
        out.ran.append((due, False))

    def _note(
        self, due: Due, outcome: str, out: Settlement, *, state: str, code: str = "", failure: Failure | None = None
    ) -> None:
        entry = due.entry
        line = self.trail.line(
            due.record, outcome, entry=entry_name(entry, self.envelope.topic_id), version=entry.version,
            job="" if due.run is None else due.run.job, state=state, code=code, attempts=entry.attempts + 1,
            fingerprint="" if failure is None else fingerprint(failure),
        )  # fmt: skip
        out.line(entry.partition, line)

    # Live records

    def _settle_live(
        self, live: Sequence[Record], answers: Iterable[Result], run: Run, failed: FailedKeys, out: Settlement
    ) -> None:
        """`answers` may end before `live` does: the rest is the unattempted tail. Nearly all of them are outputs and
        nothing else to say, and take the short way; what is tallied here is only what does not. Neighbours in the run's
        `batch` are sent as one part of it, from `first` up to `after`."""
        is_short, heads, number, others = not self.trail.regulated and self.order != "supersede", failed.heads, 0, 0
        first = after = 0
        for record, result in zip(live, answers, strict=False):
            if is_short and type(result) is int and (not heads or (record.partition, record.key) not in heads):
                if result != after:
                    first = result
                after = result + 1
            else:
                out.send(run.batch, first, after)
                first, out.settled = after, number
                outcome = self._outcome(record, run.listed(result), failed, out)
                if outcome is None:
                    break
                out.tally[record.partition, outcome] += 1
                others += 1
            number += 1
        else:
            out.send(run.batch, first, after)
        out.settled = number
        out.succeeded += number - others

    def _outcome(self, record: Record, result: Result, failed: FailedKeys, out: Settlement) -> Outcome | None:
        """None: the batch has to end before this record, which was left out for another reason than its own key's."""
        head = failed.head_of(record)
        if head is not None or result is SKIPPED:
            return self._not_attempted(record, head, out)
        if isinstance(result, list):
            out.outputs += result
            out.recovered[record.partition] += isinstance(result, Recovered)
            outcome = Outcome.EMITTED
        elif isinstance(result, Applied):
            out.recovered[record.partition] += result.recovered
            outcome = result.outcome
        else:
            assert isinstance(result, Failure)
            self._park(record, result, out)
            failed.add(record)
            return Outcome.PARKED
        out.succeeded += 1
        self._supersede(record, out)
        if self.trail.regulated or outcome in (Outcome.DUPLICATE, Outcome.SUPERSEDED):
            out.line(record.partition, self.trail.line(record, str(outcome)))
        return outcome

    def _account(self, runs: Sequence[PartitionRun], out: Settlement) -> None:
        """Offsets and payloads of what has settled. What was not tallied by itself was emitted."""
        left = out.settled
        for partition, records in runs:
            if left <= 0:
                break
            settled = records[:left]
            left -= len(settled)
            out.first_offsets.setdefault(partition, settled[0].offset)
            out.next_offsets[partition] = settled[-1].offset + 1
            out.values.setdefault(partition, []).extend([record.value for record in settled])
        for partition, values in out.values.items():
            emitted = len(values) - sum(n for (where, _), n in out.tally.items() if where == partition)
            if emitted:
                out.tally[partition, Outcome.EMITTED] += emitted

    def _not_attempted(self, record: Record, head: int | None, out: Settlement) -> Outcome | None:
        index = self.indexes[record.partition]
        if index.holds(record):
            out.line(record.partition, self.trail.line(record, str(Outcome.DUPLICATE), state="entry"))
            return Outcome.DUPLICATE
        if head is None:
            head = index.blocking(record)
        if head is None:
            if not out.settled and not out.ran:
                raise BrokerError(
                    f"offset {record.offset} of {record.topic}/{record.partition} was left without an answer"
                )
            return None
        outgoing = self.envelope.waiting(record, f"{record.partition}-{head}")
        out.change(Change(outgoing, self._entry(record, State.WAITING), put=True))
        out.line(record.partition, self.trail.line(record, str(Outcome.DIVERTED), state=str(State.WAITING)))
        return Outcome.DIVERTED

    def _park(self, record: Record, failure: Failure, out: Settlement) -> None:
        state, retry_after_ms = self.judge.parked_as(failure, None)
        outgoing = self.envelope.failed(record, failure, state, retry_after_ms=retry_after_ms)
        entry = self._entry(record, state, attempts=1, retry_after_ms=retry_after_ms)
        out.change(Change(outgoing, entry, put=True))
        out.failures.append((record.key, failure))
        line = self.trail.line(
            record, str(Outcome.PARKED), state=str(state), code=failure.code, attempts=1,
            fingerprint=fingerprint(failure),
        )  # fmt: skip
        out.line(record.partition, line)

    def _entry(self, record: Record, state: State, *, attempts: int = 0, retry_after_ms: int = 0) -> Entry:
        now_ms = self.clock.wall_ms()
        return Entry(
            self.envelope.topic_id, record.partition, record.offset, record.key, -1, state, len(record.value or b""),
            attempts, now_ms, retry_after_ms, now_ms if attempts else 0,
        )  # fmt: skip

    def _supersede(self, record: Record, out: Settlement) -> None:
        """A newer event of the entity took effect: what is parked of it from before has nothing to say any more."""
        if self.order != "supersede":
            return
        pending = [c.entry for c in out.changes.values() if c.put and c.entry.key == record.key]
        known = {(entry.topic_id, entry.offset): entry for entry in pending}
        for entry in self.indexes[record.partition].older(record.key, record.offset):
            known.setdefault((entry.topic_id, entry.offset), entry)
        for entry in known.values():
            if entry.offset >= record.offset or entry.key is None or entry.partition != record.partition:
                continue
            change = out.changes.get((entry.partition, EntryId(entry.topic_id, entry.offset)))
            if change is not None and not change.put:
                continue
            out.change(Change(self.envelope.resolved(entry), entry, put=False))
            name = entry_name(entry, self.envelope.topic_id)
            line = self.trail.line(record, str(Outcome.SUPERSEDED), entry=name, version=entry.version, state="resolved")
            out.line(record.partition, line)

    def _checked(self, run: Run) -> list[Result]:
        """The results, with a failure in place of outputs one of which the log would refuse for its size."""
        outputs = list(chain.from_iterable([result for result in run.results if isinstance(result, list)]))
        near = run.carries or self._may_be_too_large(run.batch.keys, run.batch.values)
        if not (near or self._may_any_be_too_large(outputs)):
            return run.results
        return [self._measured(result, run.listed(result)) for result in run.results]

    def _may_any_be_too_large(self, outputs: list[Outgoing]) -> bool:
        if not outputs:
            return False
        _, keys, values, headers, _ = zip(*outputs, strict=True)
        return any(map(_carries, headers)) or self._may_be_too_large(keys, values)

    def _may_be_too_large(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> bool:
        """Whether any of them, with headers of ours alone, comes near the limit and has to be measured."""
        longest = max(map(len, filter(None, values)), default=0) + max(map(len, filter(None, keys)), default=0)
        return longest + OVERHEAD_BYTES > self.max_output_bytes

    def _measured(self, result: Result, outputs: Result) -> Result:
        """`outputs`: the result's own, listed."""
        for output in outputs if isinstance(outputs, list) else ():
            size = size_in_log(output)
            if size > self.max_output_bytes:
                message = f"an output of {size} bytes is over the {self.max_output_bytes} that {output.topic} takes"
                return Failure(0, FailureClass.CONTRACT, "too-large", "", message)
        return result


def _carries(headers: Headers) -> bool:
    """Whether others than ours are among them, which come last; also for ours without a trace."""
    return len(headers) != OWN_HEADERS or headers[-1][0] != TRACEPARENT


def _runs(records: Sequence[Record]) -> list[PartitionRun]:
    return [(partition, list(run)) for partition, run in groupby(records, key=attrgetter("partition"))]


def _answers(blocked: list[bool] | None, results: list[Result]) -> Iterable[Result]:
    """One for each live record, as far as `results` go, which has none for the blocked ones."""
    if blocked is None:
        return results
    answers = iter(results)
    given = (SKIPPED if waits else next(answers, None) for waits in blocked)
    return takewhile(lambda answer: answer is not None, given)  # type: ignore[arg-type]


def entry_name(entry: Entry, topic_id: str) -> str:
    """As people type it: `<partition>-<offset>`, with the topic's id where that is not the input topic's own."""
    name = f"{entry.partition}-{entry.offset}"
    return name if entry.topic_id == topic_id else f"{name}@{entry.topic_id}"
