"""Secrets are references: `secret("ledger/dsn")` names one, `resolve()` reads it at use, nothing logs it.

Providers, first that has a value wins:
  environment   HEDDLE_SECRET_LEDGER_DSN  (upper case, everything else an underscore)
  file          <HEDDLE_SECRETS_DIR or .heddle/secrets>/ledger/dsn

A secret may have several lines, each one live value (`resolve_all`): that is how webhook secrets rotate.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from heddle.errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*")


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret. Its text form shows the name only."""

    name: str

    def resolve(self) -> str:
        """The value (its first line). Raises `UsageError` naming both places when neither has it."""
        return self.resolve_all()[0]

    def resolve_all(self) -> tuple[str, ...]:
        """Every live value, newest first as written."""
        values = _lines(os.environ.get(self.environment_name)) or _lines(_read(self.path))
        if not values:
            raise UsageError(
                f"secret {self.name} has no value",
                hint=f"set {self.environment_name}, or write {self.path} (mode 0600)",
            )
        _resolved.update(values, filter(None, map(_password, values)))
        return values

    @property
    def environment_name(self) -> str:
        return "HEDDLE_SECRET_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    @property
    def path(self) -> Path:
        return secrets_dir() / self.name


def secret(name: str) -> Secret:
    """Reference a secret by name, for example `secret("ledger/dsn")`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"secret name {name!r} is not lower-case parts joined by '/'")
    return Secret(name)


def secrets_dir() -> Path:
    chosen = os.environ.get("HEDDLE_SECRETS_DIR")
    return Path(chosen) if chosen else state_dir() / "secrets"


def state_dir() -> Path:
    """The `.heddle` folder of the project that the current folder is in, also from below its root."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".heddle").is_dir() or (folder / "pyproject.toml").is_file():
            return folder / ".heddle"
    return here / ".heddle"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise UsageError(f"secret file {path} is not UTF-8 text", hint="write binary keys as base64 or hex") from None
    except OSError as error:
        raise UsageError(
            f"secret file {path} cannot be read: {error.strerror}", hint="check its owner and mode"
        ) from error


def _lines(text: str | None) -> tuple[str, ...]:
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def _password(value: str) -> str | None:
    """The password inside of an address: error texts repeat it without the rest."""
    try:
        return urlsplit(value).password
    except ValueError:
        return None


# Shorter values would hide half of every text, and are no secrets.
_MIN_REDACTED_CHARS = 4
_resolved: set[str] = set()


def redact(text: str) -> str:
    """`text` without any secret value that this process has resolved so far."""
    for value in sorted(_resolved.copy(), key=len, reverse=True):
        if len(value) >= _MIN_REDACTED_CHARS:
            text = text.replace(value, "***")
    return text
