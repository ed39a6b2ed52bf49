"""The step of a sink: decode, hand the batch to the writer, take its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from heddle.broker.log import Outgoing, Record
from heddle.contracts import Codec, body_hash
from heddle.delivery.classify import Classifier, interruption, is_unknown_effect
from heddle.delivery.flow_steps import event_of
from heddle.delivery.revision import TRIED_SINCE
from heddle.delivery.steps import LONGEST_RUN_S, SKIPPED, Budget, Emitter, FailedKeys, Recovered, Result, Run
from heddle.errors import DependencyDownError, Failure, FailureClass, HeddleError, UnknownEffectError, UsageError
from heddle.event import REPLAYED
from heddle.integration import Applied, CallingWriter, Delivered, Outcome, PartitionFencedError, Sink, SinkWriter
from heddle.on_failure import holds_keys

CALLS_BEGIN_WITHIN_S = 10.0
"""Of a batch, where a session lasts longer: it has to end, with the calls that are under way, before its worker is
taken for hung."""


_IGNORED = Applied(Outcome.APPLIED)

Place = tuple[str, int]
"""Topic and offset, in a partition."""


class Telling(NamedTuple):
    """What a target answers, as events of a contract. Their ids are made of the event's that was sent: whatever comes
    again after a crash tells under the same id."""

    codec: Codec[Any]
    key_of: Callable[[Any], bytes]
    emitter: Emitter

    def outputs(self, record: Record, values: Iterable[Any]) -> list[Outgoing]:
        return self.emitter.outputs(record, [(self.key_of(value), self.codec.encode(value)) for value in values])


class SinkStep:
    """Effects commit at the target first; the offsets follow. A batch that runs again reports `recovered`.

    A writer that calls is asked to begin nothing once the group may have another owner for the partitions: when the
    worker last showed itself as theirs longer than `session_timeout_s` ago. What it has not begun is cut."""

    def __init__(
        self, sink: Sink[Any], codec: Codec[Any], digest: str, session_timeout_s: float = 6.0,
        telling: Telling | None = None,
    ) -> None:  # fmt: skip
        self._telling = telling
        self.digest = digest
        self.longest_call_s = LONGEST_RUN_S
        self._by_key = holds_keys(sink.order)
        self._classifier = Classifier(sink.on_failure.classes)
        self._codec = codec
        self._on_tombstone = sink.on_tombstone
        self._at_most_once = sink.at_most_once
        self._kept: dict[int, tuple[Place, Result]] = {}
        self._under_way: set[int] = set()
        self._session_timeout_s = min(session_timeout_s, CALLS_BEGIN_WITHIN_S)
        self._writer: SinkWriter[Any] = sink.open()

    def bump(self, partitions: Iterable[int]) -> None:
        self._writer.bump(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.forget(partition)
        self._writer.release(partitions)

    def holds(self, partition: int) -> bool:
        return partition in self._kept or partition in self._under_way

    def forget(self, partition: int) -> None:
        self._kept.pop(partition, None)
        self._under_way.discard(partition)

    def close(self) -> None:
        self._writer.close()

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        return self._once(records, budget) if self._at_most_once else self._run(records, budget)

    def _once(self, records: Sequence[Record], budget: Budget) -> Run:
        """See write_ahead.py. What may have had its effect is not run again by the same hands, whatever became of the
        transaction that was to settle it."""
        (record,) = records
        place = record.topic, record.offset
        kept = self._kept.get(record.partition)
        if kept is not None and kept[0] == place:
            return Run([kept[1]])
        self._under_way.add(record.partition)
        try:
            run = self._run(records, budget)
        except DependencyDownError:  # it has had no effect
            self._under_way.discard(record.partition)
            raise
        self._under_way.discard(record.partition)
        for result in run.results:
            if not isinstance(result, Failure) or is_unknown_effect(result):
                self._kept[record.partition] = place, result
        return run

    def _run(self, records: Sequence[Record], budget: Budget) -> Run:
        values, undecodable = self._codec.decode_batch([record.value for record in records])
        results: list[Result] = [SKIPPED] * len(records)
        for failure in undecodable:
            results[failure.index] = self._undecodable(records[failure.index], failure)
        indexes = self._eligible(records, results)
        batch = [delivered(records[i], values[i]) for i in indexes]
        answers, failures = self._applied(batch, budget) if batch else ([], [])
        if batch and indexes[0] == 0 and answers[0] is None and all(failure.index for failure in failures):
            return Run([])
        for i, answer in zip(indexes, answers, strict=True):
            if answer is not None:
                results[i] = self._told(records[i], answer) if answer.tells else answer
        for failure in failures:
            index = indexes[failure.index]
            results[index] = self._classifier.reviewed(failure)._replace(index=index)
        return Run(results)

    def _undecodable(self, record: Record, failure: Failure) -> Result:
        """A tombstone is one of these for the codec; what it means the sink says."""
        if record.value is not None:
            return failure
        match self._on_tombstone:
            case "delete":
                return SKIPPED
            case "ignore":
                return _IGNORED
        return failure._replace(message="a tombstone: its entity is gone, and the sink's on_tombstone= is not declared")

    def _told(self, record: Record, answer: Applied) -> Result:
        """Its events, which go into the transaction of its offset."""
        if self._telling is None:
            raise UsageError("the sink's writer tells of what its target answered, and the sink declares no emits=")
        outputs = self._telling.outputs(record, answer.tells)
        return Recovered(outputs) if answer.recovered else outputs

    def _applied(self, batch: list[Delivered[Any]], budget: Budget) -> tuple[list[Applied | None], list[Failure]]:
        """The writer's answers. A client's own exception that got through it tells of the target, not of a record: it
        is raised as if the writer had said so, where it means that a next try may help, or that we are refused. Where
        nothing may be made twice it is doubt."""
        try:
            if isinstance(self._writer, CallingWriter):
                return self._writer.apply_while(batch, lambda: budget.is_fresh(self._session_timeout_s))
            return self._writer.apply(batch)
        except (HeddleError, PartitionFencedError):
            raise
        except Exception as error:
            if self._at_most_once:
                return [None], [_in_doubt(error)]
            failure = self._classifier.failure_of(0, error)
            if failure.failure_class is FailureClass.TRANSIENT:
                failure = failure._replace(failure_class=FailureClass.DEPENDENCY_DOWN)
            interrupted = interruption(failure)
            if interrupted is None:
                raise
            raise interrupted from error

    def _eligible(self, records: Sequence[Record], results: list[Result]) -> list[int]:
        """Indexes to apply: what decoded, less later records of a key whose earlier one did not."""
        failed = FailedKeys(by_key=self._by_key)
        eligible = []
        for index, record in enumerate(records):
            if isinstance(results[index], Failure):
                failed.add(record)
            elif failed.head_of(record) is not None:
                results[index] = SKIPPED
            elif results[index] is SKIPPED:
                eligible.append(index)
        return eligible


def _in_doubt(error: Exception) -> Failure:
    told = f"{type(error).__name__} on the way; whether the target has acted is not known"
    raised = UnknownEffectError(told, hint="find out at the target, then settle the entry")
    raised.__cause__ = error
    return Failure(0, raised.failure_class, raised.code, "", told, raised)


def delivered(record: Record, value: Any) -> Delivered[Any]:
    """As the writer gets it. A record that comes out of its key's log order says so in its last header; whether it
    may have taken effect already, in the last but that."""
    headers = record.headers
    is_replayed = bool(headers) and headers[-1][0] == REPLAYED
    event, body = event_of(record, value), body_hash(record.value or b"")
    before = headers[-2:-1] if is_replayed else headers[-1:]
    if before and before[0][0] == TRIED_SINCE:
        return Delivered(record, event, body, is_replayed, int(before[0][1] or b"0"))
    return Delivered(record, event, body, is_replayed)
