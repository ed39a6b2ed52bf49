"""Ends a test stack whose owner has died: `python -m heddle.local.warden OWNER_PID DATA_DIR [--remove]`.

The owner holds the other end of standard input. When that closes, by a clean end or by kill -9, the servers of the
data folder are killed. A parent-death signal would be simpler, but exists on Linux only, fires when the *thread* that
started a server ends, and is lost when a server changes its user.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

from heddle.local import process

_SERVERS = ("kafka", "registry", "postgres")
_CHECK_OWNER_S = 1.0


def watch(data_dir: Path, *, remove: bool) -> subprocess.Popen[bytes]:
    """Start a warden for this process. Close its standard input to release it once the stack is stopped."""
    command = [sys.executable, "-m", "heddle.local.warden", str(os.getpid()), str(data_dir)]
    return subprocess.Popen(
        command + (["--remove"] if remove else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def release(warden: subprocess.Popen[bytes]) -> None:
    if warden.stdin is not None:
        warden.stdin.close()
    warden.wait()


def main(owner_pid: int, data_dir: Path, *, remove: bool) -> None:
    # A forked child of the owner may hold the pipe open after the owner's death: so its pid is watched too.
    while os.getppid() == owner_pid:
        readable, _, _ = select.select([sys.stdin], [], [], _CHECK_OWNER_S)
        if readable:
            break
    home = data_dir / "postgres"
    target = home.resolve()
    for name in _SERVERS:
        found = process.find(process.token(data_dir / name))
        if found is not None:
            process.end(found, process.KILL, 10.0)
    if remove:
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(data_dir, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), remove="--remove" in sys.argv)
