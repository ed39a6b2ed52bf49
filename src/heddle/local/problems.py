"""Why a local server did not start, in words that a person can act on."""

from __future__ import annotations

import re
from pathlib import Path

from heddle.errors import HeddleError, UsageError

_TAIL_BYTES = 16_384
_LAST_WORDS_MAX = 300

# What a dying server prints → what it means and what to do. First hit wins.
_CAUSES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"No space left on device|ENOSPC|could not (?:write|extend) file.*space", re.I),
        "the disk is full",
        "free some space, then `heddle up`; `heddle status` shows what the stack uses",
    ),
    (
        re.compile(
            r"insufficient memory|OutOfMemoryError|Cannot allocate memory"
            r"|could not (?:reserve|allocate|map anonymous)|unable to allocate",
            re.I,
        ),
        "there is not enough memory",
        "the stack needs about 500 MB: stop something else, or raise the container's limit, then `heddle up`",
    ),
    (
        re.compile(r"Address already in use|BindException|Port already bound|could not bind|already bound", re.I),
        "its port was taken by another program while it started",
        "run `heddle up` again, or choose a port with --kafka-port, --registry-port, --postgres-port",
    ),
    (
        re.compile(r"could not look up effective user ID|no such user", re.I),
        "this user id has no entry in the user database, which PostgreSQL requires",
        "run as a user that `id -un` can name; in a container, add one to /etc/passwd",
    ),
    (
        re.compile(r"Permission denied|Operation not permitted", re.I),
        "it was refused access to a file",
        "check the owner of the data folder: the same user must run every `heddle up`",
    ),
    (
        re.compile(r"files are incompatible|invalid checkpoint|could not locate .*checkpoint|CorruptRecord", re.I),
        "its data is damaged or comes from another version",
        "`heddle down --purge` deletes the local data and the next `heddle up` begins afresh",
    ),
)


_DAMAGED = re.compile(
    r"Unable to access jarfile|corrupt jarfile|ClassNotFound|NoClassDefFound|ZipException|ClassFormat"
)


class LocalStackError(HeddleError):
    """A server of the local stack cannot run here; the message says why as far as it is known."""

    code = "local-stack"


class DamagedCacheError(LocalStackError):
    """A server found one of its program files broken."""


def not_installed() -> UsageError:
    """The error for a local stack whose Python packages are missing."""
    return UsageError("the local stack's packages are not installed", hint="pip install 'heddle[local]'")


def tail(path: Path, max_bytes: int = _TAIL_BYTES) -> str:
    """The end of a log file, or nothing."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - max_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def explain_death(server: str, returncode: int | None, outputs: list[Path]) -> LocalStackError:
    """The error for a server that ended while it should have started. Reads the ends of its logs."""
    text = "\n".join(tail(path) for path in outputs)
    if _DAMAGED.search(text):
        return DamagedCacheError(
            f"{server} did not start: a file of its program is broken",
            hint="delete the cache folder that `heddle status` names, then `heddle up`",
        )
    for pattern, cause, hint in _CAUSES:
        if pattern.search(text):
            return LocalStackError(f"{server} did not start: {cause}", hint=hint)
    if returncode in (-9, 137):
        return LocalStackError(
            f"{server} was killed while it started, as a full memory does",
            hint="the stack needs about 500 MB: stop something else, or raise the container's limit",
        )
    return LocalStackError(
        f"{server} ended with code {returncode} while it started{_last_words(text)}",
        hint=f"more is in {outputs[0].parent}",
    )


def _last_words(text: str) -> str:
    """The last line that names an error, else the last line of all; stack frames say little."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    named = [line for line in lines if re.search(r"error|exception|fatal", line, re.I)]
    last = (named or lines or [""])[-1]
    return f": {last[:_LAST_WORDS_MAX]}" if last else ""


def explain_oserror(server: str, error: OSError) -> LocalStackError:
    """The error for a program that the system would not even start, or a file that could not be written."""
    where = error.filename or "a file"
    if isinstance(error, PermissionError):
        return LocalStackError(
            f"{server}: {where} may not be used here ({error.strerror})",
            hint="check its owner, and that its disk is not mounted noexec; HEDDLE_CACHE_DIR moves the cache",
        )
    if error.errno == 28:
        return LocalStackError(f"{server}: the disk is full ({where})", hint="free some space, then `heddle up`")
    if error.errno == 12:
        return LocalStackError(f"{server}: there is not enough memory", hint="the stack needs about 500 MB")
    return LocalStackError(f"{server}: {where}: {error.strerror}", hint="check the file, then `heddle up`")
