"""First act: the ledger's database is taken away under load. Nothing is parked; all goes on by itself."""

from __future__ import annotations

import os
import signal
import time

from demo.oncall import Cut, OnCall, console, heading, prompt, say
from demo.workers import Workers

SINK = "ledger"
LOCAL_SERVERS = ("kafka", "registry", "postgres")  # each says when it is ready


def postgres_outage(workers: Workers, on_call: OnCall, pid: int) -> None:
    """Kills PostgreSQL, which the local registry needs too, and starts it again as on-call would."""
    heading("An outage: PostgreSQL, which has the ledger and the ERP, dies under load")
    say("  so has the local registry its schemas; workers that know theirs go on")
    prompt(f"kill -9 {pid}", "PostgreSQL")
    os.kill(pid, signal.SIGKILL)
    workers.until("the ledger is paused", lambda: bool(workers.state(SINK).pauses))
    on_call.types("status", expects=1)
    on_call.types("up", cut=Cut(max_lines=len(LOCAL_SERVERS)))
    back = time.monotonic()
    workers.until("the ledger goes on", lambda: workers.state(SINK).pauses == ())
    state = workers.state(SINK)
    console.print()
    say(f"{SINK} went on by itself within {time.monotonic() - back:.1f} s; dead letters: {state.unresolved or 'none'}")
