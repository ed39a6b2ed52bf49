"""The three servers together: started in the right order, found again, stopped, repaired."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from heddle.local import ports
from heddle.local.artifacts import Programs
from heddle.local.jvm import Jvm
from heddle.local.kafka import Kafka
from heddle.local.ports import Ports
from heddle.local.postgres import Postgres
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
            with ThreadPoolExecutor(2) as pool:
                chains = [pool.submit(_start, chain, progress) for chain in ((self.kafka,), (self.postgres, self.registry))]
            for chain in chains:
                chain.result()
        except BaseException:
            for server in self.servers:
                if server not in running:
                    server.stop()
            raise

    def stop(self) -> None:
        """Stop all of them cleanly. The registry goes before its database."""
        with ThreadPoolExecutor(2) as pool:
            chains = [pool.submit(_stop, chain) for chain in ((self.kafka,), (self.registry, self.postgres))]
        for chain in chains:
            chain.result()

    def remove(self) -> None:
        """Delete the data folder. Only for a stack that is stopped."""
        self.postgres.remove()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def open_stack(
    data_dir: Path,
    programs: Programs,
    jvm: Jvm,
    *,
    wanted: Ports = Ports(),
    throwaway: bool = False,
) -> Stack:
    """The stack of a data folder, which is made when missing; nothing is started.

    Ports are those of the last time where they are still free. `throwaway` trades the database's durability for speed."""
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    # As root, PostgreSQL's own user must be able to walk through, and may not look around.
    data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    (data_dir / "tmp").mkdir(mode=0o700, exist_ok=True)
    remembered = ports.load(data_dir / _PORTS_FILE)
    before = _stack(data_dir, remembered, programs, jvm, throwaway)
    running = {server.name for server in before.servers if server.process() is not None}
    in_use = running | ({"controller"} if "kafka" in running else set()) | ({"management"} if "registry" in running else set())
    chosen = ports.choose(wanted, remembered, frozenset(in_use))
    ports.save(data_dir / _PORTS_FILE, chosen)
    return _stack(data_dir, chosen, programs, jvm, throwaway)


def _stack(data_dir: Path, chosen: Ports, programs: Programs, jvm: Jvm, throwaway: bool) -> Stack:
    postgres = Postgres(data_dir, chosen.postgres, throwaway=throwaway)
    kafka = Kafka(data_dir, chosen.kafka, chosen.controller, programs, jvm)
    registry = Registry(data_dir, chosen.registry, chosen.management, postgres, programs, jvm)
    return Stack(data_dir, kafka, registry, postgres)


def _start(chain: tuple[Server, ...], progress: Callable[[Server], None]) -> None:
    for server in chain:
        server.start()
        progress(server)


def _stop(chain: tuple[Server, ...]) -> None:
    for server in chain:
        server.stop()
