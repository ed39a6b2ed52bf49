"""Child processes that outlive the command that started them, and how to know them again.

Every server carries `heddle.server=<its folder>` in its command line. That argument, not a pid file, proves that a
process is ours: pids are reused and files go stale, while the argument goes with the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

NOBODY_UID = 65534
_POLL_S = 0.02


def token(folder: Path) -> str:
    """The command-line argument that marks a server's process."""
    return f"heddle.server={folder}"


def spawn(
    command: Sequence[str | Path],
    *,
    output: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    as_nobody: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, its output in a file. Raises `OSError` as `Popen` does."""
    identity: dict[str, Any] = {"user": NOBODY_UID, "group": NOBODY_UID, "extra_groups": []} if as_nobody else {}
    with output.open("wb") as file:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            **identity,
        )


def find(mark: str) -> psutil.Process | None:
    """The live process that carries the mark, or None. A zombie has no command line and is not found."""
    for process in psutil.process_iter():
        if carries(process, mark):
            return process
    return None


def carries(process: psutil.Process, mark: str) -> bool:
    try:
        return any(argument.removeprefix("-D") == mark for argument in process.cmdline())
    except psutil.Error:
        return False


def end(process: psutil.Process, sign: signal.Signals, timeout_s: float) -> bool:
    """Send a signal and return when the process and its children are gone: killed, if `timeout_s` was not enough.
    True when the signal did it."""
    family = [process, *_children(process)]
    _signal(process, sign)
    left = wait_gone(family, timeout_s)
    for straggler in left:
        _signal(straggler, signal.SIGKILL)
    wait_gone(left, timeout_s)
    return not left


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until they have ended; returns those that have not. A zombie counts as ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [process for process in processes if is_alive(process)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie, unless it still has threads: those hold its files and ports until they have ended too."""
    try:
        if not process.is_running():
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


def working_in(folder: Path) -> list[psutil.Process]:
    """The live processes whose current folder is this one."""
    found = []
    for candidate in psutil.process_iter():
        try:
            if candidate.cwd() == str(folder):
                found.append(candidate)
        except psutil.Error:
            continue
    return found
