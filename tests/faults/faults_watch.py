"""What the tests see from outside while faults happen: positions, open transactions, the sink's session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from faults_app import Application

from heddle.broker.kafka import KafkaBroker
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.operations.lag import EXACT_UP_TO, subscription_lag

TIMEOUT_S = 30.0
PARTITIONS = range(6)
LOOKS = 4
SINK_SESSION = "heddle/ledger"


class Watch:
    """Looks at groups and topics of one application. Every look at a group proves that no offset went back (I5)."""

    def __init__(self, app: Application) -> None:
        self.broker = KafkaBroker(app.settings)
        self._app = app
        self._admin = self.broker.admin()
        self._client = AdminClient({"bootstrap.servers": app.settings.bootstrap_servers, "log_level": 0})
        self._topics = {s.name: s.topic for s in app.subscriptions}
        self._reached: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        self._admin.close()

    def counts(self, name: str) -> Counts:
        """How the subscription's records settled so far, as committed with its offsets."""
        total = Counts()
        for partition, position in self._admin.group_positions(name, self._topics[name], PARTITIONS).items():
            before = self._reached.get((name, partition), -1)
            assert position.offset >= before, f"{name}/{partition} went back from {before} to {position.offset}"
            self._reached[name, partition] = position.offset
            total += PartitionMetadata.unpack(position.metadata).counts
        return total

    def settled(self, name: str) -> int:
        return self.counts(name).total

    def progress(self, name: str, more: int = 1) -> Callable[[], bool]:
        """The condition that it has settled so many more than it has now."""
        goal = self.settled(name) + more
        return lambda: self.settled(name) >= goal

    def is_calm(self, name: str) -> bool:
        """Whether it has nothing left to do, and suspects none of it of having killed its predecessor."""
        positions = self._admin.group_positions(name, self._topics[name], PARTITIONS).values()
        suspicions = [PartitionMetadata.unpack(position.metadata).suspicion for position in positions]
        return not any(suspicions) and self.lag(name) == 0

    def members(self, name: str) -> int:
        return self._admin.group_members([name])[name]

    def lag(self, name: str) -> int:
        rows = subscription_lag(self.broker, [s for s in self._app.subscriptions if s.name == name])
        return rows[0].lag

    def drained(self) -> bool:
        """Asks exactly only when it may be so: the application needs the processors more than its watcher does."""
        for name in self._topics:
            self.counts(name)
        ends = self._admin.end_offsets(dict.fromkeys(self._topics.values(), PARTITIONS))
        if any(self._is_far_behind(name, ends[topic]) for name, topic in self._topics.items()):
            return False
        return not any(row.lag for row in subscription_lag(self.broker, self._app.subscriptions))

    def everybody_works(self) -> bool:
        """By a client of its own: one that has asked before its broker is killed can time out long after."""
        with closing(self.broker.admin()) as admin:
            return all(admin.group_members(self._topics).values())

    def ends(self, topic: str) -> dict[int, int]:
        """Behind the last record of each partition, decided or not."""
        return self._ends(topic, IsolationLevel.READ_UNCOMMITTED)

    def visible(self, topic: str, since: dict[int, int]) -> int:
        """Records that a read-committed reader finds from these offsets on."""
        reader = self.broker.reader()
        try:
            return sum(len(reader.read_range(topic, p, TIMEOUT_S, offset)) for p, offset in since.items())
        finally:
            reader.close()

    def is_transaction_left_open(self, topic: str) -> bool:
        """For a writer that was frozen just now: records of its stand on the topic, and no commit is on its way."""
        return all(self.has_undecided_records(topic) for _ in range(LOOKS))

    def has_undecided_records(self, topic: str) -> bool:
        return self.ends(topic) != self._ends(topic, IsolationLevel.READ_COMMITTED)

    def _is_far_behind(self, name: str, ends: dict[int, int]) -> bool:
        """So far that `subscription_lag` would count offsets, too."""
        return any(end - self._reached.get((name, partition), 0) > EXACT_UP_TO for partition, end in ends.items())

    def _ends(self, topic: str, isolation: IsolationLevel) -> dict[int, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(topic, partition): latest for partition in PARTITIONS}
        futures = self._client.list_offsets(wanted, isolation_level=isolation, request_timeout=TIMEOUT_S)
        return {partition.partition: future.result(TIMEOUT_S).offset for partition, future in futures.items()}


@contextmanager
def locked_ledger(dsn: str) -> Iterator[None]:
    """Nobody writes to the ledger's table inside this block; the sink waits with its transaction open."""
    with psycopg.connect(dsn) as connection:
        connection.execute("lock table ledger.entry_line in access exclusive mode")
        yield
        connection.rollback()


def sink_waits_for_table(dsn: str) -> bool:
    """Whether the sink's session waits for a table's lock: in the middle of its transaction, fence in hand."""
    return any((kind, event) == ("Lock", "relation") for kind, event, _ in _sink_sessions(dsn))


def sink_waits_in_commit(dsn: str) -> bool:
    """Whether the sink's session is inside COMMIT, waiting for a standby."""
    return any(event == "SyncRep" and statement == "COMMIT" for _, event, statement in _sink_sessions(dsn))


def _sink_sessions(dsn: str) -> list[tuple[str, str, str]]:
    """What each waits for, and its statement."""
    sessions = "select wait_event_type, wait_event, query from pg_stat_activity where application_name = %s"
    return [(str(kind), str(event), str(statement)) for kind, event, statement in query(dsn, sessions, SINK_SESSION)]


def query(dsn: str, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        cursor = connection.execute(text, parameters)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []
