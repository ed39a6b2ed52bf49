"""What a worker does with a batch: one `Step` per kind of component, all batch-shaped, all on the worker's thread."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from heddle.broker.log import Outgoing, OutgoingBatch, Record
from heddle.delivery.attempts import Attempts
from heddle.delivery.classify import Classifier, interruption
from heddle.delivery.derived import DerivedHeaders
from heddle.errors import Failure, FailureClass, HeddleError, UsageError
from heddle.event import ParsedHeaders, parse_headers
from heddle.integration import Applied
from heddle.wire.engine import Outputs

HALTS = (FailureClass.RATE_LIMIT, FailureClass.OURS)
"""Failures after which no further record is begun: the target asks for a pause, or somebody for a stop."""

ONCE = Attempts(Classifier())

LONGEST_RUN_S = 90.0


class Budget:
    """Until when a batch may begin further records: to its deadline, and only while the worker is not asked to stop.

    `began` is when the call that is under way began, on `time.monotonic`; the watchdog reads it. `owned_at`: when the
    worker last knew, by a poll or a commit, that the batch's partitions are its own; None: now."""

    __slots__ = ("_deadline", "_owned_at", "_stop", "began")

    def __init__(self, limit_s: float, stop: threading.Event, owned_at: float | None = None) -> None:
        self.began = time.monotonic()
        self._owned_at = self.began if owned_at is None else owned_at
        self._deadline = self.began + limit_s
        self._stop = stop

    def begins(self) -> bool:
        """Whether one more call may begin; if so, it does now."""
        now = time.monotonic()
        if now > self._deadline or self._stop.is_set():
            return False
        self.began = now
        return True

    def is_fresh(self, limit_s: float) -> bool:
        """Whether the batch may go on, and was ours less than `limit_s` ago. One that was not is spent from here on."""
        if time.monotonic() - self._owned_at >= limit_s:
            self._deadline = -math.inf
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        return time.monotonic() > self._deadline or self._stop.is_set()


class FailedKeys:
    """Keys of which a record failed in this batch: later ones of theirs are not attempted. Null keys never are here,
    nor is any key where order does not matter. `heads`: by partition and key, the offset of the first that failed."""

    def __init__(self, *, by_key: bool) -> None:
        self._by_key = by_key
        self.heads: dict[tuple[int, bytes | None], int] = {}

    def add(self, record: Record) -> None:
        if self._by_key and record.key is not None:
            self.heads.setdefault((record.partition, record.key), record.offset)

    def head_of(self, record: Record) -> int | None:
        """Offset of the record that failed before this one."""
        return self.heads.get((record.partition, record.key)) if self.heads else None


class Streak:
    """Transient failures of a run with no success between them (whoever sees one sets `length` to 0). Past `longest`
    the run ends early, so that the breaker is asked before the rest of the batch is tried at a target that is down."""

    __slots__ = ("_longest", "length")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self.length = 0

    def ends(self, failure: Failure) -> bool:
        """Whether no further record is begun after this failure."""
        self.length += failure.failure_class is FailureClass.TRANSIENT
        return failure.failure_class in HALTS or self.length >= self._longest


class _Skipped:
    """Not attempted, because an earlier record of its key failed in this very batch."""


SKIPPED = _Skipped()


class Recovered(list[Outgoing]):
    """Output records that tell of an effect which an earlier, crashed try had made."""


Result = list[Outgoing] | int | Applied | Failure | _Skipped
"""Output records (perhaps none), the place of the only one in the run's `batch`, a sink's answer, a failure, or
`SKIPPED`."""

NO_BATCH = OutgoingBatch("", [], [], [])


class Run(NamedTuple):
    """Results of the records that were attempted, in order. Shorter than the batch when its tail was cut:
    `interrupted` says why (a dependency down or refused credentials), else the last result does (a failure that ends
    a run, see `Streak`), else it was the batch deadline. `batch`: outputs of records that have one at most; a result
    that is a number is a place in it, and of two such results the later one has the higher place. `carries`: whether
    some in it have headers of others, whose size nobody knows."""

    results: list[Result]
    interrupted: HeddleError | None = None
    batch: OutgoingBatch = NO_BATCH
    carries: bool = False

    def listed(self, result: Result) -> Result:
        """The same result, with its output records in a list."""
        return self.batch.at(result) if type(result) is int else result


class Step(Protocol):
    """`digest` is the SHA-256 of the code that handles (hex); it goes into revisions and dead letters.

    `longest_call_s`: a call (of a step that begins none one by one: a run) that takes longer ends the process.

    `run` raises `PartitionFencedError` (a sink: handshake again, then re-run) and, when nothing at all was
    attempted, `DependencyDownError` or `AuthError`. Bad data never raises."""

    digest: str
    longest_call_s: float

    def bump(self, partitions: Iterable[int]) -> None: ...

    def release(self, partitions: Iterable[int]) -> None: ...

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        """In order; no further record is begun once the budget is spent."""

    def close(self) -> None: ...


class NoFence:
    """Base of the steps whose effects are Kafka's alone: its transaction is the fence."""

    longest_call_s: float = LONGEST_RUN_S

    def bump(self, partitions: Iterable[int]) -> None:
        """Nothing to take over."""

    def release(self, partitions: Iterable[int]) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing is held."""


class Emitter:
    """Turns handler outputs into records with derived identities. One per flow."""

    def __init__(
        self, project: str, flow: str, contract: str, topic: str, digest: str,
        headers: type[DerivedHeaders] = DerivedHeaders,
    ) -> None:  # fmt: skip
        self._topic = topic
        self._headers = headers(project, flow, contract, f"{digest[:16]}.0")

    def batch(self, records: Sequence[Record], outputs: Outputs) -> tuple[OutgoingBatch, bool]:
        """`outputs` of records that have one each, or none: a whole batch, in a quarter of the time. And whether some
        carry headers of others."""
        keys, carries = outputs.keys, False
        headers = self._headers.of_each([record.headers for record in records], keys)
        if not all(headers):
            for place, (record, key, made) in enumerate(zip(records, keys, headers, strict=True)):
                if made is None and key is not None:
                    parent = parsed_headers(record)
                    headers[place] = self._headers.of(parent, key, 0)
                    carries = carries or bool(parent.extra)
        return OutgoingBatch(self._topic, keys, outputs.values, headers), carries

    def outputs(self, record: Record, emissions: Iterable[tuple[bytes, bytes]]) -> list[Outgoing]:
        """`emissions`: (key, framed value) in the handler's order; the ordinal counts within a key."""
        parent = parsed_headers(record)
        ordinals: dict[bytes, int] = {}
        outputs = []
        for key, value in emissions:
            ordinal = ordinals.get(key, 0)
            ordinals[key] = ordinal + 1
            outputs.append(Outgoing(self._topic, key, value, self._headers.of(parent, key, ordinal)))
        return outputs


def parsed_headers(record: Record) -> ParsedHeaders:
    return parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)


def listed(output: Any, written: type | tuple[type, ...]) -> list[Any]:
    """A handler's return value as a list: None is no output, one value of the contract is one output."""
    if output is None:
        return []
    if isinstance(output, written):
        return [output]
    if inspect.isawaitable(output):
        raise UsageError(
            "the handler returned an awaitable", hint="declare it with `async def`, without a plain wrapper"
        )
    return list(output)


def run_in_order(
    records: Sequence[Record], budget: Budget, by_key: bool, one: Callable[[int, Record], Result],
    attempts: Attempts = ONCE,
) -> Run:  # fmt: skip
    """`one` on each record until the budget is spent. A failed record's key is skipped from there on; what interrupts
    cuts the tail: everything before it stands, it and the rest count as unattempted."""
    results: list[Result] = []
    failed, streak = FailedKeys(by_key=by_key), Streak(attempts.streak)
    for index, record in enumerate(records):
        if not budget.begins():
            return Run(results)
        if failed.head_of(record) is not None:
            results.append(SKIPPED)
            continue
        try:
            result = one(index, record)
        except (Exception, SystemExit) as error:  # a handler does not end the worker
            result = attempts.failed(index, error, budget.began, partial(one, index, record), budget.begins)
        if isinstance(result, Failure):
            if (interrupted := interruption(result)) is not None:
                return Run(results, interrupted)
            if streak.ends(result):
                return Run([*results, result])
            failed.add(record)
        else:
            streak.length = 0
        results.append(result)
    return Run(results)
