"""Files of a folder, read at each use: as `heddle up` writes them, as Kubernetes and Docker mount secrets, as systemd
hands credentials over.

`ledger/dsn` is the file `ledger/dsn`, or `ledger--dsn` where names may have no slash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from heddle.errors import UsageError
from heddle.root import state_dir
from heddle.secrets.provider import Found, Options, Surroundings, flat_name


class FilesOptions(Options):
    provider: Literal["files"]
    folder: str = ""
    """Relative to the project; empty: HEDDLE_SECRETS_DIR, else systemd's $CREDENTIALS_DIRECTORY, else
    `.heddle/secrets`."""

    def made(self, surroundings: Surroundings) -> Files:
        return Files(surroundings.root / self.folder if self.folder else None)


class Files:
    name = "files"

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def look_up(self, name: str) -> Found | None:
        flat = flat_name(name)
        for file in (name, flat) if flat not in (None, name) else (name,):
            text = _read(self.folder / str(file))
            if text is not None and text.strip():
                return Found(text)
        return None

    def advice(self, name: str) -> str:
        return f"write {self.folder / name} (mode 0600)"

    @property
    def folder(self) -> Path:
        if self._folder is not None:
            return self._folder
        given = os.environ.get("HEDDLE_SECRETS_DIR") or os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(given) if given else state_dir() / "secrets"


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
