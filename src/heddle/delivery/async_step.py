"""The step of an async function: key lanes run side by side, one key in order, the batch is the barrier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from heddle.broker.log import Record
from heddle.contracts import Codec
from heddle.delivery.attempts import Attempts, DeadlineError
from heddle.delivery.classify import interruption
from heddle.delivery.doubts import Doubts
from heddle.delivery.flow_steps import caller
from heddle.delivery.steps import HALTS, SKIPPED, Budget, Emitter, NoFence, Result, Run, listed
from heddle.errors import Failure, HeddleError, TransientError
from heddle.integration import Flow
from heddle.on_failure import holds_keys

Lane = list[int]
GRACE_S = 10.0


class AsyncStep(NoFence):
    """Runs on the worker's thread: its loop lives from batch to batch, so that clients keep their connections.

    `concurrency` bounds the calls in flight; `deadline_s` of the flow bounds each. A call past its deadline is
    cancelled, which is a transient failure, and not tried again at once."""

    def __init__(
        self, flow: Flow[Any, Any], reader: Codec[Any], writer: Codec[Any], key_of: Callable[[Any], bytes],
        emitter: Emitter, digest: str, concurrency: int, batch_deadline_s: float,
    ) -> None:  # fmt: skip
        self.digest = digest
        self.longest_call_s = batch_deadline_s + flow.deadline_s + GRACE_S
        self._flow = flow
        self._call = caller(flow)
        self._reader = reader
        self._writer = writer
        self._key_of = key_of
        self._emitter = emitter
        self._runner = asyncio.Runner()
        self._concurrency = concurrency
        self._by_key = holds_keys(flow.order)
        self._attempts = Attempts.of(flow.on_failure, flow.deadline_s)
        self._doubts = Doubts()

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        values, failures = self._reader.decode_batch([record.value for record in records])
        results: list[Result | None] = [None] * len(records)
        for failure in failures:
            results[failure.index] = failure
        interrupted = self._runner.run(self._lanes(records, values, results, budget))
        attempted = next((i for i, result in enumerate(results) if result is None), len(results))
        return Run([result for result in results[:attempted] if result is not None], interrupted)

    async def _lanes(
        self, records: Sequence[Record], values: Sequence[Any], results: list[Result | None], budget: Budget
    ) -> HeddleError | None:
        """Fill `results`; what stays None was not attempted. Returns the first error that interrupts."""
        slots = asyncio.Semaphore(self._concurrency)
        interrupts: list[HeddleError] = []
        is_cut = False

        def may_begin() -> bool:
            return not (is_cut or budget.is_spent)

        async def lane(indexes: Lane) -> None:
            nonlocal is_cut
            failed = False
            for i in indexes:
                if failed:
                    results[i] = SKIPPED
                    continue
                result = results[i]
                if result is None:
                    async with slots:
                        if not may_begin():
                            return
                        result = await self._one(i, records[i], values[i], may_begin)
                if isinstance(result, Failure):
                    if (interrupted := interruption(result)) is not None:
                        interrupts.append(interrupted)
                        is_cut = True
                        return
                    is_cut = is_cut or result.failure_class in HALTS
                    failed = self._by_key
                results[i] = result

        async with asyncio.TaskGroup() as group:
            for indexes in _lanes_of(records):
                group.create_task(lane(indexes))
        return interrupts[0] if interrupts else None

    async def _one(self, index: int, record: Record, value: Any, may_begin: Callable[[], bool]) -> Result:
        if (known := self._doubts.about(index, record)) is not None:
            return known
        began_s = time.monotonic()
        try:
            return await self._emit(record, value)
        except (Exception, SystemExit) as error:
            again = partial(self._emit, record, value)
            result = await self._attempts.failed_async(index, error, began_s, again, may_begin)
            if isinstance(result, Failure):
                self._doubts.note(record, result)
            return result

    async def _emit(self, record: Record, value: Any) -> Result:
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._flow.deadline_s) as scope:
                output = await self._call(record, value)
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            raise TransientError("something that the handler waited for was cancelled") from None
        except TimeoutError as error:
            if scope.expired():
                raise DeadlineError(f"the handler passed its deadline of {self._flow.deadline_s:g} s") from error
            raise
        outputs = listed(output, self._flow.writes)
        return self._emitter.outputs(record, [(self._key_of(o), self._writer.encode(o)) for o in outputs])

    def release(self, partitions: Iterable[int]) -> None:
        self._doubts.forget(frozenset(partitions))

    def close(self) -> None:
        self._runner.close()


def _lanes_of(records: Sequence[Record]) -> list[Lane]:
    """Indexes by (partition, key), in order; a record without a key is a lane of its own."""
    lanes: dict[tuple[int, bytes | int], Lane] = {}
    for index, record in enumerate(records):
        lanes.setdefault((record.partition, index if record.key is None else record.key), []).append(index)
    return list(lanes.values())
