"""`heddle up`, `status`, `logs`, `down` as a person meets them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from heddle.local import warden

pytestmark = pytest.mark.stack

HEDDLE = Path(sys.executable).with_name("heddle")


class Project:
    """A fresh project folder, and the command run in a folder below its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "producers").mkdir(parents=True)
        table = '[tool.heddle]\nproject = "p"\n[tool.heddle.local.secrets]\n"ledger/dsn" = "postgres"\n"crm/hook" = "random"\n'
        (root / "pyproject.toml").write_text(table, encoding="utf-8")

    def heddle(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEDDLE_")}
        if "HEDDLE_CACHE_DIR" in os.environ:
            environment["HEDDLE_CACHE_DIR"] = os.environ["HEDDLE_CACHE_DIR"]
        return subprocess.run(
            [HEDDLE, *arguments],
            cwd=self.root / "producers",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def report(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self.heddle(*arguments, "--json").stdout))

    def health(self) -> dict[str, str]:
        return {server["name"]: server["health"] for server in self.report("status")["servers"]}

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
    for server in ("kafka", "registry", "postgres"):
        assert f"{server:<9} ready" in up.stderr
    state = project.state
    assert state["bootstrap_servers"] in up.stdout
    assert state["registry_url"] in up.stdout
    password = state["dsn"].split(":")[2].split("@")[0]
    assert password not in up.stdout + up.stderr
    assert (project.root / ".heddle" / "secrets" / "ledger" / "dsn").read_text().strip() == state["dsn"]
    assert (project.root / ".heddle" / "secrets" / "crm" / "hook").read_text().startswith("whsec_")
    with psycopg.connect(state["dsn"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")

    again = project.heddle("up")
    assert again.returncode == 0, again.stderr
    assert project.state["pids"] == state["pids"]
    assert project.heddle("status").returncode == 0

    for pid in state["pids"].values():
        os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in state["pids"].values() if psutil.pid_exists(pid)], timeout=5)
    assert set(project.health().values()) == {"stopped"}
    assert project.heddle("status").returncode == 1
    repaired = project.heddle("up")
    assert repaired.returncode == 0, repaired.stderr
    assert project.state["ports"] == state["ports"]
    with psycopg.connect(project.state["dsn"]) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)

    logs = project.heddle("logs", "-n", "3")
    assert {line.split()[0] for line in logs.stdout.splitlines()} == {"kafka", "registry", "postgres"}

    report = project.report("status")
    assert report["data_bytes"] > 10 * 2**20
    assert report["cache_bytes"] > 100 * 2**20

    stranger = subprocess.Popen(
        [sys.executable, "-c", "input()", str(project.root / ".heddle" / "data" / "kafka")], stdin=-1
    )
    down = project.heddle("down", "--purge")
    assert down.returncode == 0, down.stderr
    assert "stopped kafka, registry, postgres" in down.stdout
    assert not any(psutil.pid_exists(server["pid"]) for server in report["servers"])
    assert stranger.poll() is None
    stranger.communicate(b"\n")
    assert not project.state_file.exists()
    assert not (project.root / ".heddle" / "data").exists()
    assert "nothing was running" in project.heddle("down").stdout


def test_a_fixed_port_that_is_taken_is_named(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = project.heddle("up", "--kafka-port", str(port))
    assert up.returncode == 1
    assert f"port {port}" in up.stderr
    assert "--kafka-port" in up.stderr
    assert not project.state_file.exists()


def test_an_unknown_server_and_a_folder_outside_any_project_are_usage_errors(project: Project) -> None:
    unknown = project.heddle("logs", "redis")
    assert unknown.returncode == 2
    assert "kafka, registry, postgres" in unknown.stderr
    (project.root / "pyproject.toml").unlink()
    outside = project.heddle("status")
    assert outside.returncode == 2
    assert "not inside a Heddle project" in outside.stderr


@pytest.mark.parametrize("command", ["up", "down", "status", "logs"])
def test_every_command_has_help_with_an_example(command: str, project: Project) -> None:
    shown = project.heddle(command, "--help")
    assert shown.returncode == 0
    assert f"Example: heddle {command}" in shown.stdout
