"""`heddle up`, `down`, `status` and `logs`: the local stack of a project."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from heddle.cli.main import app, errors, out
from heddle.cli.state import Observed, observe, print_observed
from heddle.errors import UsageError
from heddle.local import LocalStackError, Ports, Runtime, Server, Stack, cache_dir, find_stack, open_stack
from heddle.local.artifacts import missing
from heddle.local.cache import locked, size_bytes
from heddle.local.logs import Line, follow, last_lines
from heddle.local.state import clear_state, data_dir, write_secrets, write_state
from heddle.operations.dead_letters.jobs import os_user
from heddle.operators import prepare_local
from heddle.root import find_root, read_config
from heddle.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="A fixed loopback port; 0 = the last one, or a free one.")]

_NEEDED_BYTES = 300 * 2**20


@app.command()
def up(kafka_port: Port = 0, registry_port: Port = 0, postgres_port: Port = 0, json: AsJson = False) -> None:
    """Start the local Kafka, registry and PostgreSQL.

    What does not run is repaired, or the reason is told.

    The first start downloads them (200 MB, once per user). Data stays in .heddle/data until `down --purge`.

    Example: heddle up --kafka-port 9092"""
    root = find_root()
    state_dir = _state_dir(root)
    started_s = time.monotonic()
    with locked(state_dir, "stack.lock"):
        runtime = _runtime()
        _check_space(state_dir)
        wanted = Ports(kafka=kafka_port, registry=registry_port, postgres=postgres_port)
        stack = open_stack(data_dir(state_dir), runtime, wanted=wanted)
        stack.start(lambda server: _say(f"{server.name:<9} ready  {time.monotonic() - started_s:.1f} s"))
        write_state(state_dir, stack)
        made = write_secrets(state_dir, read_config(root), stack)
        operator = prepare_local(state_dir, os_user())
    if operator is not None:
        _say(f"operator  made   {operator} (signs what you do with dead letters)")
    if made:
        _say(f"secrets   made   {', '.join(made)} (in .heddle/secrets)")
    if json:
        _print_json(_report(stack))
        return
    typer.echo(f"kafka     {stack.bootstrap_servers}\nregistry  {stack.registry_url}")
    typer.echo(f"postgres  {stack.postgres.address}  (with its password: .heddle/stack.json)")
    _warn_of_environment()
    typer.echo("Next: `heddle plan` shows what to create, `heddle status` how it is, `heddle down` stops it.")


@app.command()
def down(
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the stack's data too: topics, schemas, tables.")
    ] = False,
) -> None:
    """Stop the local stack; its data stays.

    Nothing but the servers of this project is stopped.

    Example: heddle down --purge"""
    state_dir = _state_dir(find_root())
    with locked(state_dir, "stack.lock"):
        stack = _find(state_dir)
        running = [server for server in stack.servers if server.process() is not None]
        if any(_will_record(server) for server in running):
            _say("stopping; this first time the servers also note how to start faster, which takes some seconds")
        stack.stop()
        clear_state(state_dir)
        if purge:
            stack.remove()
    typer.echo(f"stopped {', '.join(server.name for server in running)}" if running else "nothing was running")
    if purge:
        typer.echo("its data is deleted")


@app.command()
def status(json: AsJson = False) -> None:
    """Show how the local servers and the subscriptions are.

    Of each subscription: its lag in records, its workers, its unresolved dead letters, and what is paused and why. Also
    dead letters whose subscription is not declared any more. With HEDDLE_BOOTSTRAP_SERVERS set, of that cluster.

    Example: heddle status --json

    Exit codes: 0 all is well, 1 a server does not answer, or a subscription is paused or needs a person."""
    root = find_root()
    report = _report(_find(_state_dir(root)))
    settings = load_settings()
    is_remote = settings.bootstrap_servers not in ("", report["bootstrap_servers"])
    ready = [server["name"] for server in report["servers"] if server["health"] == "ready"]
    observed = observe(root, settings) if is_remote or (settings.bootstrap_servers and "kafka" in ready) else Observed()
    if json:
        _print_json(report | observed.document())
    else:
        if not is_remote or any(server["pid"] for server in report["servers"]):
            _print_status(report)
        print_observed(observed)
    is_up = is_remote or len(ready) == len(report["servers"])
    if not is_up and not json:
        typer.echo("`heddle up` starts what does not run.")
    raise typer.Exit(0 if is_up and observed.is_well else 1)


@app.command()
def logs(
    server: Annotated[str | None, typer.Argument(help="kafka, registry or postgres. Default: all of them.")] = None,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the newest lines.")] = 20,
) -> None:
    """Show what the local servers have logged.

    Example: heddle logs kafka -f"""
    stack = _find(_state_dir(find_root()))
    chosen = _chosen(stack, server)
    for one in chosen:
        for line in last_lines(one, lines):
            _print_line(line, named=len(chosen) > 1)
    if follow_:
        for new in follow(chosen):
            if new is not None:
                _print_line(new, named=len(chosen) > 1)


def _state_dir(root: Path) -> Path:
    folder = root / ".heddle"
    # PostgreSQL's own user, when root starts it, must be able to walk through.
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    return folder


def _runtime() -> Runtime:
    """The servers' programs, downloaded with a progress bar when something is missing."""
    cache = cache_dir()
    absent = missing(cache)
    if not absent:
        return Runtime(cache, record=True)
    with _download_bar(sum(artifact.bytes for artifact in absent)) as advance:
        runtime = Runtime(cache, record=True, progress=advance)
        _ = runtime.programs
    return runtime


@contextmanager
def _download_bar(total_bytes: int) -> Iterator[Any]:
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    if not errors.is_terminal:
        _say(f"download  {total_bytes / 2**20:.0f} MB of servers, once")
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=total_bytes)
        yield lambda count: bar.advance(task, count)


def _find(state_dir: Path) -> Stack:
    return find_stack(data_dir(state_dir), Runtime(cache_dir()))


def _will_record(server: Server) -> bool:
    process = server.process()
    return process is not None and any("AOTCacheOutput" in argument for argument in process.cmdline())


def _check_space(state_dir: Path) -> None:
    free = shutil.disk_usage(state_dir).free
    if free < _NEEDED_BYTES:
        raise LocalStackError(
            f"the disk of {state_dir} has {_megabytes(free)} free; the local stack needs {_megabytes(_NEEDED_BYTES)}",
            hint="free some space: Kafka stops for good when its disk is full",
        )


def _report(stack: Stack) -> dict[str, Any]:
    servers = [_server_report(server) for server in stack.servers]
    return {
        "servers": servers,
        "bootstrap_servers": stack.bootstrap_servers,
        "registry_url": stack.registry_url,
        "data_dir": str(stack.data_dir),
        "data_bytes": sum(server["data_bytes"] for server in servers),
        "cache_dir": str(cache_dir()),
        "cache_bytes": size_bytes(cache_dir()),
    }


def _server_report(server: Server) -> dict[str, Any]:
    pid = server.pid
    health = "stopped" if pid is None else "ready" if server.is_ready() else "not answering"
    return {
        "name": server.name,
        "health": health,
        "pid": pid,
        "port": server.port or None,
        "data_bytes": size_bytes(server.folder.resolve()),
        "log": str(server.log_files()[-1]) if server.log_files() else None,
    }


def _print_status(report: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("server", "health", "pid", "port", "data"):
        table.add_column(heading, justify="left" if heading in ("server", "health") else "right")
    for server in report["servers"]:
        numbers = (str(server["pid"] or "-"), str(server["port"] or "-"), _megabytes(server["data_bytes"]))
        table.add_row(server["name"], server["health"], *numbers)
    out.print(table)
    typer.echo(f"data  {_megabytes(report['data_bytes'])}  {report['data_dir']}")
    typer.echo(f"cache {_megabytes(report['cache_bytes'])}  {report['cache_dir']}")


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.0f} MB"


def _warn_of_environment() -> None:
    for name in ("HEDDLE_BOOTSTRAP_SERVERS", "HEDDLE_REGISTRY_URL", "HEDDLE_DSN"):
        if os.environ.get(name):
            typer.echo(f"Note: {name} is set and goes before the local stack.")


def _chosen(stack: Stack, name: str | None) -> list[Server]:
    chosen = [server for server in stack.servers if name in (None, server.name)]
    if not chosen:
        known = ", ".join(server.name for server in stack.servers)
        raise UsageError(f"the local stack has no server {name}", hint=f"it has {known}")
    return chosen


def _print_line(line: Line, *, named: bool) -> None:
    typer.echo(f"{line.server:<9} {line.text}" if named else line.text)


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _say(text: str) -> None:
    typer.echo(text, err=True)
