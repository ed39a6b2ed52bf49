"""`heddle status` and `heddle lag` as a person meets them, on a cluster that is not the project's own local stack."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_project import CliProject

from heddle.audit import AuditTrail
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Broker, Outgoing, Position, Record, TopicSpec
from heddle.delivery.envelope import Envelope, State
from heddle.errors import Failure, FailureClass
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

BAD = Failure(0, FailureClass.CONTRACT, "decode", "", "no")


@pytest.fixture
def project(tmp_path: Path, stack: Stack) -> CliProject:
    return CliProject(tmp_path, stack)


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return KafkaBroker(Settings(bootstrap_servers=stack.bootstrap_servers, local=True))


@pytest.fixture
def write(broker: Broker) -> Iterator[Write]:
    with closing(Write(broker)) as made:
        yield made


class Write:
    """Committed transactions, visible when they return."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._producer = broker.producer(f"test-{time.time_ns()}")
        self._producer.init(30)

    def __call__(self, *records: Outgoing) -> None:
        self._producer.begin()
        self._producer.produce(records)
        self._producer.commit(30)
        with closing(self._broker.reader()) as reader:
            for record in records:
                reader.tails(record.topic, [record.partition], 30)

    def close(self) -> None:
        self._producer.close()


def entry(subscription: str, topic: str, offset: int, state: State = State.DEAD) -> Outgoing:
    envelope = Envelope(subscription, f"{subscription}.dlq", "t" * 22, "0" * 64)
    return envelope.failed(Record(topic, 0, offset, b"k%d" % offset, b"v", [], 1), BAD, state)


def test_status_tells_each_subscription_what_is_paused_and_whose_entries_nobody_runs(
    project: CliProject, broker: Broker, write: Write
) -> None:
    first, second = project.flow("first"), project.flow("second")
    fresh = project.heddle("status")
    assert fresh.returncode == 0
    assert fresh.stdout.startswith("no topics yet: `heddle plan` shows what to create\n")
    assert project.heddle("apply").returncode == 0
    idle = project.heddle("status")
    assert idle.returncode == 0, idle.stdout
    assert first in idle.stdout

    write(*(Outgoing(project.topic, b"k", b"v", partition=0) for _ in range(3)))
    write(entry(first, project.topic, 0), entry(first, project.topic, 1, State.WAITING))
    trail = AuditTrail(first, project.topic, f"{first}.audit", "worker:0", b"key")
    write(*trail.event(1, "", "paused", {"why": "cap: 250000 entries"})[0])
    (project.root / "topologies/second.py").unlink()
    write(entry(second, project.topic, 7))

    shown = project.heddle("status")
    assert shown.returncode == 1
    (row,) = (line.split() for line in shown.stdout.splitlines() if line.startswith(first))
    assert row[1:7] == ["3", "0", "1", "dead,", "1", "waiting"]
    assert f"partition 1 of {first} was paused when the worker stopped (cap: 250000 entries)" in shown.stdout
    assert f"heddle run {first}" in shown.stdout
    assert f"{second}.dlq holds 1 dead, and no component is called {second} any more" in shown.stdout
    document = json.loads(project.heddle("status", "--json").stdout)
    (told,) = document["subscriptions"]
    assert (told["lag"], told["unresolved"]["by_state"]) == (3, {"dead": 1, "waiting": 1})
    assert told["paused"] == [{"partitions": [1], "reason": "cap: 250000 entries"}]
    assert second in [orphan["subscription"] for orphan in document["orphans"]]
    assert "servers" in document


def test_a_cluster_that_does_not_answer_is_told_soon(project: CliProject) -> None:
    project.env["HEDDLE_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    shown = project.heddle("status")
    assert shown.returncode == 1
    assert "no broker answers at 127.0.0.1:1" in shown.stdout


def test_an_application_that_cannot_be_imported_is_told(project: CliProject) -> None:
    (project.root / "topologies/broken.py").write_text("1 / 0")
    shown = project.heddle("status")
    assert shown.returncode == 1
    assert "topologies/broken.py cannot be imported: ZeroDivisionError" in shown.stdout


def test_without_a_cluster_the_servers_alone_are_told(project: CliProject) -> None:
    project.env["HEDDLE_BOOTSTRAP_SERVERS"] = ""
    shown = project.heddle("status")
    assert shown.returncode == 1
    assert "kafka     stopped" in shown.stdout
    assert "`heddle up` starts what does not run." in shown.stdout


def test_lag_shows_the_others_when_one_marker_cannot_be_read(project: CliProject, broker: Broker) -> None:
    first, second = project.flow("first"), project.flow("second")
    with closing(broker.admin()) as admin:
        admin.create_topics([TopicSpec(project.topic, 2)])
    with closing(broker.consumer(first, project.topic)) as consumer, closing(broker.producer(first)) as producer:
        while len(consumer.assignment()) < 2:
            consumer.consume(1, 0)
        producer.init(30)
        producer.begin()
        producer.send_offsets(project.topic, {0: Position(0, "9:{}")}, consumer.group_metadata())
        producer.commit(30)
    shown = project.heddle("lag")
    assert shown.returncode == 1
    rows = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines() if line}
    assert (rows[first], rows[second]) == ("unreadable", "0")
    assert f"{first}: partition 0: offset metadata has format version '9'" in shown.stdout
    by_name = {row["subscription"]: row for row in json.loads(project.heddle("lag", "--json").stdout)}
    assert by_name[first]["settled"] is None
    assert by_name[second]["settled"] == 0
