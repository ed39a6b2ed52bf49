"""Environment variables: `ledger/dsn` is HEDDLE_SECRET_LEDGER_DSN. What a process was given never changes."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Literal

from heddle.secrets.provider import Found, Options, Surroundings


class EnvironmentOptions(Options):
    provider: Literal["environment"]

    def made(self, _: Surroundings) -> Environment:
        return Environment()


class Environment:
    name = "environment"

    def look_up(self, name: str) -> Found | None:
        text = os.environ.get(variable_of(name), "")
        return Found(text) if text.strip() else None

    def advice(self, name: str) -> str:
        return f"set {variable_of(name)}"


@lru_cache
def variable_of(name: str) -> str:
    """Upper case, and everything that is no letter or digit an underscore."""
    return "HEDDLE_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
