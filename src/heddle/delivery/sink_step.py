"""The step of a sink: decode, hand the batch to the writer, take its answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from heddle.broker.log import Record
from heddle.contracts import Codec, body_hash
from heddle.delivery.classify import Classifier, interruption
from heddle.delivery.flow_steps import event_of
from heddle.delivery.steps import LONGEST_RUN_S, SKIPPED, Budget, FailedKeys, Result, Run
from heddle.errors import Failure, FailureClass, HeddleError
from heddle.event import REPLAYED
from heddle.integration import Applied, Delivered, PartitionFencedError, Sink, SinkWriter
from heddle.on_failure import holds_keys


class SinkStep:
    """Effects commit at the target first; the offsets follow. A batch that runs again reports `recovered`."""

    def __init__(self, sink: Sink[Any], codec: Codec[Any], digest: str) -> None:
        self.digest = digest
        self.longest_call_s = LONGEST_RUN_S
        self._by_key = holds_keys(sink.order)
        self._classifier = Classifier(sink.on_failure.classes)
        self._codec = codec
        self._writer: SinkWriter[Any] = sink.open()

    def bump(self, partitions: Iterable[int]) -> None:
        self._writer.bump(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        self._writer.release(partitions)

    def close(self) -> None:
        self._writer.close()

    def run(self, records: Sequence[Record], budget: Budget) -> Run:  # noqa: ARG002 - the writer has its own time-outs
        values, undecodable = self._codec.decode_batch([record.value for record in records])
        results: list[Result] = [SKIPPED] * len(records)
        for failure in undecodable:
            results[failure.index] = failure
        indexes = self._eligible(records, results)
        batch = [delivered(records[i], values[i]) for i in indexes]
        answers, failures = self._applied(batch) if batch else ([], [])
        for i, answer in zip(indexes, answers, strict=True):
            if answer is not None:
                results[i] = answer
        for failure in failures:
            index = indexes[failure.index]
            results[index] = self._classifier.reviewed(failure)._replace(index=index)
        return Run(results)

    def _applied(self, batch: list[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        """The writer's answers. A client's own exception that got through it tells of the target, not of a record: it
        is raised as if the writer had said so, where it means that a next try may help, or that we are refused."""
        try:
            return self._writer.apply(batch)
        except (HeddleError, PartitionFencedError):
            raise
        except Exception as error:
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
            elif failed.head_of(record) is None:
                eligible.append(index)
        return eligible


def delivered(record: Record, value: Any) -> Delivered[Any]:
    """As the writer gets it. A record that comes out of its key's log order says so in its last header."""
    headers = record.headers
    is_replayed = bool(headers) and headers[-1][0] == REPLAYED
    return Delivered(record, event_of(record, value), body_hash(record.value or b""), is_replayed)
