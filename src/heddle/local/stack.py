"""The three servers together: started in the right order, found again, stopped, repaired."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from heddle.local import ports
from heddle.local.jvm import Runtime
from heddle.local.kafka import Kafka
from heddle.local.ports import ANY_PORTS, Ports
from heddle.local.postgres import Postgres
from heddle.local.problems import explain_oserror
from heddle.local.registry import Registry
from heddle.local.server import Server

_PORTS_FILE = "ports.json"


@dataclass(frozen=True, slots=True)
class Stack:
    """A local stack in a data folder, running or not. Its servers can be stopped, killed and started one by one."""

    data_dir: Path
    kafka: Kafka
    registry: Registry
    postgres: Postgres

    @property
    def bootstrap_servers(self) -> str:
        return self.kafka.bootstrap_servers

    @property
    def registry_url(self) -> str:
        """The Confluent API's address, path included."""
        return self.registry.url

    @property
    def dsn(self) -> str:
        """The database `heddle`, for a superuser with replication rights."""
        return self.postgres.dsn

    @property
    def servers(self) -> tuple[Server, ...]:
        return self.kafka, self.registry, self.postgres

    @property
    def ports(self) -> dict[str, int]:
        return {server.name: server.port for server in self.servers}

    @property
    def pids(self) -> dict[str, int | None]:
        return {server.name: server.pid for server in self.servers}

    def start(self, progress: Callable[[Server], None] = lambda _: None) -> None:
        """Start what does not run, restart what does not answer. When one fails, those started here are stopped
        again and its error is raised. `progress` is called, from any thread, for each server that is ready."""
        running = {server for server in self.servers if server.process() is not None}
        try:
            _in_parallel(
                lambda: _start((self.kafka,), progress),
                lambda: _start((self.postgres, self.registry), progress),
            )
        except BaseException:
            for server in self.servers:
                if server not in running:
                    server.stop()
            raise

    def stop(self) -> None:
        """Stop all of them cleanly. The registry goes before its database."""
        _in_parallel(lambda: _stop((self.kafka,)), lambda: _stop((self.registry, self.postgres)))

    def remove(self) -> None:
        """Delete the data folder. Only for a stack that is stopped."""
        self.postgres.remove()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def open_stack(data_dir: Path, runtime: Runtime, *, wanted: Ports = ANY_PORTS, throwaway: bool = False) -> Stack:
    """The stack of a data folder, which is made when missing; nothing is started.

    Ports are those of the last time where they are still free. `throwaway` trades the database's durability for speed.
    Raises `LocalStackError` for a wanted port that is taken, or a folder that may not be written."""
    data_dir = data_dir.absolute()
    try:
        _make(data_dir)
        before = find_stack(data_dir, runtime, throwaway=throwaway)
        chosen = ports.choose(wanted, ports.load(data_dir / _PORTS_FILE), _ports_in_use(before))
        ports.save(data_dir / _PORTS_FILE, chosen)
    except OSError as error:
        raise explain_oserror("the local stack", error) from error
    return _stack(data_dir, chosen, runtime, throwaway)


def find_stack(data_dir: Path, runtime: Runtime, *, throwaway: bool = False) -> Stack:
    """The stack of a data folder as it was last, to look at it or stop it. Changes nothing."""
    data_dir = data_dir.absolute()
    return _stack(data_dir, ports.load(data_dir / _PORTS_FILE), runtime, throwaway)


def _make(data_dir: Path) -> None:
    # As root, PostgreSQL's own user must be able to walk through, and may not look around.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
    data_dir.chmod(mode)
    (data_dir / "tmp").mkdir(mode=0o700, exist_ok=True)
    (data_dir / "logs").mkdir(exist_ok=True)


def _ports_in_use(stack: Stack) -> frozenset[str]:
    names = {"kafka": ("kafka", "controller"), "registry": ("registry", "management"), "postgres": ("postgres",)}
    running = [server.name for server in stack.servers if server.process() is not None]
    return frozenset(port for name in running for port in names[name])


def _stack(data_dir: Path, chosen: Ports, runtime: Runtime, throwaway: bool) -> Stack:
    postgres = Postgres(data_dir, chosen.postgres, throwaway=throwaway)
    kafka = Kafka(data_dir, chosen.kafka, chosen.controller, runtime)
    registry = Registry(data_dir, chosen.registry, chosen.management, runtime, postgres)
    return Stack(data_dir, kafka, registry, postgres)


def _start(chain: tuple[Server, ...], progress: Callable[[Server], None]) -> None:
    for server in chain:
        server.start()
        progress(server)


def _stop(chain: tuple[Server, ...]) -> None:
    for server in chain:
        server.stop()


def _in_parallel(*jobs: Callable[[], None]) -> None:
    """Run them all to their end, then raise the first error, if any."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job) for job in jobs]
    for job in running:
        job.result()
