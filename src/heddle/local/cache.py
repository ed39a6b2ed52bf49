"""The per-user cache: what was downloaded or prepared once and is shared by every project and clone.

<cache>/jars/            Kafka's class path, each file checked against the lock
<cache>/registry-<v>/    the registry, unpacked
<cache>/aot/             start-up caches that the JVMs wrote on their first clean stop
<cache>/postgres-<v>/    copy of PostgreSQL's programs, only where another user must reach them
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from heddle.local.problems import LocalStackError, explain_oserror

_LOCK_TIMEOUT_S = 600.0


def cache_dir() -> Path:
    """HEDDLE_CACHE_DIR, else `heddle` in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    chosen = os.environ.get("HEDDLE_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "heddle"


@contextmanager
def locked(folder: Path, name: str = "lock", timeout_s: float = _LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the folder's file lock, so that two starts do not write the same files. The system frees it on death."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / name, timeout=timeout_s):
            yield
    except Timeout:
        raise LocalStackError(
            f"another start still holds {folder / name} after {timeout_s:.0f} s",
            hint="wait for it, or end that process",
        ) from None
    except PermissionError as error:
        raise explain_oserror("the local stack", error) from error


def size_bytes(folder: Path) -> int:
    """Bytes on disk below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            total += status.st_blocks * 512
    return total
