"""Tombstones that a flow reads: passed on under the key that they have in its output, or ignored, as it declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from heddle.broker.log import Outgoing, Record
from heddle.contracts import Contract
from heddle.delivery.classify import Classifier
from heddle.delivery.steps import Budget, Emitter, Result, Run, Step
from heddle.errors import Failure
from heddle.integration import TombstoneKey


class TombstoneStep:
    """Another step, which gets the events. Tombstones keep their place among these: one behind an event of its key that
    failed waits with all that come after it, as the settlement sees to.

    `key_of`: None ignores them."""

    def __init__(
        self, step: Step, reads: Contract, writes: Contract, key_of: TombstoneKey | None, emitter: Emitter,
        classifier: Classifier,
    ) -> None:  # fmt: skip
        self.digest, self.longest_call_s = step.digest, step.longest_call_s
        self._step = step
        self._key_of = key_of
        self._values_of = reads.key_values if key_of is not None else None
        self._output_key_of = writes.key_of
        self._emitter = emitter
        self._classifier = classifier

    def bump(self, partitions: Iterable[int]) -> None:
        self._step.bump(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        self._step.release(partitions)

    def close(self) -> None:
        self._step.close()

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        events = [record for record in records if record.value is not None]
        if len(events) == len(records):
            return self._step.run(records, budget)
        run = self._step.run(events, budget) if events else Run([])
        answers, results = iter(run.results), list[Result]()
        for index, record in enumerate(records):
            result = next(answers, None) if record.value is not None else self._passed_on(index, record)
            if result is None:
                break
            results.append(result._replace(index=index) if isinstance(result, Failure) else result)
        return Run(results, run.interrupted, run.batch)

    def _passed_on(self, index: int, record: Record) -> Result:
        if self._key_of is None or self._values_of is None:
            return []
        try:
            values = self._key_of(dict(self._values_of(record.key)))
            key = None if values is None else self._output_key_of(values)
        except (Exception, SystemExit) as error:
            return self._classifier.failure_of(index, error)
        if key is None:
            return []
        (made,) = self._emitter.outputs(record, [(key, b"")])
        return [Outgoing(made.topic, made.key, None, made.headers, made.partition)]
