"""What the tests see from outside while faults happen: positions, open transactions, the sink's session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from faults_app import Application

from heddle.broker.kafka import KafkaBroker
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.operations.lag import subscription_lag

TIMEOUT_S = 30.0
PARTITIONS = range(6)
SINK_SESSION = "heddle/ledger"


class Watch:
    """Looks at groups and topics of one application. Every look at a group proves that no offset went back (I5)."""

    def __init__(self, app: Application) -> None:
        self.broker = KafkaBroker(app.settings)
        self._app = app
        self._admin = self.broker.admin()
        self._client = AdminClient({"bootstrap.servers": app.settings.bootstrap_servers})
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

    def members(self, name: str) -> int:
        return self._admin.group_members(name)

    def lag(self, name: str) -> int:
        rows = subscription_lag(self.broker, [s for s in self._app.subscriptions if s.name == name])
        return rows[0].lag

    def drained(self) -> bool:
        for subscription in self._app.subscriptions:
            self.counts(subscription.name)
        return not any(row.lag for row in subscription_lag(self.broker, self._app.subscriptions))

    def everybody_works(self) -> bool:
        return all(row.members for row in subscription_lag(self.broker, self._app.subscriptions))

    def stable_ends(self, topic: str) -> dict[int, int]:
        return self._ends(topic, IsolationLevel.READ_COMMITTED)

    def has_open_transaction(self, topic: str) -> bool:
        """Records stand on the topic that no transaction has decided yet."""
        return self._ends(topic, IsolationLevel.READ_UNCOMMITTED) != self.stable_ends(topic)

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


def sink_waits_for(dsn: str, event_type: str, event: str | None = None) -> bool:
    """Whether the sink's session stands in that wait event (`Lock`: somebody's lock; `SyncRep`: inside COMMIT)."""
    rows = query(
        dsn, "select wait_event_type, wait_event from pg_stat_activity where application_name = %s", SINK_SESSION
    )
    return any(row[0] == event_type and event in (None, row[1]) for row in rows)


def query(dsn: str, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        cursor = connection.execute(text, parameters)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []
