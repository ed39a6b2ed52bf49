"""Transactional producer of the in-memory broker."""

# ruff: noqa: ARG002 - the protocol has time-outs where memory does not wait

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from heddle.broker.log import UNPLACED, GroupMetadata, Outgoing, OutgoingBatch, Position, one_by_one
from heddle.broker.memory.cluster import Cluster
from heddle.broker.memory.groups import MemoryGroupMetadata
from heddle.broker.memory.partitions import Decision
from heddle.errors import BrokerError, FencedError, TransactionExpiredError


class MemoryProducer:
    """Writes straight to the logs, under an open transaction. A failure inside it makes an abort due."""

    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        self._cluster = cluster
        self._id = transactional_id
        self._epoch: int | None = None
        self._is_open = False
        self._failure: BrokerError | None = None
        self._placed: list[tuple[list[int], list[int]]] = []

    def init(self, timeout_s: float) -> None:
        with self._cluster.changed:
            self._epoch = self._cluster.init(self._id)
        self._is_open, self._failure = False, None

    def begin(self) -> None:
        if self._epoch is None or self._is_open:
            raise BrokerError("begin() goes after init() and after the end of the former transaction")
        self._is_open, self._failure = True, None
        self._placed.clear()

    def produce(self, records: Iterable[Outgoing | OutgoingBatch]) -> None:
        self._append(one_by_one(records))

    def produce_placed(self, records: Iterable[Outgoing]) -> list[int]:
        offsets = self._append(records)
        places = [UNPLACED] * len(offsets)
        self._placed.append((places, offsets))
        return places

    def send_offsets(self, topic: str, positions: Mapping[int, Position], group: GroupMetadata) -> None:
        assert isinstance(group, MemoryGroupMetadata)
        with self._cluster.changed:
            try:
                self._cluster.hold(self._id, self._opened(), topic, positions, group)
            except BrokerError as error:
                self._failure = error
                raise

    def commit(self, timeout_s: float) -> None:
        epoch = self._opened()
        if self._failure is not None:
            raise self._failure
        self._end(epoch, Decision.COMMITTED)
        for places, offsets in self._placed:
            places[:] = offsets

    def abort(self, timeout_s: float) -> None:
        self._end(self._opened(), Decision.ABORTED)

    def close(self) -> None:
        if self._is_open:
            with contextlib.suppress(FencedError, TransactionExpiredError):
                self.abort(0)
        self._is_open = False

    def _append(self, records: Iterable[Outgoing]) -> list[int]:
        with self._cluster.changed:
            try:
                return self._cluster.append(self._id, self._opened(), records)
            except (FencedError, TransactionExpiredError) as error:
                self._failure = error  # told at commit, as on Kafka
                return []
            except BrokerError as error:
                self._failure = error
                raise

    def _end(self, epoch: int, decision: Decision) -> None:
        with self._cluster.changed:
            self._cluster.end(self._id, epoch, decision)
        self._is_open = False

    def _opened(self) -> int:
        if self._epoch is None or not self._is_open:
            raise BrokerError("no transaction is open")
        return self._epoch
