"""What a subscription does with failures: declared beside it, and safe as it stands.

sink = SqlSink(..., on_failure=OnFailure(
    classes={OutOfStockError: FailureClass.TRANSIENT},
    transient=Retry(tries=20, first_delay_s=10, longest_delay_s=3600),
))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from heddle.errors import FailureClass, UsageError

Order = Literal["park", "continue", "supersede", "stop"]
"""What happens to later events of a key whose earlier event failed.

park: they wait behind it, attempted in order once it is resolved. continue: they pass it. supersede: they pass it, and
the first that succeeds resolves it (contracts that carry an entity's full state). stop: the subscription stops."""


def holds_keys(order: Order) -> bool:
    """Whether later events of a key must not take effect once an earlier one of theirs has failed."""
    return order in ("park", "stop")


def _above_zero(owner: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise UsageError(f"{owner}: {name} is {number:g}, and has to be above zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Tries of one record over its life, the first included, and the growing, jittered delays between them.

    The delay before try n+1 is drawn from the upper half of `first_delay_s` x 2^(n-1), at most `longest_delay_s`."""

    tries: int
    first_delay_s: float
    longest_delay_s: float

    def __post_init__(self) -> None:
        _above_zero("Retry", tries=self.tries, first_delay_s=self.first_delay_s, longest_delay_s=self.longest_delay_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Opens when, within `window_s`, `keys` different keys failed alike (one target, or one fingerprint) and these are
    at least `ratio` of all attempts. Open: partitions pause, nothing is parked; one record probes, after growing
    delays from `first_probe_s` to `longest_probe_s`, so that a target is used again within 5 s of its return."""

    window_s: float = 30.0
    keys: int = 10
    ratio: float = 0.5
    first_probe_s: float = 1.0
    longest_probe_s: float = 2.0

    def __post_init__(self) -> None:
        _above_zero(
            "Breaker", window_s=self.window_s, keys=self.keys, ratio=self.ratio,
            first_probe_s=self.first_probe_s, longest_probe_s=self.longest_probe_s,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureBudget:
    """More than `ratio` of at least `records` records within `window_s` failed: stop before parking a flood.

    A ratio of 1 never stops."""

    window_s: float = 60.0
    records: int = 200
    ratio: float = 0.5

    def __post_init__(self) -> None:
        _above_zero("FailureBudget", window_s=self.window_s, records=self.records, ratio=self.ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How much may be unresolved; beyond it the partition pauses, nothing is dropped. Warned about at half."""

    entries: int = 250_000
    bytes: int = 256 * 2**20
    entries_per_key: int = 10_000

    def __post_init__(self) -> None:
        _above_zero("Caps", entries=self.entries, bytes=self.bytes, entries_per_key=self.entries_per_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFailure:
    """`classes` maps exceptions of your own (subclasses included) to a class; the first that fits wins, before the
    defaults. `quick_tries` and `quick_delay_s`: tries inside the batch, for what a moment mends. `longest_age_s`: an
    entry that failed first longer ago than this is dead at its next failure, whatever its tries."""

    classes: Mapping[type[BaseException], FailureClass] = field(default_factory=dict)
    transient: Retry = Retry(tries=12, first_delay_s=2.0, longest_delay_s=900.0)
    unknown: Retry = Retry(tries=3, first_delay_s=5.0, longest_delay_s=60.0)
    longest_age_s: float = 86_400.0
    quick_tries: int = 3
    quick_delay_s: float = 0.05
    breaker: Breaker = Breaker()
    budget: FailureBudget = FailureBudget()
    caps: Caps = Caps()

    def __post_init__(self) -> None:
        _above_zero(
            "OnFailure", longest_age_s=self.longest_age_s, quick_tries=self.quick_tries,
            quick_delay_s=self.quick_delay_s,
        )  # fmt: skip


DEFAULT = OnFailure()
