"""The servers' files: what the lock names, fetched once, checked by SHA-256, shared by all projects.

`artifacts.lock.json` lists every file by Maven coordinate, size and hash, and no host: where they come from is
the resolver's business. A file that does not fit its hash is fetched again once, then explained.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from heddle.errors import DependencyDownError
from heddle.local.cache import locked
from heddle.local.problems import LocalStackError, explain_oserror, not_installed

_CONTENTS = "contents.json"
_DOWNLOADS_AT_ONCE = 8

# A checked file gets this modification time: a later start trusts size and time without hashing 200 MB again,
# and the JVM's start-up cache, which compares the times of jars, survives a file that was fetched anew.
_CHECKED_MTIME_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of the lock."""

    group: str
    artifact: str
    version: str
    classifier: str
    type: str
    bytes: int
    sha256: str

    @property
    def filename(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.{self.type}"


Progress = Callable[[int], None]
"""Called from several threads with the number of bytes that just arrived."""

Fetch = Callable[[Artifact, Path, Progress], Path]
"""Bring an artifact into a folder and return its path. Raises `DependencyDownError` when it cannot."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the Java servers are: Kafka's class path in a fixed order, and the unpacked registry."""

    kafka_jars: tuple[Path, ...]
    registry_dir: Path
    digest: str


def read_lock() -> tuple[Artifact, ...]:
    text = (files("heddle.local") / "artifacts.lock.json").read_text(encoding="utf-8")
    return tuple(Artifact(**entry) for entry in json.loads(text))


def missing(cache: Path, lock: Sequence[Artifact] | None = None) -> list[Artifact]:
    """What a start would have to fetch. Cheap: looks at sizes and times only."""
    return [a for a in (lock or read_lock()) if not _is_installed(cache, a)]


def install(
    cache: Path,
    *,
    fetch: Fetch | None = None,
    lock: Sequence[Artifact] | None = None,
    progress: Progress = lambda _: None,
) -> Programs:
    """Make every file of the lock present and right; several processes may call it at once.

    Raises `DependencyDownError` without network, `LocalStackError` for a full disk or a file that stays wrong."""
    lock = lock or read_lock()
    if missing(cache, lock):
        with locked(cache), ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            absent = missing(cache, lock)
            _check_space(cache, absent)
            try:
                list(pool.map(lambda a: _install_one(cache, a, fetch or fetch_with_jgo, progress), absent))
            except OSError as error:
                raise explain_oserror("the cache", error) from error
    return _programs(cache, lock)


def distrust(cache: Path, kind: str, lock: Sequence[Artifact] | None = None) -> None:
    """Forget what was checked of one artifact type, so that the next `install` looks at every byte again."""
    with locked(cache):
        for artifact in (artifact for artifact in lock or read_lock() if artifact.type == kind):
            target = _target(cache, artifact)
            if target.is_dir():
                (target / _CONTENTS).unlink(missing_ok=True)
            elif target.exists():
                os.utime(target)


def fetch_with_jgo(artifact: Artifact, folder: Path, progress: Progress) -> Path:
    """Download by jgo's artifact layer, which walks no dependencies and needs no Java."""
    try:
        from jgo.maven import MavenContext, PythonResolver

    except ImportError:
        raise not_installed() from None

    @contextmanager
    def report(_name: str, _total: int) -> Iterator[Progress]:
        yield progress

    context = MavenContext(repo_cache=folder, resolver=PythonResolver(progress_callback=report), timeout=60)
    component = context.project(artifact.group, artifact.artifact).at_version(artifact.version)
    try:
        return Path(component.artifact(classifier=artifact.classifier, packaging=artifact.type).resolve())
    except Exception as error:
        raise DependencyDownError(
            f"{artifact.filename} cannot be downloaded ({type(error).__name__})",
            hint="the first start needs the network once; check it and any proxy settings, then `heddle up`",
        ) from error


def _install_one(cache: Path, artifact: Artifact, fetch: Fetch, progress: Progress) -> None:
    target = _target(cache, artifact)
    if target.is_file() and _is_right(artifact, target):
        _mark_checked(target)
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
        for attempt in ("first", "second"):
            got = fetch(artifact, Path(folder) / attempt, progress)
            if _is_right(artifact, got):
                break
        else:
            raise LocalStackError(
                f"{artifact.filename} does not have the content that the lock names, twice in a row",
                hint="a proxy or mirror may change downloads: check it, then `heddle up`",
            )
        if artifact.type == "tar.gz":
            _unpack(got, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _mark_checked(got)
            os.replace(got, target)


def _is_installed(cache: Path, artifact: Artifact) -> bool:
    target = _target(cache, artifact)
    if artifact.type == "tar.gz":
        return _is_whole(target)
    try:
        status = target.stat()
    except OSError:
        return False
    return status.st_size == artifact.bytes and status.st_mtime == _CHECKED_MTIME_S


def _target(cache: Path, artifact: Artifact) -> Path:
    if artifact.type == "tar.gz":
        return cache / f"registry-{artifact.version}"
    return cache / "jars" / artifact.filename


def _is_right(artifact: Artifact, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.bytes:
        return False
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == artifact.sha256


def _mark_checked(path: Path) -> None:
    os.utime(path, (_CHECKED_MTIME_S, _CHECKED_MTIME_S))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack into place as a whole: a crash midway leaves no half folder under the final name."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpack-") as folder:
        fresh = Path(folder) / "fresh"
        # Its hash was checked, so nothing foreign can hide in it; Python 3.11.2, Debian 12's, has no filters yet.
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, **options)  # noqa: S202 - see above
        contents = {str(p.relative_to(fresh)): _look(p) for p in sorted(fresh.rglob("*")) if p.is_file()}
        (fresh / _CONTENTS).write_text(json.dumps(contents), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)


def _is_whole(folder: Path) -> bool:
    try:
        contents = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))
        return all(_look(folder / name) == look for name, look in contents.items())
    except (OSError, ValueError):
        return False


def _look(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, int(status.st_mtime)]


def _check_space(cache: Path, absent: Sequence[Artifact]) -> None:
    needed = 3 * sum(artifact.bytes for artifact in absent)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise LocalStackError(
            f"the cache {cache} needs {needed / 2**20:.0f} MB, its disk has {free / 2**20:.0f} MB free",
            hint="free some space, or move the cache with HEDDLE_CACHE_DIR",
        )


def _programs(cache: Path, lock: Sequence[Artifact]) -> Programs:
    jars = sorted(_target(cache, a) for a in lock if a.type == "jar")
    registry = next(_target(cache, a) for a in lock if a.type == "tar.gz")
    digest = sha256("".join(sorted(a.sha256 for a in lock)).encode()).hexdigest()
    return Programs(tuple(jars), registry, digest)
