"""Sinks that a test can break: one with its target in memory, and one around any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from heddle.delivery.classify import Classifier
from heddle.errors import AuthError, DependencyDownError, Failure, FailureClass
from heddle.event import Event, Identity
from heddle.integration import (
    Applied,
    Delivered,
    OnTombstone,
    Outcome,
    PartitionFencedError,
    Sink,
    SinkWriter,
    Start,
)
from heddle.on_failure import DEFAULT, OnFailure, Order, holds_keys
from heddle.testing.faults import Crash, Faults
from heddle.testing.keys import short

R = TypeVar("R")

_OF_THE_TARGET = (DependencyDownError, AuthError, PartitionFencedError, Crash)


class BreakableSink(Sink[R]):
    """Another sink, with faults in front of it.

    `fail` makes the next calls fail: a `DependencyDownError`, an `AuthError` or a `Crash` hits the whole batch, before
    it has any effect; every other exception hits the event, as if its row alone had been refused. `crash_after_effect`
    lets the process die when the target holds the batch and nobody knows yet. `mend` ends all of it."""

    def __init__(self, sink: Sink[R]) -> None:
        super().__init__(sink.name, owner=sink.owner, runbook=sink.runbook)
        self.reads = sink.reads
        self.emits = sink.emits
        self.on_tombstone = sink.on_tombstone
        self.at_most_once = sink.at_most_once
        self.order = sink.order
        self.on_failure = sink.on_failure
        self.regulated = sink.regulated
        self.start = sink.start
        self.faults = Faults()
        self.after_effect = Faults()
        self.behind = sink

    def fail(
        self, error: BaseException | type[BaseException], *, times: int | None = None, keys: Iterable[str] = ()
    ) -> None:
        """`times` times, or until mended; for these keys (`D-1` is short for `default/D-1`), or for all."""
        self.faults.fail(error, times=times, keys=keys)

    def crash_after_effect(self, times: int = 1) -> None:
        self.after_effect.fail(Crash, times=times)

    def mend(self) -> None:
        self.faults.mend()
        self.after_effect.mend()

    def open(self) -> SinkWriter[R]:
        return _BreakableWriter(self, self.behind.open())


class RecordingSink(BreakableSink[R]):
    """A sink whose target is a list in memory. It knows what has taken effect (an event that comes again is a
    duplicate) and, where `version` names a field, what is superseded, as `SqlSink` does.

    sink = RecordingSink.in_place_of(ledger.sink, version="booked_at")
    """

    def __init__(
        self, name: str, *, reads: type[R], version: str = "", order: Order = "park", on_failure: OnFailure = DEFAULT,
        start: Start = "earliest", on_tombstone: OnTombstone = "park",
    ) -> None:  # fmt: skip
        self._target = _MemorySink(name, reads, version, order, on_failure, start)
        self._target.on_tombstone = on_tombstone
        super().__init__(self._target)

    @staticmethod
    def in_place_of(sink: Sink[R], *, version: str = "") -> RecordingSink[R]:
        """With the name, the contract and the failure handling of a declared sink."""
        return RecordingSink(
            sink.name, reads=sink.reads, version=version, order=sink.order, on_failure=sink.on_failure,
            start=sink.start, on_tombstone=sink.on_tombstone,
        )  # fmt: skip

    @property
    def applied(self) -> list[R]:
        """The values that took effect, in order. Tombstones have none: see `events`."""
        return [event.value for event in self.events if event.value is not None]

    @property
    def events(self) -> list[Event[R]]:
        return list(self._target.events)


class _BreakableWriter:
    """Faults first; what they leave goes to the real writer, in one call."""

    def __init__(self, sink: BreakableSink[Any], writer: SinkWriter[Any]) -> None:
        self._sink = sink
        self._writer = writer
        self._by_key = holds_keys(sink.order)
        self._classifier = Classifier(sink.on_failure.classes)

    def bump(self, partitions: Iterable[int]) -> None:
        lasting = self._sink.faults.lasting
        kind = lasting if isinstance(lasting, type) else type(lasting)
        if lasting is not None and issubclass(kind, DependencyDownError | AuthError):
            raise lasting
        self._writer.bump(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        self._writer.release(partitions)

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        broken = self._broken(batch)
        kept = [index for index in range(len(batch)) if index not in broken]
        answers: list[Applied | None] = [None] * len(batch)
        found, failures = self._writer.apply([batch[index] for index in kept]) if kept else ([], [])
        self._sink.after_effect.check()
        for index, answer in zip(kept, found, strict=True):
            answers[index] = answer
        own = [failure for failure in broken.values() if failure is not None]
        moved = [failure._replace(index=kept[failure.index]) for failure in failures]
        return answers, sorted([*own, *moved], key=lambda failure: failure.index)

    def close(self) -> None:
        self._writer.close()

    def _broken(self, batch: Sequence[Delivered[Any]]) -> dict[int, Failure | None]:
        """Failures by index; None for later events of a key, which are left out behind one."""
        broken: dict[int, Failure | None] = {}
        keys: set[tuple[int, bytes]] = set()
        for index, delivered in enumerate(batch):
            record = delivered.record
            lane = None if record.key is None else (record.partition, record.key)
            if lane in keys:
                broken[index] = None
                continue
            try:
                self._sink.faults.check(short(delivered.event.key))
            except _OF_THE_TARGET:
                raise
            except Exception as error:
                broken[index] = self._classifier.failure_of(index, error)
                if lane is not None and self._by_key:
                    keys.add(lane)
        return broken


class _MemorySink(Sink[R]):
    def __init__(
        self, name: str, reads: type[R], version: str, order: Order, on_failure: OnFailure, start: Start
    ) -> None:
        super().__init__(name, owner="tests")
        self.reads = reads
        self.version = version
        self.order = order
        self.on_failure = on_failure
        self.start = start
        self.events: list[Event[R]] = []
        self.inbox: dict[Identity, _Seen] = {}
        self.versions: dict[str, Any] = {}

    def open(self) -> SinkWriter[R]:
        return _MemoryWriter(self)


class _Seen(NamedTuple):
    partition: int
    offset: int
    revision: str
    body_hash: bytes


class _MemoryWriter:
    def __init__(self, sink: _MemorySink[Any]) -> None:
        self._sink = sink

    def bump(self, partitions: Iterable[int]) -> None:
        """Nobody else writes to a list in memory."""

    def release(self, partitions: Iterable[int]) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        answers: list[Applied | None] = []
        failures: list[Failure] = []
        failed: set[bytes] = set()
        for index, delivered in enumerate(batch):
            key = delivered.record.key
            answer = None if key in failed else self._one(index, delivered)
            if isinstance(answer, Failure):
                failures.append(answer)
                if key is not None and holds_keys(self._sink.order):
                    failed.add(key)
            answers.append(None if isinstance(answer, Failure) else answer)
        return answers, failures

    def _one(self, index: int, delivered: Delivered[Any]) -> Applied | Failure:
        event, record = delivered.event, delivered.record
        seen = _Seen(record.partition, record.offset, event.lineage.revision, delivered.body_hash)
        known = self._sink.inbox.get(event.identity)
        if known is not None:
            if known.revision == seen.revision and known.body_hash != seen.body_hash:
                told = "an event of the same identity and revision took effect with another body"
                return Failure(index, FailureClass.CONTRACT, "identity-conflict", "", told)
            is_same = (known.partition, known.offset) == (seen.partition, seen.offset)
            return Applied(Outcome.APPLIED, recovered=True) if is_same else Applied(Outcome.DUPLICATE)
        self._sink.inbox[event.identity] = seen
        if self._sink.version and self._is_superseded(event, replayed=delivered.replayed):
            return Applied(Outcome.SUPERSEDED)
        self._sink.events.append(event)
        return Applied(Outcome.APPLIED)

    def _is_superseded(self, event: Event[Any], *, replayed: bool) -> bool:
        """Equal versions follow the log, so that of two the replayed one loses."""
        if event.value is None:
            return False
        version = getattr(event.value, self._sink.version)
        newest = self._sink.versions.get(event.key)
        if newest is not None and (version < newest or (replayed and version == newest)):
            return True
        self._sink.versions[event.key] = version
        return False
