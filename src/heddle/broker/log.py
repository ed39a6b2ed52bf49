"""The log as a protocol: what delivery needs of Kafka and nothing more.

Two implementations, `broker.kafka` and `broker.memory`, pass one behaviour suite (`tests/conformance`).
Unless said otherwise a method raises `BrokerDownError` when no broker answers within its time-out and
`AuthError` when credentials or access rules refuse it. None of these objects is shared between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes | None]]

OnRelease = Callable[[frozenset[int]], None]

NEVER_COMMITTED = -1
UNPLACED = -1
ANY_PARTITION = -1
# The only header of a record whose own cannot be read (a name that is not UTF-8): said, not guessed.
UNREADABLE_HEADERS = "heddle-unreadable-headers"
BEGINNING = -2
END = -1
FIRST_RECORD_WAIT_S = 0.25


class Record(NamedTuple):
    """One record as the log holds it. `headers` keeps order and duplicates."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


class Outgoing(NamedTuple):
    """One record to append. `partition` -1 lets `murmur2_random` choose by key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = ANY_PARTITION


class OutgoingBatch(NamedTuple):
    """Records to append to one topic, a list for each field: an object less for every record than as `Outgoing`. All
    lists are as long as each other; where `headers` holds None there is no record. A producer takes what it has
    queued out of `headers`."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: list[list[tuple[str, bytes | None]] | None]

    def at(self, place: int) -> list[Outgoing]:
        """The record there, if there is one."""
        headers = self.headers[place]
        return [] if headers is None else [Outgoing(self.topic, self.keys[place], self.values[place], headers)]

    def part(self, start: int, stop: int) -> OutgoingBatch:
        """Those places, as a slice has them."""
        places = slice(start, stop)
        return OutgoingBatch(self.topic, self.keys[places], self.values[places], self.headers[places])


def one_by_one(records: Iterable[Outgoing | OutgoingBatch]) -> Iterator[Outgoing]:
    """All of them as `Outgoing`, in order."""
    for each in records:
        if isinstance(each, Outgoing):
            yield each
        else:
            yield from chain.from_iterable(map(each.at, range(len(each.headers))))


class Position(NamedTuple):
    """A committed group offset: the next offset to read, and up to 4,095 bytes of metadata beside it."""

    offset: int
    metadata: str = ""


class Newest(NamedTuple):
    """`records`: the newest of each key, newest first. `start`: the first offset that was looked at, `read`: at how
    many records."""

    records: list[Record]
    start: int
    read: int


class Rebalance(NamedTuple):
    """Partitions gained and gone since the last call. `lost` went without our consent: nothing may be committed."""

    assigned: frozenset[int]
    revoked: frozenset[int]
    lost: frozenset[int]


class GroupMetadata(Protocol):
    """Opaque proof of membership at one generation; kept with the batch that was consumed under it."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as declared. `replication` None = the cluster's rule (1 locally, 3 elsewhere)."""

    name: str
    partitions: int
    replication: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is. `topic_id` changes when a topic is deleted and made again."""

    name: str
    topic_id: str
    partitions: int
    replication: int
    config: Mapping[str, str]


class Consumer(Protocol):
    """One member of one consumer group on one topic (classic protocol, cooperative-sticky), read-committed.

    A newly assigned partition delivers nothing until `start` names its offset: the assignment handshake decides
    where reading begins, not the client's reset policy. One thread calls everything; rebalances are served inside
    `consume` only, so a revocation cannot fall between two calls.
    """

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]:
        """Wait up to `first_wait_s` for a first record, then for a batch of `max_records`, but so that no record waits
        much longer than `max_wait_s` for others: what came while the last batch was worked on has waited already.

        Returns as soon as the batch is full or the assignment has changed, so it may be empty; what it returns is of
        started partitions that are still ours. Raises `OffsetLostError` when a started offset is out of the log's
        range, and never a record that it has already taken from the log is lost by an error: it comes first."""

    def take_rebalance(self) -> Rebalance:
        """What changed in the assignment since the last call; forgets it."""

    def assignment(self) -> frozenset[int]: ...

    def group_metadata(self) -> GroupMetadata:
        """Membership as of now. Take it right after `consume` and keep it with that batch."""

    def committed(self, partitions: Iterable[int], timeout_s: float) -> dict[int, Position]:
        """Stable committed positions: waits for a former owner's pending transaction to end.

        A partition never committed maps to `Position(NEVER_COMMITTED)`. `BrokerDownError` when a transaction is still
        pending after `timeout_s`."""

    def start(self, offsets: Mapping[int, int]) -> None:
        """Read these assigned partitions from these offsets on, from now on (seek and resume)."""

    def pause(self, partitions: Iterable[int]) -> None:
        """Deliver nothing of these until `start`. Local: it ends with the ownership, and a rebalance that leaves a
        partition with us leaves it paused."""

    def watermarks(self, partition: int, timeout_s: float) -> tuple[int, int]:
        """(first offset kept, last stable offset)."""

    def close(self) -> None:
        """Leave the group. What this member did not commit its successor reads again."""


class Reader(Protocol):
    """Reads partitions assigned by hand, read-committed, and never commits: dead-letter bodies, restores, `tail`."""

    def assign(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Replace the assignment. Offsets may be `BEGINNING` (-2) or `END` (-1)."""

    def consume(
        self, max_records: int, max_wait_s: float, *, first_wait_s: float = FIRST_RECORD_WAIT_S
    ) -> list[Record]: ...

    def scan(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> Iterator[Record]:
        """All records of a partition from `start` up to the last stable offset taken now; ends by position, not by a
        message. Holds little at a time. `BrokerDownError` when nothing comes for `timeout_s`.

        An acknowledged commit becomes visible partition by partition, a moment later (seen: the last stable offset
        behind it in 90 of 300 commits). `settled` waits until all that is in the partition now is decided, and so
        misses nothing that was acknowledged before the call; an open transaction makes it wait.

        Read it to its end, or close it, before the next call; leaves the assignment empty."""

    def read_range(
        self, topic: str, partition: int, timeout_s: float, start: int = BEGINNING, *, settled: bool = False
    ) -> list[Record]:
        """`scan`, as a list: for what is known to be short."""

    def newest(
        self, topic: str, partition: int, start: int, end: int, seen: set[bytes | None], timeout_s: float
    ) -> Newest:
        """The newest records, null values included, of those keys in [start, end) that are not in `seen`; adds them.
        `end` is at most the last stable offset; a `start` before the first kept offset is moved there.

        Called with stretches from the end on it reads a compacted topic newest first, and costs far less than `scan`:
        of older versions the keys alone are looked at. Holds one stretch at a time."""

    def fetch(self, topic: str, partition: int, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        """The records at these rising offsets, by offset; what compaction or retention took is missing from the answer.

        Meant for offsets that lie close together: stretches between them are read through, long ones are skipped.
        Waits for what is not decided yet; `BrokerDownError` after `timeout_s` of that, or of silence. Leaves the
        assignment as it is."""

    def tails(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, Record | None]:
        """The last record of each partition, settled (see `scan`); None where there is none. Leaves the assignment as
        it is."""

    def offset_at(self, topic: str, partition: int, timestamp_ms: int, timeout_s: float) -> int:
        """The first offset whose record is of that time or later; the last stable offset when there is none."""

    def last_stable_offset(self, topic: str, partition: int, timeout_s: float) -> int: ...

    def close(self) -> None: ...


class Producer(Protocol):
    """A transactional, idempotent producer. Fencing by transactional id is the log's, not ours."""

    def init(self, timeout_s: float) -> None:
        """Fence older owners of the transactional id and decide their unfinished transaction. Before all else."""

    def begin(self) -> None: ...

    def produce(self, records: Iterable[Outgoing | OutgoingBatch]) -> None:
        """Queue inside the open transaction; a failed delivery surfaces at `commit`.

        For a record that the log will not take (too large: the message names topic and size) `BrokerError` is raised
        here or at `commit`; abort, and go on with a new producer."""

    def produce_placed(self, records: Iterable[Outgoing]) -> list[int]:
        """As `produce`; the list holds the offset of each record, in order, once `commit` has returned, also where that
        took several calls. Until then, and for ever after an abort, it holds `UNPLACED` (-1) or an offset of no worth.

        Costs a callback a record: for what has to be found again, not for all."""

    def send_offsets(self, topic: str, positions: Mapping[int, Position], group: GroupMetadata) -> None:
        """Commit group positions with the transaction.

        Raises `StaleGenerationError` (abort, re-run) or `FencedError`."""

    def commit(self, timeout_s: float) -> None:
        """All of the transaction becomes visible, soon; `Reader.read_range` says how soon.

        Raises `StaleGenerationError`, `FencedError`, `CommitUnknownError` (call again, or exit), or
        `BrokerError` (abort, and go on with a new producer)."""

    def abort(self, timeout_s: float) -> None:
        """Take back the open transaction: nothing of it becomes visible, its positions are forgotten."""

    def close(self) -> None:
        """Abort what is open, if it is still ours."""


class Admin(Protocol):
    """Topics and groups. Calls block; each is one round trip or a few."""

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """The named topics that exist, with the explicitly set part of their configuration."""

    def topic_names(self) -> list[str]:
        """Every topic that these credentials may see, sorted; Kafka's own (their names begin with `__`) left out."""

    def create_topics(self, specs: Iterable[TopicSpec]) -> None: ...

    def alter_topic(self, name: str, config: Mapping[str, str]) -> None: ...

    def grow_topic(self, name: str, partitions: int) -> None:
        """Add partitions until there are that many. `BrokerError` when there are as many already."""

    def delete_topics(self, names: Iterable[str]) -> None: ...

    def broker_count(self) -> int: ...

    def end_offsets(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        """Last stable offsets by topic and partition, all asked for at once. `BrokerError` when one is not there."""

    def group_positions(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, Position]:
        """Committed positions as they stand: waits for no transaction, so that one whose commit has just been
        acknowledged may not show yet (seen). `Consumer.committed` waits."""

    def group_members(self, groups: Iterable[str]) -> dict[str, int]:
        """How many members each group has, all asked for at once; 0 for one that was never there."""

    def close(self) -> None: ...


class Broker(Protocol):
    """Makes the parts above. One per process."""

    def consumer(self, group: str, topic: str, on_release: OnRelease | None = None) -> Consumer:
        """`on_release` is called inside `consume` with partitions that are about to be given back: membership still
        holds, so that their last positions can be committed. Only those that `take_rebalance` has told of, and not
        lost ones. It must not raise."""

    def reader(self) -> Reader: ...

    def producer(self, transactional_id: str) -> Producer: ...

    def admin(self) -> Admin: ...
