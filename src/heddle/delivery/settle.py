"""Every record to exactly one outcome: what a batch's one transaction will hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from heddle.broker.log import Outgoing, Record
from heddle.delivery.envelope import Envelope
from heddle.delivery.gates import Gates
from heddle.delivery.metadata import Counts
from heddle.delivery.steps import SKIPPED, Budget, FailedKeys, Result, Step
from heddle.errors import AuthError, BrokerError, Failure, FailureClass, HeddleError
from heddle.integration import Applied, Outcome

# Keys, the seven headers and the frame of a record batch: only what comes near the limit, or carries headers of
# others, is measured exactly.
OVERHEAD_BYTES = 4096
OWN_HEADERS = 7


@dataclass(slots=True)
class Settlement:
    """The first `settled` records of a batch and everything that their outcomes imply.

    `parked` have an entry in `entries`, in the same order. `interrupted`: why the tail was cut, if it was."""

    outputs: list[Outgoing] = field(default_factory=list)
    entries: list[Outgoing] = field(default_factory=list)
    parked: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    tally: Counter[tuple[int, Outcome]] = field(default_factory=Counter)
    recovered: Counter[int] = field(default_factory=Counter)
    next_offsets: dict[int, int] = field(default_factory=dict)
    settled: int = 0
    interrupted: HeddleError | None = None

    def counts(self, partition: int) -> Counts:
        by_outcome = {outcome: self.tally[partition, outcome] for outcome in Outcome}
        return Counts(by_outcome, self.recovered[partition])


class Settler:
    """Runs a subscription's step over a batch and settles what came out. Holds no state between batches."""

    def __init__(self, step: Step, gates: Gates, envelope: Envelope, max_output_bytes: int) -> None:
        self._step = step
        self._gates = gates
        self._envelope = envelope
        self._max_output_bytes = max_output_bytes

    def settle(self, records: Sequence[Record], budget: Budget) -> Settlement:
        """Raises what `Step.run` raises; then nothing is settled."""
        if not self._gates.any():
            run = self._step.run(records, budget)
            return self._settlement(records, list(run.results), run.interrupted)
        parked = [self._gates.is_entry(record) or self._gates.blocking(record) is not None for record in records]
        attempt = [record for record, is_parked in zip(records, parked, strict=True) if not is_parked]
        run = self._step.run(attempt, budget)
        answers = iter(run.results)
        results: list[Result] = []
        for is_parked in parked:
            result = SKIPPED if is_parked else next(answers, None)
            if result is None:
                break
            results.append(result)
        return self._settlement(records, results, run.interrupted)

    def _settlement(
        self, records: Sequence[Record], results: list[Result], interrupted: HeddleError | None
    ) -> Settlement:
        """`results` may end before `records` do: the rest is the unattempted tail."""
        out = Settlement(interrupted=interrupted)
        failed = FailedKeys(by_key=self._gates.by_key)
        for record, result in zip(records, results, strict=False):
            if isinstance(result, list):
                result = self._checked(result)
            if isinstance(result, Failure) and result.failure_class in (FailureClass.AUTH, FailureClass.OURS):
                out.interrupted = _stopping(result)
                break
            outcome = self._outcome(record, result, failed, out)
            out.tally[record.partition, outcome] += 1
            out.next_offsets[record.partition] = record.offset + 1
            out.settled += 1
        return out

    def _outcome(self, record: Record, result: Result, failed: FailedKeys, out: Settlement) -> Outcome:
        head = failed.head_of(record)
        if head is not None or result is SKIPPED:
            return self._not_attempted(record, head, out)
        if isinstance(result, list):
            out.outputs += result
            return Outcome.EMITTED
        if isinstance(result, Applied):
            out.recovered[record.partition] += result.recovered
            return result.outcome
        assert isinstance(result, Failure)
        out.entries.append(self._envelope.dead(record, result))
        out.parked.append(record)
        out.failures.append(result)
        failed.add(record)
        return Outcome.PARKED

    def _not_attempted(self, record: Record, head: int | None, out: Settlement) -> Outcome:
        if self._gates.is_entry(record):
            return Outcome.DUPLICATE
        if head is None:
            head = self._gates.blocking(record)
        if head is None:
            raise BrokerError(f"offset {record.offset} of {record.topic}/{record.partition} was left without an answer")
        out.entries.append(self._envelope.waiting(record, f"{record.partition}-{head}"))
        out.parked.append(record)
        return Outcome.DIVERTED

    def _checked(self, outputs: list[Outgoing]) -> Result:
        """The outputs, or a failure when one would be refused by the log for its size."""
        limit = self._max_output_bytes
        for output in outputs:
            near = len(output.value or b"") + len(output.key or b"") + OVERHEAD_BYTES > limit
            if (near or len(output.headers) > OWN_HEADERS) and _size(output) > limit:
                message = f"an output of {_size(output)} bytes is over the {limit} that {output.topic} takes"
                return Failure(0, FailureClass.CONTRACT, "too-large", "", message)
        return outputs


def _size(output: Outgoing) -> int:
    headers = sum(len(name) + len(value or b"") + 10 for name, value in output.headers)
    return len(output.value or b"") + len(output.key or b"") + headers + 100


def _stopping(failure: Failure) -> HeddleError:
    if isinstance(failure.error, HeddleError):
        return failure.error
    return AuthError(failure.message, hint="renew the credentials, then start the worker again")
