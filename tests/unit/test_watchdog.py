"""What ends a process that hangs, and what does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from heddle.delivery.watchdog import EXIT_STUCK, LOOK_S

_BEGIN = """
import threading, time
from heddle.delivery.watchdog import LOOK_S, Watchdog, within
watchdog = Watchdog(lambda: print("stuck", flush=True))
never = threading.Event()
"""


def ended(then: str) -> tuple[int, str]:
    """Exit code and output of a program that goes on with `then`, and ends by itself if nobody ends it."""
    run = subprocess.run([sys.executable, "-c", _BEGIN + then], capture_output=True, text=True, timeout=60, check=False)
    return run.returncode, run.stdout


@pytest.mark.parametrize(
    "then",
    [
        "with watchdog.armed(within(0.05)): never.wait(30)",
        "moved = [time.monotonic() + 60]\nwith watchdog.armed(lambda: moved[0]):\n moved[0] = 0.0\n never.wait(30)",
        "with watchdog.armed(within(60)): pass\nwith watchdog.armed(within(0.05)): never.wait(30)",
    ],
    ids=["past its deadline", "whose deadline moved", "armed again"],
)
def test_what_hangs_past_its_deadline_ends_the_process(then: str) -> None:
    assert ended(then) == (EXIT_STUCK, "stuck\n")


@pytest.mark.parametrize(
    "then",
    [
        f"with watchdog.armed(within(60)): never.wait({4 * LOOK_S})",
        f"with watchdog.armed(within(0.05)): pass\nnever.wait({4 * LOOK_S})",
        f"watchdog.end()\nwith watchdog.armed(within(0.05)): never.wait({4 * LOOK_S})",
    ],
    ids=["in time", "done in time", "ended"],
)
def test_nothing_else_does(then: str) -> None:
    assert ended(then) == (0, "")
