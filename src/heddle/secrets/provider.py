"""What a provider of secrets is, and what it answers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from heddle.errors import UsageError

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 10.0
"""Of one request to a store."""
OVERLAP_S = 3600.0
"""How long the version before the current one still counts, from when the current one was written. Stores alone know
when that was; it counts where several values may: for what others sign, never for what we log in with."""


@dataclass(frozen=True, slots=True)
class Found:
    """One secret. Texts may have several live values (`live_values`); neither is shown.

    `version`: the store's own name for it, or "". `previous`: the version before, within `OVERLAP_S`, or "".
    `fresh_s`: ask again after, None: as the provider's refresh time says. `valid_s`: never used after, None: no end."""

    text: str = field(repr=False)
    version: str = ""
    previous: str = field(default="", repr=False)
    fresh_s: float | None = None
    valid_s: float | None = None


class Provider(Protocol):
    """Any thread calls. `name` is what errors, logs and audit records call it."""

    name: str

    def look_up(self, name: str) -> Found | None:
        """None when it does not have that secret. Raises `DependencyDownError` when it does not answer, `AuthError`
        when it refuses us, `UsageError` when it is set up wrongly; never with a value in the text."""

    def advice(self, name: str) -> str:
        """How to put this secret there, to follow on "either"."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a provider may need of those around it. `root`: of relative paths. `earlier`: the value of a secret that
    the providers before this one have; a store's own credentials come from there. Raises `MissingSecretError`."""

    root: Path
    earlier: Callable[[str], str]


class Options(BaseModel):
    """One entry of [[tool.heddle.secrets]]; a provider's file declares its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreOptions(Options):
    """Of a store across the network."""

    refresh_s: float = Field(300, ge=1, le=86_400, description="how long an answer is used before it is asked anew")


def live_values(text: str) -> tuple[str, ...]:
    """Each line of a secret is one live value, newest first as written; a text in PEM is one value as a whole."""
    if PEM in text:
        return (text.strip() + "\n",)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


PEM = "-----BEGIN "


def flat_name(name: str, separator: str = "--") -> str | None:
    """The name in a place without folders, `/` written as two hyphens; None for one that has these itself."""
    return None if separator in name else name.replace("/", separator)


def sdk(module: str, extra: str) -> Any:
    """A vendor's client library, loaded when its store is asked for the first time. Raises `UsageError`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UsageError(
            f"secrets from {extra} need the package {module}", hint=f"install it: pip install 'heddle[{extra}]'"
        ) from None


def overlaps(written: datetime | None) -> bool:
    """Whether a version that was written then is so new that the one before still counts."""
    return written is not None and (datetime.now(UTC) - written).total_seconds() < OVERLAP_S
