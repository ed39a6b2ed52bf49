"""Calls of handlers whose effect nobody knows, until what they were made for has settled.

A batch may be cut, or its transaction refused, before such a failure is parked. The record then comes again, and is not
handled a second time by the same hands: it fails as it did, until a person has found out."""

from __future__ import annotations

from heddle.broker.log import Record
from heddle.delivery.classify import is_unknown_effect
from heddle.delivery.revision import TRIED_SINCE
from heddle.errors import Failure

MOST_REMEMBERED = 10_000
"""The oldest are forgotten first, and parked by then."""


class Doubts:
    """Of one step; about live records. An entry has settled before: it runs again because somebody, or its time, says
    so."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Failure] = {}

    def about(self, index: int, record: Record) -> Failure | None:
        """How it failed, if its effect is in doubt. `index`: its place in this batch."""
        if not self._known:
            return None
        known = self._known.get((record.partition, record.offset))
        return None if known is None or _is_entry(record) else known._replace(index=index)

    def note(self, record: Record, failure: Failure) -> None:
        if not is_unknown_effect(failure) or _is_entry(record):
            return
        self._known[record.partition, record.offset] = failure
        if len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]

    def forget(self, partitions: frozenset[int]) -> None:
        """These are no longer ours: what comes of them later may be other records of the same numbers."""
        if self._known:
            self._known = {place: known for place, known in self._known.items() if place[0] not in partitions}


def _is_entry(record: Record) -> bool:
    return any(name == TRIED_SINCE for name, _ in record.headers[-2:])
