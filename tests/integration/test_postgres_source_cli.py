"""A captured database as a person meets it: check, apply, run, park and go on, snapshot, restart."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
import pytest
from cli_project import CliProject
from postgres_source_harness import eventually

from heddle.audit import heads
from heddle.broker.kafka import KafkaBroker
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

PRODUCER = """
from heddle import PostgresSource, Table, secret
from schemas.{prefix} import Other, Thing

erp = PostgresSource(
    "{prefix}-erp", dsn=secret("erp/dsn"), publication="heddle", slot="{prefix}", owner="testers",
    tables=[
        Table("public.thing", emits=Thing, deletes="tombstone"),
        Table("public.other", emits=Other, columns={{"id": lambda row: row["id"] or str(1 // 0)}}, deletes=None),
    ],
)
"""


class Scene:
    def __init__(self, project: CliProject, stack: Stack) -> None:
        self.project = project
        self.stack = stack
        self.source = f"{project.prefix}-erp"
        stack.postgres.create_database(project.prefix)
        self.dsn = stack.dsn.rpartition("/")[0] + f"/{project.prefix}"
        project.env["HEDDLE_SECRET_ERP_DSN"] = self.dsn
        (project.root / "producers").mkdir()
        (project.root / "producers" / "erp.py").write_text(PRODUCER.format(prefix=project.prefix))
        self.run("create table thing (id varchar(40) primary key, at bigint not null)")
        self.run("create table other (number int primary key, id varchar(40))")
        settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        self.broker = KafkaBroker(settings)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def drop_slot(self) -> None:
        mine = "from pg_replication_slots where database = current_database()"
        eventually(lambda: not self.run(f"select 1 {mine} and active"), "the slot is free")
        self.run(f"select pg_drop_replication_slot(slot_name) {mine}")

    def keys(self, topic: str) -> list[tuple[str, bool]]:
        """(key, whether it has a value) of each record, partition by partition."""
        with closing(self.broker.reader()) as reader, closing(self.broker.admin()) as admin:
            return [
                ((record.key or b"").decode(errors="replace"), record.value is not None)
                for partition in range(admin.topics([topic])[topic].partitions)
                for record in reader.scan(topic, partition, 30, 0, settled=True)
            ]

    def things(self) -> list[tuple[str, bool]]:
        return self.keys(f"{self.project.prefix}.thing.v1")

    def audited(self) -> str:
        """What the process that pulls has told last."""
        with closing(self.broker.reader()) as reader:
            tail = heads(reader, f"{self.source}.pull.audit", [0], 30)[0]
        return tail.kind if tail else ""

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        worker = self.project.start("run", self.source)
        try:
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0


@pytest.fixture
def scene(tmp_path: Path, stack: Stack) -> Iterator[Scene]:
    made = Scene(CliProject(tmp_path, stack), stack)
    yield made
    made.drop_slot()


def test_a_database_from_the_first_check_to_a_restart(scene: Scene) -> None:
    heddle, source = scene.project.heddle, scene.source
    checked = heddle("check", "--sources", "--json")
    problems = orjson.loads(checked.stdout)["problems"]
    assert (checked.returncode, len(problems)) == (1, 1), checked.stdout + checked.stderr
    assert problems[0]["file"] == "producers/erp.py"
    scene.run(problems[0]["hint"])
    assert heddle("apply").returncode == 0

    scene.run("insert into thing values ('a', 1), ('b', 2)")
    with scene.running():
        eventually(lambda: sorted(scene.things()) == [("default/a", True), ("default/b", True)], "the snapshot")

        scene.stack.postgres.kill()
        eventually(lambda: scene.audited() == "paused", "it is told")
        assert f"{source}.pull reads nothing new, and nothing is parked" in heddle("status").stdout
        scene.stack.postgres.start()
        eventually(lambda: scene.audited() == "resumed", "the pause is over")

        scene.run("delete from thing where id = 'a'")
        scene.run("insert into other values (1, 'x'), (2, null), (3, 'z')")
        eventually(lambda: len(scene.keys(f"{scene.project.prefix}.other.v1")) == 2, "what converts flows")
        assert [value for _, value in scene.keys(f"{source}.raw")] == [True]
        assert ("default/a", False) in scene.things()

        refused = heddle("snapshot", source, "--restart")
        assert (refused.returncode, "runs" in refused.stderr) == (3, True), refused.stderr
        assert heddle("snapshot", source).returncode == 2
        asked = heddle("snapshot", source, "--table", "public.thing")
        assert asked.returncode == 0, asked.stderr
        eventually(lambda: scene.things().count(("default/b", True)) == 2, "the table is read again")

    scene.drop_slot()
    stopped = heddle("worker", f"{source}.pull")  # as `heddle run` starts it
    assert stopped.returncode == 6, stopped.stderr[-2000:]
    assert f"heddle snapshot {source} --restart" in stopped.stderr
    restarted = heddle("snapshot", source, "--restart")
    assert restarted.returncode == 0, restarted.stderr
    with scene.running():
        eventually(lambda: scene.things().count(("default/b", True)) == 3, "all is read from a new slot")
