"""The local stack's own promises, on the real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from heddle.local import LocalStackError, Runtime, Stack, cache_dir, open_stack, running_stack
from heddle.local.artifacts import Artifact, Progress
from heddle.local.kafka_probe import coordinators_are_loaded

pytestmark = pytest.mark.stack

ORDER = {"type": "record", "name": "Order", "fields": [{"name": "a", "type": "string"}]}
OWNER = """
import json, pathlib, sys
from heddle.local import running_stack
with running_stack(pathlib.Path(sys.argv[1])) as stack:
    print(json.dumps(stack.pids), flush=True)
    sys.stdin.read()
"""


def eventually(condition: Callable[[], object], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def register(url: str, subject: str, schema: dict[str, Any]) -> int:
    """The schema id. Raises `HTTPError`."""
    body = json.dumps({"schema": json.dumps(schema)}).encode()
    request = urllib.request.Request(
        f"{url}/subjects/{subject}/versions", body, {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["id"])


def write_everywhere(stack: Stack, name: str) -> int:
    """A record, a schema and a row under one name; returns the schema's id."""
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    producer.produce(name, b"kept")
    assert producer.flush(10) == 0
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} AS SELECT 'kept' AS value")
    return register(stack.registry_url, f"{name}-value", {**ORDER, "name": name})


def assert_kept(stack: Stack, name: str, schema_id: int) -> None:
    settings = {"bootstrap.servers": stack.bootstrap_servers, "group.id": name, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([name])
    record = consumer.poll(20)
    consumer.close()
    assert record is not None
    assert record.value() == b"kept"
    with psycopg.connect(stack.dsn) as connection:
        assert connection.execute(f"SELECT value FROM {name}").fetchall() == [("kept",)]
    assert register(stack.registry_url, f"{name}-value", {**ORDER, "name": name}) == schema_id


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("own") / "data") as started:
        yield started


@pytest.fixture
def own(second: Stack) -> Stack:
    """A second stack beside the shared one, whose servers these tests may kill; here all of them run."""
    second.start()
    return second


def test_every_server_is_of_the_promised_kind(stack: Stack) -> None:
    assert register(stack.registry_url, "kind-value", ORDER) > 0
    breaking = {**ORDER, "fields": [*ORDER["fields"], {"name": "b", "type": "string"}]}
    with pytest.raises(HTTPError) as refused:
        register(stack.registry_url, "kind-value", breaking)
    assert refused.value.code == 409
    with psycopg.connect(stack.dsn) as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in ("server_version", "wal_level")]
    assert shown[0] is not None
    assert shown[0][0].startswith("18.")
    assert shown[1] == ("logical",)


def test_a_fresh_stack_serves_its_first_transaction_and_group_at_once(stack: Stack) -> None:
    assert coordinators_are_loaded(stack.kafka.port)
    started_s = time.monotonic()
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "transactional.id": "local-stack-first"})
    producer.init_transactions(5)
    assert time.monotonic() - started_s < 5


def test_servers_listen_on_loopback_only(stack: Stack) -> None:
    for server in stack.servers:
        process = server.process()
        assert process is not None
        listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening
        assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_the_database_wants_its_password(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.dsn.replace(stack.postgres.password, "guess"))
    for server in stack.servers:
        process = server.process()
        assert process is not None
        assert not any(stack.postgres.password in argument for argument in process.cmdline())


def test_two_stacks_run_side_by_side(stack: Stack, own: Stack) -> None:
    assert not set(stack.ports.values()) & set(own.ports.values())
    assert not set(stack.pids.values()) & set(own.pids.values())
    schema_id = write_everywhere(own, "beside")
    with psycopg.connect(stack.dsn) as connection:
        assert connection.execute("SELECT to_regclass('beside')").fetchone() == (None,)
    assert_kept(own, "beside", schema_id)


def test_a_restart_keeps_data_and_ports(own: Stack) -> None:
    schema_id = write_everywhere(own, "restarted")
    ports = own.ports
    own.stop()
    assert set(own.pids.values()) == {None}
    again = open_stack(own.data_dir, Runtime(cache_dir()), throwaway=True)
    assert again.ports == ports
    again.start()
    assert_kept(again, "restarted", schema_id)


@pytest.mark.parametrize("victims", [("postgres",), ("kafka", "registry", "postgres")])
def test_start_repairs_what_was_killed(victims: tuple[str, ...], own: Stack) -> None:
    name = "killed_" + "_".join(victims)
    schema_id = write_everywhere(own, name)
    before = own.pids
    for server in own.servers:
        if server.name in victims:
            server.kill()
    assert {server for server, pid in own.pids.items() if pid is None} == set(victims)
    own.start()
    assert {server for server, pid in own.pids.items() if pid != before[server]} == set(victims)
    assert_kept(own, name, schema_id)


def test_the_session_of_a_killed_broker_ends_before_it_starts_again(own: Stack) -> None:
    """Else it leads its partitions for a moment, loses them, and may leave a transaction without an end."""
    told = own.kafka.folder / "controller.out"
    own.kafka.stop()
    told.unlink(missing_ok=True)
    own.kafka.start()
    assert not told.exists(), "it had ended cleanly"
    own.kafka.kill()
    own.kafka.start()
    assert "Fencing broker 1 " in told.read_text(encoding="utf-8")


def test_a_server_that_hangs_is_restarted(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(own.registry), "answer_timeout_s", 0.5)
    hung = own.registry.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    own.start()
    assert own.registry.pid not in (None, hung)
    assert own.registry.is_ready()


def test_a_stale_pid_file_that_names_a_living_stranger_is_no_hindrance(own: Stack) -> None:
    own.postgres.stop()
    pid_file = own.postgres.folder.resolve() / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n1\n{own.postgres.port}\n\n127.0.0.1\n", encoding="utf-8")
    own.postgres.start()
    assert own.postgres.is_ready()


def test_a_port_that_was_taken_meanwhile_is_named(own: Stack) -> None:
    own.registry.stop()
    words = f"port {own.registry.port}, which registry wants, is taken"
    with socket.create_server(("127.0.0.1", own.registry.port)), pytest.raises(LocalStackError, match=words):
        own.registry.start()


def test_a_failed_start_leaves_nothing_running(tmp_path: Path) -> None:
    failing = open_stack(tmp_path / "data", Runtime(cache_dir()), throwaway=True)
    (tmp_path / "data" / "postgres").write_text("in the way", encoding="utf-8")
    with pytest.raises(LocalStackError, match="postgres"):
        failing.start()
    assert set(failing.pids.values()) == {None}
    failing.remove()


def test_servers_die_with_a_killed_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    pids = json.loads(owner.stdout.readline()).values()
    assert all(psutil.pid_exists(pid) for pid in pids)
    owner.kill()
    owner.wait()
    assert eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert eventually(lambda: not (tmp_path / "data").exists())
    owner.stdin.close()
    owner.stdout.close()


def test_a_server_whose_program_is_broken_repairs_it(tmp_path: Path) -> None:
    """Damage that a look at size and time does not show; what does show is in the unit tests."""
    cache = tmp_path / "cache"
    shutil.copytree(cache_dir() / "jars", cache / "jars")
    shutil.copytree(cache_dir() / "registry-3.3.3", cache / "registry-3.3.3", copy_function=os.link)
    fetched = []

    def fetch(artifact: Artifact, folder: Path, progress: Progress) -> Path:
        fetched.append(artifact.artifact)
        folder.mkdir(parents=True)
        return Path(shutil.copy(cache_dir() / "jars" / artifact.filename, folder))

    jar = cache / "jars" / "kafka_2.13-4.3.0.jar"
    before = jar.stat()
    jar.unlink()
    jar.write_bytes(b"\0" * before.st_size)
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns))
    stack = open_stack(tmp_path / "data", Runtime(cache, fetch=fetch), throwaway=True)
    try:
        stack.kafka.start()
        assert stack.kafka.is_ready()
    finally:
        stack.kafka.kill()
    assert fetched == ["kafka_2.13"]
