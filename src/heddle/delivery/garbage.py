"""When Python looks for cyclic garbage: between batches. Inside of one it would walk everything that the batch holds, a
few hundred objects further each time, and find nothing: that costs as much as everything else that a worker does."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_IN_BATCH = 200_000
"""Objects that may gather until a collection comes all the same: a handler may make cycles with every call."""

WORTH_A_LOOK = 2_000
"""So many new objects that are still there after a batch may be garbage. A batch leaves a few hundred."""

EVERYTHING_S = 60.0
"""How often also that is looked through which was there before; it takes the longer, the more entries are parked."""


def forget_frames(error: BaseException | None) -> None:
    """For an error whose stack has been told. Its traceback holds frames, these their callers' and so the whole batch,
    and the batch's results hold the error: a cycle, in which everything would wait for the collector."""
    errors, seen = [error], set[int]()
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        errors += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


@contextmanager
def collected_between_batches(now: Callable[[], float] = time.monotonic) -> Iterator[Callable[[], None]]:
    """Call what it gives after each batch. What exists when it begins is not looked at until it ends. For the whole
    process, as the collector is. `now`: seconds that never go back."""
    thresholds, looked_s = gc.get_threshold(), now()

    def collect() -> None:
        nonlocal looked_s
        if now() - looked_s >= EVERYTHING_S:
            gc.collect()
            looked_s = now()
        elif gc.get_count()[0] >= WORTH_A_LOOK:
            gc.collect(1)

    gc.freeze()
    gc.set_threshold(MOST_IN_BATCH, *thresholds[1:])
    try:
        yield collect
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
