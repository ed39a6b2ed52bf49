"""A secret is rotated while `heddle run` works: nothing is restarted, nothing is lost, nothing shows a value."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_project import RUN, CliProject
from psycopg.conninfo import conninfo_to_dict

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from delivery_harness import eventually

from heddle.audit import AuditRecord
from heddle.audit import read as read_audit
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Outgoing
from heddle.contracts import AvroCodec, ConfluentRegistry, load_contracts
from heddle.delivery.subscription import Subscription
from heddle.local import Stack
from heddle.settings import Settings

pytestmark = pytest.mark.stack


class Scene:
    """One sink, whose secret is a file. Each role is a login of its own, with a password that nobody else has."""

    def __init__(self, root: Path, stack: Stack) -> None:
        self.project = CliProject(root, stack)
        self.settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        self.broker = KafkaBroker(self.settings)
        self.name = self.project.sink("store")
        self.subscription = Subscription(self.name, self.project.topic)
        self.stack = stack
        self.passwords = [f"pw{uuid.uuid4().hex}" for _ in range(2)]
        self.roles = [f"{self.project.prefix}_{number}" for number in range(2)]
        self.project.env["HEDDLE_SECRET_STORE_DSN"] = ""
        for role, password in zip(self.roles, self.passwords, strict=True):
            self.execute(f"create role {role} login superuser password '{password}'")
        self.put(0)

    def put(self, number: int) -> None:
        """The secret's value is that role's from now on."""
        parts = conninfo_to_dict(self.stack.dsn)
        place = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
        file = self.project.root / ".heddle" / "secrets" / "store" / "dsn"
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name("new")
        scratch.write_text(f"postgresql://{self.roles[number]}:{self.passwords[number]}@{place}\n")
        scratch.replace(file)

    def feed(self, *ids: str) -> None:
        (contract,) = [c for c in load_contracts(self.project.root) if c.topic == self.project.topic]
        with (
            closing(ConfluentRegistry(self.settings)) as registry,
            closing(self.broker.producer(self.name)) as producer,
        ):
            codec: AvroCodec[Any] = AvroCodec(contract, registry)
            producer.init(30)
            producer.begin()
            producer.produce(
                Outgoing(self.project.topic, f"default/{id}".encode(), codec.encode_dict({"id": id, "at": 1}), (), 0)
                for id in ids
            )
            producer.commit(30)

    def rows(self) -> list[str]:
        return [row[0] for row in self.execute(f"select id from {self.project.prefix}.store order by id")]

    def logged_in(self) -> list[str]:
        """Roles that have a session."""
        names = "', '".join(self.roles)
        return [row[0] for row in self.execute(f"select usename from pg_stat_activity where usename in ('{names}')")]

    def audit(self) -> list[AuditRecord]:
        with closing(self.broker.reader()) as reader:
            return list(read_audit(reader, self.subscription.audit_topic, 0, 30))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stack.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.execute(f"drop schema if exists {self.project.prefix} cascade")
        for role in self.roles:
            self.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")
            self.execute(f"drop owned by {role} cascade; drop role {role}")


@pytest.fixture
def scene(tmp_path: Path, stack: Stack) -> Iterator[Scene]:
    made = Scene(tmp_path, stack)
    assert made.project.heddle("apply").returncode == 0
    yield made
    made.close()


def test_a_running_sink_takes_a_rotated_secret_and_tells_its_version(scene: Scene, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*RUN, "run", scene.name], cwd=scene.project.root, env=scene.project._env(), stdout=output, stderr=output
        )
    try:
        scene.feed("a", "b")
        eventually(lambda: scene.rows() == ["a", "b"], "the first events are there")
        assert scene.logged_in() == [scene.roles[0]]
        scene.put(1)
        scene.execute(f"alter role {scene.roles[0]} password 'revoked'")
        scene.feed("c")
        eventually(lambda: scene.rows() == ["a", "b", "c"], "the next one too")
        assert scene.logged_in() == [scene.roles[1]]
        eventually(lambda: len([r for r in scene.audit() if r.kind == "secrets"]) == 2, "both versions are told")
    finally:
        worker.terminate()
        worker.wait(60)
    told = [record.body["in_use"] for record in scene.audit() if record.kind == "secrets"]
    versions = [{use["name"]: use["version"] for use in uses} for uses in told]
    assert [set(each) for each in versions] == [{"audit/key", "store/dsn"}] * 2
    assert versions[0]["audit/key"] == versions[1]["audit/key"]
    assert versions[0]["store/dsn"] != versions[1]["store/dsn"]
    kinds = [record.kind for record in scene.audit()]
    assert kinds[0] == "secrets", "before the batch that used them"
    text = log.read_text(encoding="utf-8")
    assert "secret.changed" in text
    assert "restarting" not in text
    for password in scene.passwords:
        assert password not in text
        assert password not in repr(scene.audit())
