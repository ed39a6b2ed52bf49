"""The sink's open end: key lanes side by side, one key in order, the batch as the barrier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from heddle.errors import Failure, FailureClass
from heddle.integration import Applied, Delivered
from heddle.on_failure import Order, holds_keys
from heddle.sinks.http.client import Client
from heddle.sinks.http.sender import Sender, Target

R = TypeVar("R")

_HALTS = (FailureClass.RATE_LIMIT, FailureClass.OURS, FailureClass.AUTH, FailureClass.DEPENDENCY_DOWN)
"""After which nothing further is begun: they concern all records alike."""


class HttpWriter(Generic[R]):
    """A `CallingWriter` with a loop of its own, which lives from batch to batch, so that connections stay open.

    `open_client` is called on that loop. `streak`: after so many transient failures with no success between them
    nothing further is begun, so that the breaker is asked before the rest of a batch is tried at a target that is
    down."""

    def __init__(
        self, target: Target, open_client: Callable[[], Client], concurrency: int, order: Order, streak: int
    ) -> None:
        self._runner = asyncio.Runner()
        self._concurrency = concurrency
        self._by_key = holds_keys(order)
        self._streak = streak
        try:
            self._client = self._runner.run(_opened(open_client))
        except BaseException:
            self._runner.close()
            raise
        self._sender = Sender(target, self._client)

    def bump(self, partitions: Iterable[int]) -> None:
        """An API has no fence: what a former owner still sends carries the same keys."""

    def release(self, partitions: Iterable[int]) -> None:
        """See `bump`."""

    def apply(self, batch: Sequence[Delivered[R]]) -> tuple[list[Applied | None], list[Failure]]:
        return self.apply_while(batch, lambda: True)

    def apply_while(
        self, batch: Sequence[Delivered[R]], may_begin: Callable[[], bool]
    ) -> tuple[list[Applied | None], list[Failure]]:
        run = _Run(self._sender, batch, may_begin, self._concurrency, self._by_key, self._streak)
        self._runner.run(run.all_lanes())
        return [run.applied.get(index) for index in range(len(batch))], sorted(run.failures)

    def close(self) -> None:
        try:
            self._runner.run(self._client.close())
        finally:
            self._runner.close()


class _Run(Generic[R]):
    """One batch on its way."""

    def __init__(
        self, sender: Sender, batch: Sequence[Delivered[R]], may_begin: Callable[[], bool], concurrency: int,
        by_key: bool, streak: int,
    ) -> None:  # fmt: skip
        self.applied: dict[int, Applied] = {}
        self.failures: list[Failure] = []
        self._sender = sender
        self._batch = batch
        self._may_begin = may_begin
        self._by_key = by_key
        self._slots = asyncio.Semaphore(concurrency)
        self._longest_streak = streak
        self._streak = 0
        self._is_cut = False

    async def all_lanes(self) -> None:
        """Begun in the order of their first records, so that what is cut is the tail."""
        async with asyncio.TaskGroup() as group:
            for indexes in _lanes_of(self._batch):
                group.create_task(self._lane(indexes))

    async def _lane(self, indexes: list[int]) -> None:
        for index in indexes:
            async with self._slots:
                await self._sender.ready()
                if not self._begins():
                    return
                result = await self._sender.apply(index, self._batch[index], self._begins, self._may_begin)
            if result is None:
                return
            if not isinstance(result, Failure):
                self._streak = 0
                self.applied[index] = result
                continue
            self.failures.append(result)
            self._streak += result.failure_class is FailureClass.TRANSIENT
            if result.failure_class in _HALTS or self._streak >= self._longest_streak:
                self._is_cut = True
            if self._by_key and self._batch[index].record.key is not None:
                return

    def _begins(self) -> bool:
        return not self._is_cut and self._may_begin()


def _lanes_of(batch: Sequence[Delivered[R]]) -> list[list[int]]:
    """Indexes by partition and key, in order; a record without a key is a lane of its own."""
    lanes: dict[Hashable, list[int]] = {}
    for index, (record, *_) in enumerate(batch):
        lanes.setdefault((record.partition, index if record.key is None else record.key), []).append(index)
    return list(lanes.values())


async def _opened(open_client: Callable[[], Client]) -> Client:
    return open_client()
