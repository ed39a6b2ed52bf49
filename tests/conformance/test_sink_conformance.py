"""The conformance checks of sinks can fail: each broken toy is caught by the check that is named for it."""

from __future__ import annotations

import contextlib
import unittest
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from heddle.errors import DependencyDownError, Failure, FailureClass
from heddle.integration import Applied, Delivered, Outcome, PartitionFencedError, Sink, SinkWriter
from heddle.testing.conformance import SinkConformance
from schemas.payments import Payment

START = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = "refused"


@dataclass
class ToyTarget:
    """`mood`: down, slow or lost. `effects`: identities of the events, in the order in which they took effect."""

    held: dict[int, int] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    owner: object = None
    mood: str = ""


class ToyWriter:
    def __init__(self, target: ToyTarget) -> None:
        self.target = target

    def bump(self, partitions: Iterable[int]) -> None:
        if self.target.mood == "down":
            raise DependencyDownError("down")
        self.target.owner = self

    def release(self, partitions: Iterable[int]) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        self.fenced()
        answers: list[Applied | None] = []
        failures: list[Failure] = []
        failed: set[bytes | None] = set()
        for index, each in enumerate(batch):
            answer = None if each.record.key in failed else self.one(index, each)
            if isinstance(answer, Failure):
                failures.append(answer)
                failed.add(each.record.key)
            answers.append(None if isinstance(answer, Failure) else answer)
        if self.target.mood == "lost":
            raise DependencyDownError("no answer")
        return answers, failures

    def fenced(self) -> None:
        if self.target.owner is not self:
            raise PartitionFencedError

    def one(self, index: int, each: Delivered[Any]) -> Applied | Failure | None:
        if each.event.value.currency == REFUSED:
            return Failure(index, FailureClass.CONTRACT, "refused", "currency", "the target refuses it")
        if each.event.identity.id in self.target.effects:
            return Applied(Outcome.DUPLICATE)
        return self.effect(each)

    def effect(self, each: Delivered[Any]) -> Applied | Failure | None:
        entity, _, version = each.event.identity.id.partition("-")
        self.target.held[int(entity)] = int(version)
        self.target.effects.append(each.event.identity.id)
        return Applied(Outcome.APPLIED)


class Lazy(ToyWriter):
    """Claims what it has not done."""

    def effect(self, each: Delivered[Any]) -> Applied | Failure | None:
        return Applied(Outcome.APPLIED)


class Eager(ToyWriter):
    def bump(self, partitions: Iterable[int]) -> None:
        super().bump(partitions)
        self.target.held[0] = 0


class Repeating(ToyWriter):
    """Knows nothing of what was applied before it was opened."""

    def __init__(self, target: ToyTarget) -> None:
        super().__init__(target)
        self.known: set[str] = set()

    def one(self, index: int, each: Delivered[Any]) -> Applied | Failure | None:
        if each.event.identity.id in self.known:
            return Applied(Outcome.DUPLICATE)
        self.known.add(each.event.identity.id)
        return self.effect(each)


class Forgetful(ToyWriter):
    """Takes for a duplicate only what has just been applied."""

    def one(self, index: int, each: Delivered[Any]) -> Applied | Failure | None:
        if each.event.identity.id in self.target.effects[-6:-3]:
            return self.effect(each)
        return super().one(index, each)


class Unfenced(ToyWriter):
    def fenced(self) -> None:
        """Whoever comes may write."""


class Overtaking(ToyWriter):
    """Goes on with a key of which something failed."""

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        found = [self.one(index, each) for index, each in enumerate(batch)]
        if self.target.mood == "lost":
            raise DependencyDownError("no answer")
        failures = [each for each in found if isinstance(each, Failure)]
        return [None if isinstance(each, Failure) else each for each in found], failures


class Boasting(ToyWriter):
    """Claims what it could not do."""

    def bump(self, partitions: Iterable[int]) -> None:
        self.target.owner = self

    def apply(self, batch: Sequence[Delivered[Any]]) -> tuple[list[Applied | None], list[Failure]]:
        if self.target.mood == "down":
            return [Applied(Outcome.APPLIED)] * len(batch), []
        return super().apply(batch)


class Impatient(ToyWriter):
    """Takes a slow answer for a good one."""

    def effect(self, each: Delivered[Any]) -> Applied | Failure | None:
        return Applied(Outcome.APPLIED) if self.target.mood == "slow" else super().effect(each)


class Doubting(ToyWriter):
    """Makes anew whatever it has heard nothing of."""

    def one(self, index: int, each: Delivered[Any]) -> Applied | Failure | None:
        was_lost = self.target.mood == "" and len(self.target.effects) == 6 and self.target.held.pop(-1, None) == -1
        if self.target.mood == "lost":
            self.target.held[-1] = -1
            return self.effect(each)
        return self.effect(each) if was_lost else super().one(index, each)


class ToySink(Sink[Payment]):
    reads = Payment

    def __init__(self, target: ToyTarget, writer: type[ToyWriter]) -> None:
        super().__init__("toy", owner="tests")
        self.target = target
        self.writer = writer

    def open(self) -> SinkWriter[Payment]:
        return self.writer(self.target)


class TestToy(SinkConformance):
    writer: type[ToyWriter] = ToyWriter

    @pytest.fixture(autouse=True)
    def target_of_its_own(self) -> None:
        self.target = ToyTarget()

    def sink(self) -> ToySink:
        return ToySink(self.target, self.writer)

    def value(self, entity: int, version: int) -> Payment:
        return payment(entity, version)

    def poison(self, entity: int) -> Payment:
        return payment(entity, 0, REFUSED)

    def held(self) -> dict[int, int]:
        return self.target.held

    def doubled(self) -> int:
        return sum(count - 1 for count in Counter(self.target.effects).values())

    @contextlib.contextmanager
    def in_mood(self, mood: str) -> Iterator[None]:
        self.target.mood = mood
        yield
        self.target.mood = ""

    def down(self) -> Any:
        return self.in_mood("down")

    def slow(self) -> Any:
        return self.in_mood("slow")

    def lost(self) -> Any:
        return self.in_mood("lost")


def payment(entity: int, version: int, currency: str = "EUR") -> Payment:
    return Payment(
        payment_id=str(entity), invoice_id="I-1", amount=Decimal("1.00"), currency=currency, status="SUCCEEDED",
        paid_at=START + timedelta(seconds=version),
    )  # fmt: skip


BROKEN: list[tuple[str, type[ToyWriter]]] = [
    ("test_effects_are_made_in_order", Lazy),
    ("test_a_batch_of_which_the_process_died_before_its_effects_is_made_later", Eager),
    ("test_a_batch_of_which_the_process_died_after_its_effects_changes_nothing", Repeating),
    ("test_an_event_that_comes_again_changes_nothing", Forgetful),
    ("test_a_zombie_is_refused", Unfenced),
    ("test_poison_fails_alone", Overtaking),
    ("test_while_the_target_is_down_nothing_is_claimed", Boasting),
    ("test_of_a_slow_target_nothing_is_claimed_that_is_not_there", Impatient),
    ("test_an_effect_whose_answer_was_lost_is_not_made_again", Doubting),
]


@pytest.mark.parametrize(("check", "writer"), BROKEN, ids=[check for check, _ in BROKEN])
def test_a_broken_sink_is_caught(check: str, writer: type[ToyWriter]) -> None:
    toy = type("Broken", (TestToy,), {"writer": writer})()
    toy.target = ToyTarget()
    with pytest.raises(AssertionError):
        getattr(toy, check)()


def test_every_check_has_a_sink_that_it_catches() -> None:
    assert {check for check, _ in BROKEN} == {name for name in dir(SinkConformance) if name.startswith("test_")}


def test_what_a_kind_cannot_do_is_skipped_with_its_reason() -> None:
    toy = type("Limited", (TestToy,), {"unsupported": {"zombie": "calls cannot be fenced"}})()
    with pytest.raises(unittest.SkipTest, match="zombie: calls cannot be fenced"):
        toy.test_a_zombie_is_refused()
