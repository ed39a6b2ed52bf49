"""Partitions at the cap of their unresolved entries: closed to new records, opened again when some were resolved."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from heddle.broker.log import Consumer, GroupMetadata, Record
from heddle.delivery.assignment import Assignment
from heddle.delivery.caps import Full, fit, has_room_again
from heddle.delivery.settlement import Event
from heddle.delivery.transactions import Transactions


class Room:
    """Of one worker. `full`: what is closed, shared with those who tell of it."""

    def __init__(
        self, full: dict[int, Full], assignment: Assignment, consumer: Consumer, transactions: Transactions,
        log: FilteringBoundLogger,
    ) -> None:  # fmt: skip
        self._full = full
        self._assignment = assignment
        self._consumer = consumer
        self._transactions = transactions
        self._log = log

    def fitting(self, records: Sequence[Record], group: GroupMetadata) -> list[Record]:
        """Those for which there is room. The others are read again later: their partitions are closed, which the log
        and the audit trail tell."""
        kept, full = fit(records, self._assignment.indexes)
        for partition, what in full.items():
            self._full[partition] = what
            self._assignment.owned[partition].consumed = what.offset
            self._consumer.pause([partition])
            self._log.error("paused: too many unresolved entries", partition=partition, reason=what.reason)
        if full:
            events = [Event(partition, "paused", {"why": what.reason}) for partition, what in full.items()]
            self._transactions.tell(events, group)
        return kept

    def reopen(self) -> None:
        for partition, what in list(self._full.items()):
            if has_room_again(self._assignment.indexes[partition], what.key):
                del self._full[partition]
                self._consumer.start({partition: self._assignment.owned[partition].consumed})
                self._log.info("reads on: entries were resolved", partition=partition)

    def forget_others(self) -> None:
        """Another owner finds out for itself."""
        for partition in self._full.keys() - self._assignment.owned.keys():
            del self._full[partition]
