"""`heddle rewind` as a person meets it: a real sink, its workers as processes, and its inbox's bound."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cli_project import CliProject

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from delivery_harness import eventually

from heddle.audit import read as read_audit
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Outgoing
from heddle.contracts import AvroCodec, ConfluentRegistry, load_contracts
from heddle.delivery.subscription import Subscription
from heddle.integration import Outcome
from heddle.operations.lag import SubscriptionLag, subscription_lag
from heddle.operations.rewind_apply import statement_bytes
from heddle.operators import Operators
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack


class Scene:
    """One sink with three events, all in partition 0."""

    def __init__(self, project: CliProject, stack: Stack) -> None:
        self.project = project
        self.settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        self.broker = KafkaBroker(self.settings)
        self.sink = project.sink("store")
        self.dsn = stack.dsn

    def feed(self, *ids: str) -> None:
        (contract,) = [c for c in load_contracts(self.project.root) if c.topic == self.project.topic]
        with (
            closing(ConfluentRegistry(self.settings)) as registry,
            closing(self.broker.producer(self.sink)) as producer,
        ):
            codec: AvroCodec[Any] = AvroCodec(contract, registry)
            producer.init(30)
            producer.begin()
            producer.produce(
                Outgoing(self.project.topic, f"default/{id}".encode(), codec.encode_dict({"id": id, "at": 1}), (), 0)
                for id in ids
            )
            producer.commit(30)

    def lag(self) -> SubscriptionLag:
        (row,) = subscription_lag(self.broker, [Subscription(self.sink, self.project.topic)])
        return row

    @contextmanager
    def running(self) -> Iterator[None]:
        worker = self.project.start("run", self.sink)
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)

    def settle(self, count: int) -> None:
        with self.running():
            eventually(lambda: self.lag().counts.total == count, f"{count} settled")
        eventually(lambda: self.lag().members == 0, "the group is empty")

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.replace("SCHEMA", self.project.prefix), values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def scene(tmp_path: Path, stack: Stack) -> Iterator[Scene]:
    made = Scene(CliProject(tmp_path, stack), stack)
    assert made.project.heddle("apply").returncode == 0
    made.feed("a", "b", "c")
    yield made
    made.execute("drop schema if exists SCHEMA cascade")


def test_a_sink_reads_again_and_nothing_has_effect_twice(scene: Scene) -> None:
    heddle, name = scene.project.heddle, scene.sink
    scene.settle(3)
    rows = scene.execute("select id, xmin::text from SCHEMA.store order by id")
    assert [row[0] for row in rows] == ["a", "b", "c"]
    planned = heddle("rewind", name, "--to", "1h")
    assert planned.returncode == 0, planned.stderr
    assert f"{name} knows everything that it has applied ever" in planned.stdout
    (command,) = re.findall(r"To do it: heddle (.*) --reason TEXT", planned.stdout)
    assert "--to 0=0" in command
    unreasoned = heddle(*command.split())
    assert (unreasoned.returncode, "reason" in unreasoned.stderr) == (2, True)
    changed = heddle("rewind", name, "--to", "1h", "--apply", "0" * 32, "--reason", "why")
    assert (changed.returncode, "look at it again" in changed.stderr) == (1, True)
    with scene.running():
        eventually(lambda: scene.lag().members == 1, "it runs")
        refused = heddle(*command.split(), "--reason", "the table was restored")
        assert refused.returncode == 3
        assert "nothing was changed" in refused.stderr
        assert "1 worker runs: stop every `heddle run`" in heddle("rewind", name, "--to", "1h").stdout
    eventually(lambda: scene.lag().members == 0, "the group is empty")
    applied = heddle(*command.split(), "--reason", "the table was restored", "--json")
    assert applied.returncode == 0, applied.stderr
    assert json.loads(applied.stdout)["applied"] is True
    assert scene.lag().lag == 3
    scene.settle(6)
    counts = scene.lag().counts  # the same record of the log: to the inbox, as after a crash
    assert (counts.by_outcome[Outcome.APPLIED], counts.recovered) == (6, 3)
    assert scene.execute("select id, xmin::text from SCHEMA.store order by id") == rows
    _check_told(scene)
    assert "stands there already" in heddle("rewind", name, "--to", "1=0").stdout


def _check_told(scene: Scene) -> None:
    with closing(scene.broker.reader()) as reader:
        (told,) = [r for r in read_audit(reader, f"{scene.sink}.audit", 0, 30) if r.kind == "rewind"]
    assert (told.actor, told.body["reason"], told.body["after"]) == ("ada", "the table was restored", 0)
    operators = Operators.load(scene.project.root, local=True)
    assert operators.verify("ada", told.body["signature"], statement_bytes(told.body["statement"]))


def test_going_back_further_than_the_inbox_knows_is_refused(scene: Scene) -> None:
    scene.settle(3)
    scene.execute("insert into SCHEMA.heddle_inbox_bounds values (%s, now())", scene.sink)
    refused = scene.project.heddle("rewind", scene.sink, "--to", "earliest")
    assert refused.returncode == 1
    assert f"{scene.sink} has forgotten what it applied before" in refused.stderr
    assert "go back no further: --to" in refused.stderr
    ahead = scene.project.heddle("rewind", scene.sink, "--to", "0=99")
    assert (ahead.returncode, "lies ahead of" in ahead.stderr) == (1, True)
    unreadable = scene.project.heddle("rewind", scene.sink, "--to", "last week")
    assert (unreadable.returncode, "write 2h (ago)" in unreadable.stderr) == (2, True)
