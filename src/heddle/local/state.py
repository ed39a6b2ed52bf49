"""What `heddle up` leaves in a project's `.heddle`: the stack's addresses, and the secrets of the reference project."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heddle.audit.key import NAME as AUDIT_KEY
from heddle.errors import UsageError
from heddle.local.stack import Stack

_SECRET_KINDS = ("random", "postgres")


def data_dir(state_dir: Path) -> Path:
    return state_dir / "data"


def write_state(state_dir: Path, stack: Stack) -> None:
    """`stack.json`, which settings read for what the environment leaves open."""
    state = {
        "bootstrap_servers": stack.bootstrap_servers,
        "registry_url": stack.registry_url,
        "dsn": stack.dsn,
        "ports": stack.ports,
        "pids": stack.pids,
        "data_dir": str(stack.data_dir),
    }
    _write_private(state_dir / "stack.json", json.dumps(state, indent=2) + "\n")


def clear_state(state_dir: Path) -> None:
    (state_dir / "stack.json").unlink(missing_ok=True)


def write_secrets(state_dir: Path, config: Mapping[str, Any], stack: Stack) -> list[str]:
    """Make the audit trail's key and the secrets that [tool.heddle.local.secrets] names, and return the names of those
    that were missing.

    "random" is made once: a webhook secret in Standard Webhooks' form. "postgres" is the stack's address, which may
    change with its port, and is written at every start."""
    made = []
    for name, kind in _wanted(config).items():
        path = state_dir / "secrets" / name
        _make_private(state_dir / "secrets", path.parent)
        if kind == "postgres":
            _write_private(path, stack.dsn + "\n")
        elif not path.exists():
            _write_private(path, "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode() + "\n")
            made.append(name)
    return made


def _wanted(config: Mapping[str, Any]) -> dict[str, str]:
    table = config.get("local", {}).get("secrets", {})
    for name, kind in table.items():
        if kind not in _SECRET_KINDS:
            raise UsageError(
                f"[tool.heddle.local.secrets]: {name} is neither of {', '.join(_SECRET_KINDS)}",
                hint="correct it in pyproject.toml",
            )
        if not all(part.strip(".") for part in name.split("/")):
            raise UsageError(f"[tool.heddle.local.secrets]: {name!r} is no secret's name")
    return {AUDIT_KEY: "random"} | dict(table)


def _make_private(top: Path, folder: Path) -> None:
    """Make `folder` and what lies between it and `top`, all of it only for the owner."""
    for part in reversed([folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.chmod(0o700)


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only its owner can read it, at every moment."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(scratch, path)
