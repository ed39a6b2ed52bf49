"""How a worker waits for what does not answer, and how it comes back: with one record, then with more and more."""

from __future__ import annotations

from collections.abc import Iterator

from heddle.delivery.settlement import Interruption

WAIT_MIN_S, WAIT_MAX_S = 0.2, 2.0


class Patience:
    """Of one worker. `most`: records in a batch when all is well."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._reduced = most
        self._delays = growing_delays()
        self._pauses = 0
        self._is_told = False
        self._is_probing = False

    @property
    def bound(self) -> int:
        """Records that a batch may have now."""
        return 1 if self._is_probing else self._reduced

    def delay_s(self, why: Interruption, breaker_delay_s: float) -> float:
        """Pause for so long. The breaker has delays, and a probe, of its own."""
        self._pauses += 1
        self._is_probing = not why.failed_alike
        if why.slows:
            self._reduced = max(1, self._reduced // 2)
        if why.delay_s is not None:
            return why.delay_s
        return breaker_delay_s if why.failed_alike else next(self._delays)

    def is_news(self, why: Interruption, delay_s: float) -> bool:
        """Once in a pause, when it is more than a moment's: worth an audit record."""
        if self._is_told or not (self._pauses > 1 or why.failed_alike or delay_s > WAIT_MAX_S):
            return False
        self._is_told = True
        return True

    def went_well(self) -> None:
        """Something came to an end: no probe is needed any more, batches grow again."""
        self._reduced = min(self._most, self._reduced * 2)
        if self._pauses:
            self._is_probing, self._is_told, self._pauses = False, False, 0
            self._delays = growing_delays()


def growing_delays() -> Iterator[float]:
    """Growing waits for a dependency: 0.2 s, doubled up to 2 s: it is used again within 5 s of its return."""
    delay = WAIT_MIN_S
    while True:
        yield delay
        delay = min(delay * 2, WAIT_MAX_S)
