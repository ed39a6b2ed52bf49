"""Ends a test stack whose owner has died, however that died.

    python warden.py OWNER_PID DATA_DIR [--remove]

The owner holds the other end of standard input. When that closes, the servers of the data folder are killed. A
parent-death signal would be simpler, but it exists on Linux only, fires when the *thread* that started a server ends,
and is lost when a server changes its user. Run as a file, and importing none of the package, this costs little memory.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_CHECK_OWNER_S = 1.0
_END_S = 10.0


def watch(data_dir: Path, *, remove: bool) -> subprocess.Popen[bytes]:
    """Start a warden for this process; `release` it once the stack is stopped."""
    command = [sys.executable, "-P", __file__, str(os.getpid()), str(data_dir)]
    return subprocess.Popen(
        command + (["--remove"] if remove else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def release(warden: subprocess.Popen[bytes]) -> None:
    """End a warden. It finds nothing to do when the stack is stopped already."""
    if warden.stdin is not None:
        warden.stdin.close()
    warden.wait()


def _main(owner_pid: int, data_dir: Path, *, remove: bool) -> None:
    _await_end(owner_pid)
    home = (data_dir / "postgres").resolve()
    servers = dict(_servers(data_dir))
    for server, folder in servers.items():
        # PostgreSQL's immediate shutdown: as quick as a kill, and it gives its shared memory back.
        server.send_signal(signal.SIGQUIT if folder == "postgres" else signal.SIGKILL)
    for straggler in psutil.wait_procs(servers, timeout=_END_S)[1]:
        straggler.kill()
    if remove:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(data_dir, ignore_errors=True)


def _await_end(owner_pid: int) -> None:
    """A forked child of the owner may hold the pipe open after the owner's death: so its pid is watched as well."""
    while os.getppid() == owner_pid:
        readable, _, _ = select.select([sys.stdin], [], [], _CHECK_OWNER_S)
        if readable:
            return


def _servers(data_dir: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Whatever carries the mark of `process.token` for a folder of this stack, with that folder's name."""
    mark = f"heddle.server={data_dir}{os.sep}"
    for candidate in psutil.process_iter():
        try:
            arguments = [argument.removeprefix("-D") for argument in candidate.cmdline()]
        except psutil.Error:
            continue
        for argument in arguments:
            if argument.startswith(mark):
                yield candidate, argument.removeprefix(mark)


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]), remove="--remove" in sys.argv)
