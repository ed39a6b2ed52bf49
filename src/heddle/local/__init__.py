"""Real Kafka, registry and PostgreSQL from Python packages: no docker, no root, no system Java.

`running_stack()` is for tests, `open_stack()` for what stays up. A `Stack` gives addresses, and its servers
(`stack.kafka`, `stack.registry`, `stack.postgres`) can be stopped, killed and started one by one, on the same ports.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heddle.local import warden
from heddle.local.cache import cache_dir
from heddle.local.jvm import Runtime
from heddle.local.parent import die_with_parent
from heddle.local.ports import Ports
from heddle.local.problems import LocalStackError
from heddle.local.server import Server
from heddle.local.stack import Stack, find_stack, open_stack

__all__ = [
    "LocalStackError",
    "Ports",
    "Runtime",
    "Server",
    "Stack",
    "cache_dir",
    "die_with_parent",
    "find_stack",
    "open_stack",
    "running_stack",
]


@contextmanager
def running_stack(data_dir: Path | None = None, throwaway: bool = True) -> Iterator[Stack]:
    """A started stack that stops with the block, and dies with this process even when that is killed.

    `throwaway`: the data folder is deleted at the end, and PostgreSQL does not wait for the disk."""
    folder = (data_dir or Path(tempfile.mkdtemp(prefix="heddle-"))).absolute()
    stack = open_stack(folder, Runtime(cache_dir()), throwaway=throwaway)
    guard = warden.watch(folder, remove=throwaway)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        if throwaway:
            stack.remove()
        warden.release(guard)
