"""Source, Flow, Sink: what an integrator declares. Frozen in effect: read once, changed never.

A module in `producers/`, `topologies/` or `consumers/` declares these as values; importing it does nothing else.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from heddle.broker.log import Record
from heddle.errors import Failure, UsageError
from heddle.event import Draft, Event
from heddle.mapping import Mapping
from heddle.on_failure import DEFAULT, OnFailure, Order

R = TypeVar("R")
W = TypeVar("W")

Start = Literal["earliest", "latest"]
OnTombstone = Literal["park", "ignore", "delete"]
"""What a sink does about a record without a value: its entity is gone. "delete": its writer is given it."""

TombstoneKey: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From a tombstone's key, by field path, to the key that it has in a flow's output; None: it has none there."""

Output: TypeAlias = W | Iterable[W] | None
SyncFunction: TypeAlias = Callable[[R], Output[W]] | Callable[[R, Event[R]], Output[W]]
AsyncFunction: TypeAlias = Callable[[R], Awaitable[Output[W]]] | Callable[[R, Event[R]], Awaitable[Output[W]]]
Handler: TypeAlias = Mapping[R, W] | SyncFunction[R, W] | AsyncFunction[R, W]


class Outcome(StrEnum):
    """How a record settled. There is no seventh (guarantees: "every record settles")."""

    EMITTED = "emitted"
    APPLIED = "applied"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    PARKED = "parked"
    DIVERTED = "diverted"


class Applied(NamedTuple):
    """A sink's answer for one event. `recovered`: an earlier, crashed try had made the effect already. `tells`: values
    of the contract that the sink emits; their event is then counted as `emitted`, because it writes events, and as
    `recovered` too where it is."""

    outcome: Outcome
    recovered: bool = False
    tells: tuple[Any, ...] = ()


class Delivered(NamedTuple, Generic[R]):
    """One decoded event as a sink gets it: the record, its value, and what identity rests on. A tombstone's value is
    None; only sinks that declare `on_tombstone` "delete" are given any.

    `replayed`: it comes from the dead-letter topic and out of its key's log order, so that of two events with equal
    versions it is the one to lose. `tried_since_ms`, of a record that comes from there: when it failed first
    (milliseconds since 1970), if a try may have had its effect at the target, and 0 if none has; None: it is live."""

    record: Record
    event: Event[R]
    body_hash: bytes
    replayed: bool = False
    tried_since_ms: int | None = None


class SinkWriter(Protocol[R]):
    """A sink's open end, used by one worker thread.

    `bump` and `apply` raise `DependencyDownError` when the target does not answer (nothing was settled: the
    worker waits and runs the same batch again) and `AuthError` when it refuses us (the worker stops)."""

    def bump(self, partitions: Iterable[int]) -> None:
        """Assignment handshake: take these partitions over at the target, so that a frozen former owner's
        writes are refused from now on. Returns only when the fence is durable. No-op where there is no fence."""

    def release(self, partitions: Iterable[int]) -> None:
        """Forget these partitions; nothing of them will be applied until the next `bump`."""

    def apply(self, batch: Sequence[Delivered[R]]) -> tuple[list[Applied | None], list[Failure]]:
        """Make the effects of a batch, in order, atomically except for the failed records. Same length out; None where
        a `Failure` names that index and, for a sink of order "park", for later events of that record's key, which
        must not be applied. Raises `PartitionFencedError` when `bump` is due."""

    def close(self) -> None: ...


@runtime_checkable
class CallingWriter(SinkWriter[R], Protocol[R]):
    """A writer whose effects are calls: one by one, and none of them can be taken back."""

    def apply_while(
        self, batch: Sequence[Delivered[R]], may_begin: Callable[[], bool]
    ) -> tuple[list[Applied | None], list[Failure]]:
        """`apply`, which asks `may_begin` before each call and leaves the rest of the batch unanswered (None) once the
        answer is no: somebody else may own the partition by now. A failure that concerns all records (a rate limit,
        refused credentials, a target that is down) ends a batch as well; it is answered by that `Failure`."""


class PartitionFencedError(Exception):
    """The target saw a later owner of the partition: repeat the assignment handshake, then re-run."""


class Component:
    """What all three have: a name unique in the project, an owner, where the runbook is, and what failures do.

    `regulated`: the audit trail names every event, not only those that did not simply succeed."""

    order: Order = "park"
    on_failure: OnFailure = DEFAULT
    regulated: bool = False

    def __init__(self, name: str, *, owner: str, runbook: str = "") -> None:
        if not name or not all(c.islower() or c.isdigit() or c == "-" for c in name):
            raise UsageError(
                f"component name {name!r} is not lower-case letters, digits and hyphens",
                hint="rename it, for example 'deal-to-invoice'; the name becomes its consumer group",
            )
        if not owner:
            raise UsageError(f"{name}: owner is empty", hint="name the team that answers for it: owner='finance'")
        self.name = name
        self.owner = owner
        self.runbook = runbook or name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Source(Component, ABC):
    """Events from a business system. A pushed source keeps raw deliveries in `raw_topic` and converts them as a
    subscription over it, so that a converter's mistake parks, is fixed, and replays from the original bytes."""

    emits: tuple[type, ...]

    @property
    def raw_topic(self) -> str:
        return f"{self.name}.raw"

    @abstractmethod
    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        """The events of one raw record. What it raises parks that record."""


class Pulled(Protocol):
    """One raw record that a source went and got, not converted yet.

    `key`: its entity as `tenant/entity` (`heddle.event.entity_key`); what is of one key stays in order. `id`: the same
    whenever it is pulled again, and nobody else's in this source."""

    @property
    def key(self) -> bytes: ...

    @property
    def id(self) -> str: ...

    def drafts(self) -> Iterable[Draft[Any]]:
        """Its events. What it raises diverts the record into the raw topic, where it is parked."""

    def pack(self) -> bytes:
        """As the raw topic keeps it: enough to make the same events of it later, in another process."""


class Pull(NamedTuple):
    """What one call brought. `position`: where to go on after it, JSON of at most 100 KiB that only its kind reads. No
    records and a new position: time has passed upstream, and there is nothing to tell. `kept`: entries of a
    `KeepingPuller` that are new, or, as None, gone; they are in the same transaction."""

    records: Sequence[Pulled]
    position: bytes
    kept: Sequence[tuple[bytes, bytes | None]] = ()


class Puller(Protocol):
    """A pulled source's open end, used by one thread: the leader's.

    Every method raises `DependencyDownError` while upstream does not answer (the worker waits, and begins again at the
    last position), and `AuthError` when it refuses us (the worker stops)."""

    def begin(self, position: bytes | None) -> None:
        """Go on behind a position; None where there is none yet. Raises `PositionLostError` when upstream cannot: there
        would be a gap."""

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        """What comes next, at most about so many records; None when nothing came in time."""

    def confirm(self, position: bytes) -> None:
        """All up to here is in Kafka for good, or was before: upstream may forget it."""

    def close(self) -> None:
        """Let go. Nothing is confirmed by it."""


@runtime_checkable
class KeepingPuller(Puller, Protocol):
    """One that knows more than a position holds: entries of its own, beside it in the compacted position topic."""

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Before `begin`: all that was committed in `Pull.kept` and is not compacted yet, in that order; the last of a
        key counts, and None takes it away."""


class PulledSource(Source):
    """A source that Heddle goes to. Events and position are one Kafka transaction, and upstream is told after it.

    One process at a time pulls: the owner of the only partition of `position_topic`. A record that does not convert
    goes to the raw topic, with those of its key that come after it, until it is settled there."""

    @property
    def position_topic(self) -> str:
        return f"{self.name}.position"

    @abstractmethod
    def open(self) -> Puller:
        """Connect, resolving secrets now. Raises `DependencyDownError` or `AuthError`."""


class Flow(Component, Generic[R, W]):
    """One input topic, a handler, one output topic, exactly once.

    `do` is a `Mapping`, a function, or an async function; a function takes the value, and the `Event` as well when
    it has a second parameter without a default, and returns one output, several, or None. `deadline_s` bounds one
    call: an async one is cancelled and its record parked; a plain one cannot be stopped, so the process ends and
    starts again.

    `on_tombstone`: a function from the key of an entity that is gone to the key that it has in the output, for a
    tombstone there; "ignore" passes none on. Without it a tombstone is parked."""

    def __init__(
        self,
        name: str,
        *,
        reads: type[R],
        writes: type[W],
        do: Handler[R, W],
        owner: str,
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
        start: Start = "earliest",
        deadline_s: float = 30.0,
        on_tombstone: TombstoneKey | Literal["park", "ignore"] = "park",
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        if on_tombstone not in ("park", "ignore") and not callable(on_tombstone):
            raise UsageError(f'flow {name}: on_tombstone= is neither "park", "ignore" nor a function of the key')
        self.on_tombstone = on_tombstone
        self.on_failure = on_failure
        self.regulated = regulated
        self.reads = reads
        self.writes = writes
        self.do = do
        self.order = order
        self.start: Start = start
        self.deadline_s = deadline_s
        if isinstance(do, Mapping):
            if (do.source, do.target) != (reads, writes):
                raise UsageError(
                    f"flow {name}: the mapping goes from {do.source.__name__} to {do.target.__name__}, "
                    f"the flow from {reads.__name__} to {writes.__name__}",
                    hint="give the flow and its mapping the same two contracts",
                )
            self.is_async = self.takes_event = False
            return
        if not callable(do):
            raise UsageError(f"flow {name}: do= is neither a Mapping nor a function")
        if any(inspect.isasyncgenfunction(function) for function in (do, type(do).__call__)):
            raise UsageError(
                f"flow {name}: the handler is an async generator", hint="return a list, or None, from an async function"
            )
        self.is_async = any(inspect.iscoroutinefunction(function) for function in (do, type(do).__call__))
        self.takes_event = _takes_event(name, do)


def _takes_event(flow: str, function: Callable[..., Any]) -> bool:
    """A parameter with a default is the function's own business."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.KEYWORD_ONLY for p in parameters) or len(positional) not in (1, 2):
        raise UsageError(
            f"flow {flow}: the handler does not take one value, or a value and its Event",
            hint="write it as handler(deal) or handler(deal, event); give other parameters defaults",
        )
    return len(positional) == 2


class Sink(Component, ABC, Generic[R]):
    """One input topic and a target system, exactly once in effect. `emits`: a contract of what the target answers, by
    events that are written in the transaction of the offsets. `on_tombstone`: parked as a contract failure unless the
    sink says otherwise; one that is ignored counts as applied. `at_most_once`: an effect can neither be repeated nor
    looked for, so its writer gets one record at a time, never a second time; it raises `DependencyDownError` only for
    what has had no effect, and answers with an `UnknownEffectError` where nobody knows."""

    reads: type[R]
    emits: type[Any] | None = None
    on_tombstone: OnTombstone = "park"
    at_most_once: bool = False
    start: Start = "earliest"

    @abstractmethod
    def open(self) -> SinkWriter[R]:
        """Connect, resolving secrets now. Raises `DependencyDownError` or `AuthError`."""
