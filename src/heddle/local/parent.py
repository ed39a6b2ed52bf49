"""Children that do not outlive a killed parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.5


def die_with_parent(sign: signal.Signals = signal.SIGTERM) -> None:
    """Have this process get `sign` when its parent is gone, however that ended. Call it first thing, in a child.

    Linux does this at once, and by the *thread* that started the child: start children from one that lives as long
    as the parent. Elsewhere, macOS included, a thread looks twice a second whether the parent is still the same."""
    parent = os.getppid()
    if not _ask_linux(sign):
        threading.Thread(target=_watch, args=(parent, sign), name="parent-watch", daemon=True).start()
    elif os.getppid() != parent:
        os.kill(os.getpid(), sign)


def _ask_linux(sign: signal.Signals) -> bool:
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)) == 0


def _watch(parent: int, sign: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), sign)
