"""Reading on from positions, for consumers and readers of the in-memory broker."""

from __future__ import annotations

import time
from collections.abc import Callable

from heddle.broker.log import FIRST_RECORD_WAIT_S, Record
from heddle.broker.memory.cluster import Cluster
from heddle.errors import OffsetLostError

_POLL_S = 0.05


class Fetcher:
    """Positions of one topic, and reading on from them in turn."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.topic = ""
        self.positions: dict[int, int] = {}
        self._returned_s = 0.0

    def fill(
        self, max_records: int, max_wait_s: float, serve: Callable[[], bool], first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        """Wait for a first record, or until `serve` says that the group has changed; then wait to fill the batch."""
        if not self._cluster.polls_wait:
            max_wait_s = first_wait_s = 0.0
        records: list[Record] = []
        since_s = self._returned_s  # what is there has come while the batch before was worked on
        deadline = time.monotonic() + first_wait_s
        while True:
            changed = serve()
            is_first = not records
            lost = self._read(records, max_records)
            if lost is not None and not records:
                raise lost
            if is_first and records:
                deadline = since_s + max_wait_s
            since_s = time.monotonic()
            left = deadline - since_s
            if changed or lost or left <= 0 or len(records) == max_records:
                self._returned_s = since_s
                return [record for record in records if record.partition in self.positions]
            self._cluster.changed.wait(min(left, _POLL_S))

    def _read(self, records: list[Record], max_records: int) -> OffsetLostError | None:
        """Add to `records`; an error is returned, so that it drops none of them: it comes again in the next call."""
        for partition in list(self.positions):
            if len(records) == max_records:
                break
            log = self._cluster.partition(self.topic, partition)
            try:
                found, position = log.read(self.positions[partition], max_records - len(records))
            except OffsetLostError as error:
                return error
            del self.positions[partition]  # put last, so that the others come first next time
            self.positions[partition] = position
            records += found
        return None
