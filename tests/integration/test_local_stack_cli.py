"""`heddle up`, `status`, `logs`, `down` as a person meets them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from heddle.cli.main import main
from heddle.cli.stack import app
from heddle.local import process, warden
from heddle.operators import OperatorKey, Operators

pytestmark = pytest.mark.stack

HEDDLE = Path(sys.executable).with_name("heddle")

PYPROJECT = """
[tool.heddle]
project = "p"
[tool.heddle.local.secrets]
"ledger/dsn" = "postgres"
"crm/hook" = "random"
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Project:
    """A fresh project folder; commands run in a folder below its root."""

    def __init__(self, root: Path, run: Callable[..., Result]) -> None:
        self.root = root
        self.heddle = run

    @property
    def state_file(self) -> Path:
        return self.root / ".heddle" / "stack.json"

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.state_file.read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    root = tmp_path / "project"
    (root / "producers").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    monkeypatch.chdir(root / "producers")

    def run(*arguments: str) -> Result:
        """The command's own entry point, in this process: its imports cost more than most of its work."""
        monkeypatch.setattr(sys, "argv", ["heddle", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(int(ended.value.code or 0), *capsys.readouterr())

    guard = warden.watch(root / ".heddle" / "data", remove=True)
    yield Project(root, run)
    warden.release(guard)


def test_a_day_with_the_local_stack(project: Project) -> None:
    # As its own process: servers outlive the command that started them.
    first = subprocess.run([HEDDLE, "up"], capture_output=True, text=True, timeout=120)
    up = Result(first.returncode, first.stdout, first.stderr)
    assert up.code == 0, up.err
    for name in ("kafka", "registry", "postgres"):
        assert f"{name:<9} ready" in up.err
    state = project.state
    assert state["bootstrap_servers"] in up.out
    assert state["registry_url"] in up.out
    password = state["dsn"].split(":")[2].split("@")[0]
    assert password not in up.out + up.err
    assert (project.root / ".heddle" / "secrets" / "ledger" / "dsn").read_text().strip() == state["dsn"]
    assert (project.root / ".heddle" / "secrets" / "crm" / "hook").read_text().startswith("whsec_")
    assert "secrets   made   audit/key, crm/hook" in up.err
    operator = OperatorKey.load().name
    assert f"operator  made   {operator}" in up.err
    assert Operators.load(project.root, local=True).names == [operator]
    with psycopg.connect(state["dsn"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")

    servers = [psutil.Process(pid) for pid in state["pids"].values()]
    for server in servers:
        server.kill()
    assert process.wait_gone(servers, 5) == []
    status = project.heddle("status", "--json")
    assert status.code == 1
    assert {server["health"] for server in json.loads(status.out)["servers"]} == {"stopped"}
    repaired = project.heddle("up")
    assert repaired.code == 0, repaired.err
    assert project.state["ports"] == state["ports"]
    with psycopg.connect(project.state["dsn"]) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)

    pids = project.state["pids"]
    report = json.loads(project.heddle("up", "--json").out)
    assert project.state["pids"] == pids == {server["name"]: server["pid"] for server in report["servers"]}
    assert {server["health"] for server in report["servers"]} == {"ready"}
    assert report["data_bytes"] > 10 * 2**20
    assert report["cache_bytes"] > 100 * 2**20
    logs = project.heddle("logs", "-n", "3")
    assert {line.split()[0] for line in logs.out.splitlines()} == {"kafka", "registry", "postgres"}

    data = project.root / ".heddle" / "data"
    stranger = subprocess.Popen([sys.executable, "-c", "input()", str(data / "kafka")], stdin=subprocess.PIPE)
    servers = [psutil.Process(pid) for pid in pids.values()]
    down = project.heddle("down", "--purge")
    assert down.code == 0, down.err
    assert "stopped kafka, registry, postgres" in down.out
    assert not any(process.is_alive(server) for server in servers)
    assert stranger.poll() is None
    stranger.communicate(b"\n")
    assert not project.state_file.exists()
    assert not data.exists()
    assert "nothing was running" in project.heddle("down").out


def test_a_fixed_port_that_is_taken_is_named(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = project.heddle("up", "--kafka-port", str(port))
    assert up.code == 1
    assert f"port {port}" in up.err
    assert "--kafka-port" in up.err
    assert not project.state_file.exists()


def test_an_unknown_server_is_a_usage_error(project: Project) -> None:
    unknown = project.heddle("logs", "redis")
    assert unknown.code == 2
    assert "kafka, registry, postgres" in unknown.err


@pytest.mark.parametrize("command", ["up", "down", "status", "logs"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: heddle {command}" in shown.output
