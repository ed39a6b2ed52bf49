"""The write-ahead mark of a sink whose calls can neither be repeated nor looked for.

Such a sink runs one record at a time, and each is named beside its partition's offset before it is handed over. The
mark goes with the transaction that settles the record. So whoever takes the partition over and finds one knows the only
record whose effect is in doubt: it is not run again but parked as `unknown`, and a person finds out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from heddle.delivery.suspicion import InHand
from heddle.errors import Failure, FailureClass, UnknownEffectError

_TOLD = "its worker ended while it was under way, and the target can neither be asked nor told twice"


@runtime_checkable
class Remembers(Protocol):
    """The step of such a sink: what has run and is not settled yet comes to the same result when it is run again."""

    def holds(self, partition: int) -> bool:
        """Whether there is such a result, or will never be one, because what ran did not end."""

    def forget(self, partition: int) -> None:
        """It is settled."""


@dataclass(slots=True)
class WriteAhead:
    """Of one partition. `doubts`: what former owners had in hand; `in_hand`: what we have, marked and not settled."""

    doubts: tuple[InHand, ...] = ()
    in_hand: InHand | None = None

    @property
    def marks(self) -> tuple[InHand, ...]:
        """What has to stand beside the offset."""
        ours = () if self.in_hand is None or self.in_hand in self.doubts else (self.in_hand,)
        return self.doubts + ours

    def takes(self, in_hand: InHand) -> Failure | None:
        """What runs next. A failure in its place, if it is one of those in doubt."""
        self.in_hand = in_hand
        if in_hand not in self.doubts:
            return None
        error = UnknownEffectError(_TOLD, hint="find out at the target, then settle the entry")
        return Failure(0, FailureClass.TRANSIENT, error.code, "", str(error), error)

    def settled(self) -> WriteAhead:
        """As it is once what we have in hand is."""
        return WriteAhead(tuple(each for each in self.doubts if each != self.in_hand))

    def dropped(self) -> WriteAhead:
        """As it is once what we have in hand was not begun after all."""
        return WriteAhead(self.doubts)
