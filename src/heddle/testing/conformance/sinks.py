"""A sink's side of its contract with the worker (`heddle.integration.SinkWriter`), without a broker.

The worker commits offsets after a batch was answered, hands out again whatever was not, and takes partitions over by
`bump`; what is left to a kind is checked here: that what it claims is at the target, there once, and in order.
"""

from __future__ import annotations

import contextlib
import unittest
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from heddle.broker.log import Record
from heddle.contracts import body_hash, contract_of
from heddle.errors import DependencyDownError, Failure, FailureClass
from heddle.event import Event, Identity, Lineage
from heddle.integration import Applied, Delivered, PartitionFencedError, Sink, SinkWriter

ENTITIES, VERSIONS = 3, 2
PARTITION = 0
PASSING = (FailureClass.TRANSIENT, FailureClass.RATE_LIMIT, FailureClass.DEPENDENCY_DOWN, FailureClass.UNKNOWN)
"""Classes of failures that say something of the target, and nothing of the record."""


class SinkConformance(ABC):
    """Subclass it in a test module as `Test...`, give the methods, and pytest runs the checks.

    Each test gets an instance of its own: `sink` and all else belong to one fresh target. `unsupported`: checks that
    the kind cannot pass (order, crash-before, crash-after, duplicate, zombie, poison, down, slow, unknown), each with
    the reason, with which they are skipped."""

    unsupported: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def sink(self) -> Sink[Any]:
        """The sink, each time over the same target."""

    @abstractmethod
    def value(self, entity: int, version: int) -> Any:
        """A value of the sink's contract. Of one entity, which is its key, a higher version comes later."""

    @abstractmethod
    def poison(self, entity: int) -> Any:
        """One that decodes, and that the target refuses."""

    @abstractmethod
    def held(self) -> Mapping[int, int]:
        """What the target holds: of each entity the version of its last effect."""

    def doubled(self) -> int:
        """How many effects were made twice. None can be where a second one is the same as the first."""
        return 0

    @abstractmethod
    def down(self) -> AbstractContextManager[object]:
        """Meanwhile nobody answers there."""

    @abstractmethod
    def slow(self) -> AbstractContextManager[object]:
        """Meanwhile answers are late; where the sink gives up at some time, later than that."""

    @abstractmethod
    def lost(self) -> AbstractContextManager[object]:
        """Meanwhile effects are made, and their answers are lost."""

    def test_effects_are_made_in_order(self) -> None:
        self._require("order")
        with self._open() as writer:
            self._all_applied(writer)
        self._is_held_once(
            "effects are not made, or not in order (make them in the order of the batch, before you answer)"
        )

    def test_a_batch_of_which_the_process_died_before_its_effects_is_made_later(self) -> None:
        self._require("crash-before")
        with self._open():
            assert self.held() == {}, (
                "there are effects before anything was applied: `open` and `bump` may leave the fence, and nothing else"
            )
        with self._open() as writer:
            self._all_applied(writer)
        self._is_held_once("what nobody had applied is not there (nothing may be marked as done before its effect is)")

    def test_a_batch_of_which_the_process_died_after_its_effects_changes_nothing(self) -> None:
        """No offset was committed: a successor gets all of it again."""
        self._require("crash-after")
        for _ in range(2):
            with self._open() as writer:
                self._all_applied(writer)
        self._is_held_once(
            "a successor makes effects twice (commit identity and effect together, or send a key that the target knows)"
        )

    def test_an_event_that_comes_again_changes_nothing(self) -> None:
        """The first version, after the second has taken effect."""
        self._require("duplicate")
        with self._open() as writer:
            self._all_applied(writer)
            answers, failures = writer.apply(self._events()[:ENTITIES])
        assert None not in answers, (
            f"an event that comes again is not answered: {failures}. It is Applied(Outcome.DUPLICATE)"
        )
        self._is_held_once(
            "an event that comes again takes effect again (look for its identity before the effect, however old it is)"
        )

    def test_a_zombie_is_refused(self) -> None:
        """A former owner of the partition, whom nobody has told."""
        self._require("zombie")
        with self._open() as zombie, self._open():
            try:
                zombie.apply(self._events())
            except PartitionFencedError:
                assert self.held() == {}, (
                    "a former owner's writes are at the target: look at the fence in the effects' transaction"
                )
                return
        raise AssertionError(
            "a former owner of the partition is not refused: `bump` has to leave an epoch there, and `apply` has to "
            "raise PartitionFencedError where it finds a later one"
        )

    def test_poison_fails_alone(self) -> None:
        """And for a sink of order "park" what comes after it of its key is not applied."""
        self._require("poison")
        events = [self._delivered(0, 0, self.value(0, 0)), self._delivered(1, 0, self.poison(1))]
        events += [self._delivered(1, 1, self.value(1, 1)), self._delivered(2, 0, self.value(2, 0))]
        waits = self.sink().order == "park"
        with self._open() as writer:
            answers, failures = writer.apply(events)
        assert [failure.index for failure in failures] == [1], (
            f"not the poison alone failed: {failures}. What one record is to blame for is a Failure with its index"
        )
        claimed = [answer is not None for answer in answers]
        assert claimed == [True, False, not waits, True], (
            f"answered: {claimed}. None is for what failed and, for order park, for later events of its key alone"
        )
        expected = {0: 0, 2: 0} | ({} if waits else {1: 1})
        assert self.held() == expected, (
            f"beside poison the target holds {self.held()}, not {expected}: roll back what failed, and only that"
        )

    def test_while_the_target_is_down_nothing_is_claimed(self) -> None:
        self._require("down")
        with self.down():
            assert self._attempted() == {}, (
                "effects are claimed while the target is down: raise DependencyDownError, or leave the answers None"
            )
        self._catches_up()

    def test_of_a_slow_target_nothing_is_claimed_that_is_not_there(self) -> None:
        self._require("slow")
        with self.slow():
            claimed = self._attempted()
        self._is_there(claimed)
        self._catches_up()

    def test_an_effect_whose_answer_was_lost_is_not_made_again(self) -> None:
        self._require("unknown")
        with self.lost():
            claimed = self._attempted()
        self._is_there(claimed)
        self._catches_up()

    # What the checks share

    def _require(self, check: str) -> None:
        if reason := self.unsupported.get(check):
            raise unittest.SkipTest(f"{check}: {reason}")

    @contextlib.contextmanager
    def _open(self) -> Iterator[SinkWriter[Any]]:
        with contextlib.closing(self.sink().open()) as writer:
            writer.bump([PARTITION])
            yield writer

    def _events(self) -> list[Delivered[Any]]:
        return [self._delivered(e, v, self.value(e, v)) for v in range(VERSIONS) for e in range(ENTITIES)]

    def _delivered(self, entity: int, version: int, value: Any) -> Delivered[Any]:
        contract, offset = contract_of(type(value)), version * ENTITIES + entity
        key, identity = contract.key_of(value), Identity("/conformance", f"{entity}-{version}")
        time = f"2026-01-01T00:00:{version:02}.000000Z"
        event = Event(value, identity, contract.name, time, key.decode(), Lineage("r.0", identity), None)
        return Delivered(
            Record(contract.topic, PARTITION, offset, key, b"", [], 0), event, body_hash(repr(value).encode())
        )

    def _all_applied(self, writer: SinkWriter[Any]) -> None:
        answers, failures = writer.apply(self._events())
        assert not failures, f"events fail: {failures}. Does the target accept what `value` makes?"
        assert None not in answers, "events are not answered: an effect that is made is answered with Applied"

    def _is_held_once(self, what: str) -> None:
        expected = dict.fromkeys(range(ENTITIES), VERSIONS - 1)
        assert self.held() == expected, f"{what}: the target holds {self.held()}, not {expected}"
        assert self.doubled() == 0, f"{what}: {self.doubled()} effects were made twice"

    def _attempted(self) -> dict[int, int]:
        """What one try claims: of each entity the last version. That the target does not answer may be raised."""
        events = self._events()
        try:
            with self._open() as writer:
                answers, failures = writer.apply(events)
        except DependencyDownError:
            return {}
        assert all(map(_is_passing, failures)), (
            f"a target's trouble is taken for the record's: {failures}. Raise DependencyDownError"
        )
        return _last(events, answers)

    def _is_there(self, claimed: Mapping[int, int]) -> None:
        held = self.held()
        missing = {e: v for e, v in claimed.items() if held.get(e, -1) < v}
        assert not missing, (
            f"claimed, and not at the target: {missing}. Answer only once the target has said that it is there"
        )

    def _catches_up(self) -> None:
        """What the worker does once the target is back: the same batch again, until it is answered."""
        for _ in range(5):
            with contextlib.suppress(DependencyDownError), self._open() as writer:
                answers, failures = writer.apply(self._events())
                if not failures and None not in answers:
                    return self._is_held_once(
                        "after the trouble (what had its effect has to be recognised when it comes again)"
                    )
        raise AssertionError(
            "the target is back, and the batch is not applied: `open` has to connect anew, and waits have to end"
        )


def _is_passing(failure: Failure) -> bool:
    return failure.failure_class in PASSING


def _last(events: Sequence[Delivered[Any]], answers: Sequence[Applied | None]) -> dict[int, int]:
    claimed = [event for event, answer in zip(events, answers, strict=True) if answer is not None]
    return {int(e): int(v) for e, _, v in (event.event.identity.id.partition("-") for event in claimed)}
