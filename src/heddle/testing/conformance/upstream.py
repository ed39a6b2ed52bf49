"""One fresh upstream of a pulled source, and pullers over it: what all checks of pulled sources stand on."""

from __future__ import annotations

import contextlib
import time
import unittest
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from heddle.errors import DependencyDownError
from heddle.integration import KeepingPuller, Pull, Pulled, PulledSource, Puller

CHANGES = 12
CHANGES_OF_A_STEP = 3
WAIT_S = 0.25
OPEN_LIMIT_S = 30.0


Kept = dict[bytes | None, list[tuple[bytes, bytes | None]]]
"""By position, what a `KeepingPuller` had given the worker to keep until there."""


class Remembered:
    """A keeping puller beside the part of the worker that keeps."""

    def __init__(self, puller: KeepingPuller, kept: Kept, position: bytes | None) -> None:
        self._puller, self._kept = puller, kept
        self._entries = list(kept.get(position, []))

    def begin(self, position: bytes | None) -> None:
        self._puller.restore(self._entries)
        self._puller.begin(position)

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = self._puller.pull(max_records, max_wait_s)
        if pull is not None:
            self._entries += pull.kept
            self._kept[pull.position] = list(self._entries)
        return pull

    def confirm(self, position: bytes) -> None:
        self._puller.confirm(position)

    def close(self) -> None:
        self._puller.close()


class PulledUpstream(ABC):
    """What a test module gives, and how the checks come to a puller."""

    unsupported: ClassVar[Mapping[str, str]] = {}
    batch_slack: ClassVar[int] = 0
    stop_limit_s: ClassVar[float] = 10.0

    @abstractmethod
    def source(self) -> PulledSource:
        """The source, each time over the same upstream."""

    def start(self) -> bytes | None:
        """The position before all changes; None is the beginning. Where a kind begins with more than changes (with a
        snapshot, say), make it here, and give the position behind it."""
        return None

    @abstractmethod
    def change(self, number: int) -> None:
        """Upstream changes, so that one record more is pulled: of the entity `number % 3`."""

    @abstractmethod
    def poison(self) -> None:
        """Upstream changes to what the source cannot convert: one record more whose `drafts` raises, of an entity that
        no change has."""

    # What the checks share

    def _require(self, check: str) -> None:
        if reason := self.unsupported.get(check):
            raise unittest.SkipTest(f"{check}: {reason}")

    def _begin(self, check: str) -> bytes | None:
        self._require(check)
        base = self.start()
        for number in range(CHANGES):
            self.change(number)
        return base

    def _more(self, made: int, count: int = CHANGES_OF_A_STEP) -> int:
        """So many changes more; how many were made then."""
        for number in range(made, made + count):
            self.change(number)
        return made + count

    def _let_in(self, copies: contextlib.ExitStack, position: bytes | None) -> Puller | None:
        """One that has begun and is closed with `copies`; None where upstream does not let it in now."""
        with contextlib.ExitStack() as opened:
            try:
                puller: Puller = opened.enter_context(contextlib.closing(self.source().open()))
                if isinstance(puller, KeepingPuller):
                    puller = Remembered(puller, self._kept, position)
                puller.begin(position)
            except DependencyDownError:
                return None
            copies.push(opened.pop_all())
            return puller

    @cached_property
    def _kept(self) -> Kept:
        return {}

    @contextlib.contextmanager
    def _open(self, position: bytes | None) -> Iterator[Puller]:
        """Again while upstream has not noticed yet that the former copy is gone, as the worker does."""
        deadline_s = time.monotonic() + OPEN_LIMIT_S
        with contextlib.ExitStack() as opened:
            while (puller := self._let_in(opened, position)) is None:
                assert time.monotonic() < deadline_s, (
                    f"upstream does not let a copy in for {OPEN_LIMIT_S:.0f} s after the former one was closed: "
                    "`close` has to give back whatever keeps others out"
                )
                time.sleep(WAIT_S / 5)
            yield puller

    @staticmethod
    def _same(found: Sequence[object], expected: Sequence[object], what: str) -> None:
        assert found == expected, f"{what}. Found {found}, not {expected}"


def converts(record: Pulled) -> bool:
    try:
        list(record.drafts())
    except Exception:
        return False
    return True
