"""Credentials that are refused while a process runs: they may have been rotated."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from heddle.errors import AuthError
from heddle.secrets import refresh_all

REFRESH_INTERVAL_S = 300.0


def with_renewed_credentials(run: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
    """Runs it, and anew after a refusal, with every secret asked for anew. Refused again within `REFRESH_INTERVAL_S`,
    they are a person's: raises the `AuthError` then."""
    refreshed_s = -REFRESH_INTERVAL_S
    while True:
        try:
            return run()
        except AuthError as error:
            if clock() - refreshed_s < REFRESH_INTERVAL_S:
                raise
            refreshed_s = clock()
            refresh_all()
            structlog.get_logger().warning("refused: reading the credentials anew", error=str(error))
