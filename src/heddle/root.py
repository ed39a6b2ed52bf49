"""Where an application is: its root folder, its [tool.heddle] table, and the folder for what it keeps."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from heddle.errors import UsageError


def find_root(start: Path | None = None) -> Path:
    """The nearest folder upwards whose pyproject.toml has a [tool.heddle] table. Raises `UsageError`."""
    here = (start or Path.cwd()).resolve()
    root = enclosing_root(here)
    if root is None:
        raise UsageError(
            f"{here} is not inside a Heddle project",
            hint='change into one, or add [tool.heddle] with project = "name" to pyproject.toml',
        )
    return root


def enclosing_root(here: Path) -> Path | None:
    """As `find_root`, or None. `here` is absolute."""
    return next((folder for folder in (here, *here.parents) if "project" in read_config(folder)), None)


def read_config(root: Path) -> dict[str, Any]:
    """The [tool.heddle] table of a folder's pyproject.toml, or nothing."""
    try:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
        table = tomllib.loads(text).get("tool", {}).get("heddle", {})
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{root / 'pyproject.toml'}: {error}") from error
    return table if isinstance(table, dict) else {}


def state_dir() -> Path:
    """The `.heddle` folder of the project that the current folder is in, also from below its root."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".heddle").is_dir() or (folder / "pyproject.toml").is_file():
            return folder / ".heddle"
    return here / ".heddle"
