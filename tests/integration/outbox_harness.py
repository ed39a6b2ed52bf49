"""What the tests of the outbox share: a table, applications that write to it, and pull workers on a log in memory."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from postgres_source_harness import Database

from heddle.broker.log import Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.delivery.drafts import Drafts
from heddle.delivery.pull import PullWorker
from heddle.delivery.subscription import subscription_of
from heddle.event import ID
from heddle.integration import Puller
from heddle.settings import Settings
from heddle.sources.outbox import Outbox, OutboxSource

DEADLINE_S = 30.0

TABLE = """
create table outbox (
    id uuid primary key,
    aggregatetype text not null,
    aggregateid text not null,
    type text not null,
    payload json,
    seq bigint generated always as identity unique,
    xid xid8 not null default pg_current_xact_id(),
    created_at timestamptz not null default now()
)
"""
FIELDS: list[dict[str, Any]] = [
    {"name": "account", "type": "string", "doc": "Key."},
    {"name": "version", "type": "long", "doc": "Counts the changes of the account."},
]


class Crash(BaseException):
    """What no code catches."""


class HookedSource(OutboxSource):
    """Calls `hook` by the name of each step before it is done."""

    hook: Callable[[str], None] = staticmethod(lambda _: None)

    def open(self) -> Any:
        return HookedPuller(super().open(), lambda step: self.hook(step))


class HookedPuller:
    def __init__(self, inner: Puller, hook: Callable[[str], None]) -> None:
        self.inner = inner
        self.hook = hook

    def begin(self, position: bytes | None) -> None:
        self.hook("begin")
        self.inner.begin(position)

    def pull(self, max_records: int, max_wait_s: float) -> Any:
        self.hook("pull")
        pull = self.inner.pull(max_records, min(max_wait_s, 0.01))
        self.hook("pulled")
        return pull

    def confirm(self, position: bytes) -> None:
        self.hook("confirm")
        self.inner.confirm(position)
        self.hook("confirmed")

    def close(self) -> None:
        self.inner.close()


class Publishing:
    """One outbox of a database, its source, and what the source has published."""

    def __init__(self, database: Database, kind: type[Any], **more: Any) -> None:
        self.database = database
        self.kind = kind
        self.outbox = Outbox()
        self.broker = MemoryBroker()
        self.source = HookedSource("bank", dsn=database.secret, emits=kind, owner="tests", **more)
        self.registry = MemoryRegistry([contract_of(kind)])
        self.stop = threading.Event()
        self.workers: list[PullWorker] = []
        self.connections: list[psycopg.Connection[Any]] = []
        subscription = subscription_of(self.source)
        names = [subscription.topic, subscription.dead_letter_topic, subscription.command_topic]
        names += [subscription.audit_topic, *subscription.writes, self.source.position_topic]
        with contextlib.closing(self.broker.admin()) as admin:
            admin.create_topics([TopicSpec(name, 1) for name in dict.fromkeys(names)])

    def worker(self, instance: str = "0", max_records: int = 1000) -> PullWorker:
        settings = Settings.model_validate({"instance": instance, "batch_max_records": max_records})
        made = PullWorker(self.source, Drafts(self.source, self.registry, "0" * 64), self.broker, settings)
        made.open()
        self.workers.append(made)
        return made

    def connect(self) -> psycopg.Connection[Any]:
        """An application's: not in autocommit."""
        made = psycopg.connect(self.database.dsn)
        self.connections.append(made)
        return made

    def put(self, connection: psycopg.Connection[Any], account: str, version: int) -> None:
        self.outbox.put(connection, self.kind(account=account, version=version))

    def publish(self, worker: PullWorker, until: Callable[[], bool] | None = None) -> None:
        """Turns until the table is empty, or as told."""
        holds = until or (lambda: not self.rows())
        deadline_s = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline_s, "it is not published in time"
            worker.turn(self.stop)

    def turns(self, worker: PullWorker, count: int = 4) -> None:
        for _ in range(count):
            worker.turn(self.stop)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.database.run("select aggregateid, seq from outbox order by seq")

    def read(self, topic: str) -> list[Record]:
        with contextlib.closing(self.broker.reader()) as reader:
            return list(reader.read_range(topic, 0, DEADLINE_S, settled=True))

    def published(self) -> list[tuple[str, int]]:
        """(account, version) of all events, in the topic's order."""
        contract = contract_of(self.kind)
        codec = AvroCodec[Any](contract, self.registry)
        values = [codec.decode(record.value) for record in self.read(contract.topic)]
        return [(value.account, value.version) for value in values]

    def ids(self) -> list[bytes | None]:
        return [dict(record.headers)[ID] for record in self.read(contract_of(self.kind).topic)]

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(Exception):
                worker._let_go()
            worker.abandon()
        for connection in self.connections:
            connection.close()


@contextlib.contextmanager
def crashing(
    source: HookedSource, step: str, after: int = 0, armed: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Dies at a step, once `after` of them have passed while it was `armed`."""
    left = [after]

    def hook(at: str) -> None:
        if armed() and at == step:
            left[0] -= 1
            if left[0] < 0:
                raise Crash

    source.hook = hook  # type: ignore[method-assign]
    try:
        yield
    finally:
        source.hook = lambda _: None  # type: ignore[method-assign]


def by_account(events: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for account, version in events:
        found.setdefault(account, []).append(version)
    return found


def die(worker: PullWorker) -> None:
    """Its connections end, and nothing else."""
    if worker._puller is not None:
        worker._puller.close()
    worker.abandon()


def write_at_random(publishing: Publishing, seed: int, writes: int, done: threading.Event) -> None:
    """Transactions of one to three changes, each of an account that it locks; they commit late, or not at all."""
    rng = random.Random(seed)
    with psycopg.connect(publishing.database.dsn) as connection:
        for _ in range(writes):
            if rng.random() < 0.3:
                connection.execute("select pg_current_xact_id()")  # an id long before anything is written
                connection.execute("select pg_sleep(%s)", (rng.random() * 0.01,))
            for account in sorted(rng.sample("abcdef", rng.randint(1, 3))):  # in one order: no deadlocks
                version = connection.execute(
                    "update account set version = version + 1 where name = %s returning version", (account,)
                ).fetchone()
                assert version is not None
                publishing.put(connection, account, version[0])
                if rng.random() < 0.3:
                    connection.execute("select pg_sleep(%s)", (rng.random() * 0.005,))
            if rng.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
    done.set()


def progress_of(worker: PullWorker) -> Callable[[], bool]:
    """Whether it has published since it leads. Who dies twice without that leaves the next rows to the raw topic."""
    at_first: list[int] = []

    def has_published() -> bool:
        if worker.is_leader:
            at_first.append(worker.counts.total)
        return bool(at_first) and worker.counts.total > at_first[0]

    return has_published
