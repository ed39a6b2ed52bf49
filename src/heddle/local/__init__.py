"""Real Kafka, registry and PostgreSQL from Python packages: no docker, no root, no system Java.

`running_stack()` is for tests, `open_local()` for `heddle up` and its like. A `Stack` gives addresses, and its servers
(`stack.kafka`, `stack.registry`, `stack.postgres`) can be stopped, killed and started one by one, on the same ports.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heddle.local import warden
from heddle.local.artifacts import Progress, install
from heddle.local.cache import cache_dir
from heddle.local.jvm import Jvm, find_java
from heddle.local.parent import die_with_parent
from heddle.local.ports import Ports
from heddle.local.problems import LocalStackError
from heddle.local.server import Server
from heddle.local.stack import Stack, open_stack

__all__ = ["LocalStackError", "Ports", "Server", "Stack", "die_with_parent", "open_local", "running_stack"]


def open_local(
    data_dir: Path,
    *,
    wanted: Ports = Ports(),
    throwaway: bool = False,
    record: bool = False,
    progress: Progress = lambda _: None,
) -> Stack:
    """The stack of a data folder, its programs fetched when missing; `start()` it.

    `record` lets the Java servers write their start-up caches when they are stopped (once, some seconds)."""
    cache = cache_dir()
    programs = install(cache, progress=progress)
    return open_stack(data_dir, programs, Jvm(find_java(), cache, record), wanted=wanted, throwaway=throwaway)


@contextmanager
def running_stack(data_dir: Path | None = None, throwaway: bool = True) -> Iterator[Stack]:
    """A started stack that stops with the block, and dies with this process even when that is killed.

    `throwaway`: the data folder is deleted at the end, and PostgreSQL does not wait for the disk."""
    folder = (data_dir or Path(tempfile.mkdtemp(prefix="heddle-"))).absolute()
    stack = open_local(folder, throwaway=throwaway)
    guard = warden.watch(folder, remove=throwaway)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        if throwaway:
            stack.remove()
        warden.release(guard)
