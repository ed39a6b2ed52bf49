"""`heddle up`, `status`, `logs`, `down` as a person meets them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from heddle.cli.stack import app
from heddle.local import process, warden

pytestmark = pytest.mark.stack

HEDDLE = Path(sys.executable).with_name("heddle")

PYPROJECT = """
[tool.heddle]
project = "p"
[tool.heddle.local.secrets]
"ledger/dsn" = "postgres"
"crm/hook" = "random"
"""


class Project:
    """A fresh project folder, and the command run in a folder below its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "producers").mkdir(parents=True)
        (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")

    def heddle(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEDDLE_")}
        if "HEDDLE_CACHE_DIR" in os.environ:
            environment["HEDDLE_CACHE_DIR"] = os.environ["HEDDLE_CACHE_DIR"]
        command = [HEDDLE, *arguments]
        below = self.root / "producers"
        return subprocess.run(command, cwd=below, env=environment, capture_output=True, text=True, timeout=120)

    @property
    def state_file(self) -> Path:
        return self.root / ".heddle" / "stack.json"

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.state_file.read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    guard = warden.watch(tmp_path / "project" / ".heddle" / "data", remove=True)
    yield made
    warden.release(guard)


def test_a_day_with_the_local_stack(project: Project) -> None:
    up = project.heddle("up")
    assert up.returncode == 0, up.stderr
    for name in ("kafka", "registry", "postgres"):
        assert f"{name:<9} ready" in up.stderr
    state = project.state
    assert state["bootstrap_servers"] in up.stdout
    assert state["registry_url"] in up.stdout
    password = state["dsn"].split(":")[2].split("@")[0]
    assert password not in up.stdout + up.stderr
    assert (project.root / ".heddle" / "secrets" / "ledger" / "dsn").read_text().strip() == state["dsn"]
    assert (project.root / ".heddle" / "secrets" / "crm" / "hook").read_text().startswith("whsec_")
    with psycopg.connect(state["dsn"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")

    servers = [psutil.Process(pid) for pid in state["pids"].values()]
    for server in servers:
        server.kill()
    assert process.wait_gone(servers, 5) == []
    status = project.heddle("status", "--json")
    assert status.returncode == 1
    assert {server["health"] for server in json.loads(status.stdout)["servers"]} == {"stopped"}
    repaired = project.heddle("up")
    assert repaired.returncode == 0, repaired.stderr
    assert project.state["ports"] == state["ports"]
    with psycopg.connect(project.state["dsn"]) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)

    pids = project.state["pids"]
    report = json.loads(project.heddle("up", "--json").stdout)
    assert project.state["pids"] == pids == {server["name"]: server["pid"] for server in report["servers"]}
    assert {server["health"] for server in report["servers"]} == {"ready"}
    assert report["data_bytes"] > 10 * 2**20
    assert report["cache_bytes"] > 100 * 2**20
    logs = project.heddle("logs", "-n", "3")
    assert {line.split()[0] for line in logs.stdout.splitlines()} == {"kafka", "registry", "postgres"}

    data = project.root / ".heddle" / "data"
    stranger = subprocess.Popen([sys.executable, "-c", "input()", str(data / "kafka")], stdin=subprocess.PIPE)
    servers = [psutil.Process(pid) for pid in pids.values()]
    down = project.heddle("down", "--purge")
    assert down.returncode == 0, down.stderr
    assert "stopped kafka, registry, postgres" in down.stdout
    assert not any(process.is_alive(server) for server in servers)
    assert stranger.poll() is None
    stranger.communicate(b"\n")
    assert not project.state_file.exists()
    assert not data.exists()
    assert "nothing was running" in project.heddle("down").stdout


def test_a_fixed_port_that_is_taken_is_named(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = project.heddle("up", "--kafka-port", str(port))
    assert up.returncode == 1
    assert f"port {port}" in up.stderr
    assert "--kafka-port" in up.stderr
    assert not project.state_file.exists()


def test_an_unknown_server_is_a_usage_error(project: Project) -> None:
    unknown = project.heddle("logs", "redis")
    assert unknown.returncode == 2
    assert "kafka, registry, postgres" in unknown.stderr


@pytest.mark.parametrize("command", ["up", "down", "status", "logs"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: heddle {command}" in shown.output
