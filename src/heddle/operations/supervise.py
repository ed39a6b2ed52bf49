"""`heddle run`: one process per subscription, restarted with a growing delay, and every restart says why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from heddle.delivery.watchdog import EXIT_STUCK
from heddle.errors import HeddleError

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 30.0
HEALTHY_AFTER_S = 30.0

# Exit codes of a worker that another start would not mend.
FINAL = {
    2: "it cannot run as declared or set up",
    4: "another process runs under this instance name; give one of them --instance",
    6: "a person has to decide",
}
REASONS = {1: "it failed; its last lines say why", 5: "a dependency does not answer", EXIT_STUCK: "a call hung"}


class AlreadyRunningError(HeddleError):
    """The component runs already on this machine, under the same instance name; exit code 3."""

    code = "already-running"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Child:
    """How to start one component's process."""

    name: str
    command: Sequence[str]


class Supervisor:
    """Starts the children and keeps them running until `stop`; then gives them `drain_timeout_s` to finish."""

    def __init__(self, children: Sequence[Child], *, drain_timeout_s: float) -> None:
        self._children = children
        self._drain_timeout_s = drain_timeout_s
        self._stop = threading.Event()
        self._log = structlog.get_logger()
        self._final_codes: dict[str, int] = {}

    def run(self) -> int:
        """Blocks until stopped by a signal, or until no child is left to restart. Returns the exit code."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        threads = [threading.Thread(target=self._keep, args=(child,), name=child.name) for child in self._children]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return max(self._final_codes.values(), default=0)

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self._stop.is_set():
            self._log.info("draining", signal=signal.Signals(number).name, within_s=self._drain_timeout_s)
        self._stop.set()

    def _keep(self, child: Child) -> None:
        delay = BACKOFF_MIN_S
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                code = self._run_once(child)
            except OSError as error:  # no process or memory to be had: later, perhaps
                self._log.error("could not start", component=child.name, error=str(error))
                code = 1
            if self._stop.is_set():
                return
            if code in FINAL:
                self._final_codes[child.name] = code
                self._log.error("stopped for good", component=child.name, exit_code=code, why=FINAL[code])
                return
            if time.monotonic() - started > HEALTHY_AFTER_S:
                delay = BACKOFF_MIN_S
            self._log.warning("restarting", component=child.name, why=_reason(code), in_s=delay)
            self._stop.wait(delay)
            delay = min(delay * 2, BACKOFF_MAX_S)

    def _run_once(self, child: Child) -> int:
        """Start it and wait for its end; once stopping, pass SIGTERM on and bound the drain."""
        with subprocess.Popen(child.command, stdin=subprocess.DEVNULL) as process:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(0.2)
                if self._stop.is_set():
                    return self._drain(child, process)

    def _drain(self, child: Child, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        try:
            return process.wait(self._drain_timeout_s)
        except subprocess.TimeoutExpired:
            self._log.error("did not drain in time; killing it", component=child.name)
            process.kill()
            self._final_codes[child.name] = 1
            return process.wait()


@contextlib.contextmanager
def held(run_dir: Path, instance: str, names: Sequence[str]) -> Iterator[None]:
    """Hold each component's lock for this (project, instance). Raises `AlreadyRunningError` naming the other pid."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for name in names:
            lock = FileLock(run_dir / f"{instance}.{name}.lock")
            pid_file = run_dir / f"{instance}.{name}.pid"
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                pid = pid_file.read_text().strip() if pid_file.exists() else "unknown"
                raise AlreadyRunningError(
                    f"{name} is already running as instance {instance}, pid {pid}",
                    hint="stop that process, or start this copy with --instance NAME",
                ) from None
            pid_file.write_text(str(os.getpid()))
        yield


def worker_command(name: str, instance: str) -> list[str]:
    return [sys.executable, "-m", "heddle", "worker", name, "--instance", instance]


def _reason(code: int) -> str:
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"killed by {known.get(-code, f'signal {-code}')}"
    return REASONS.get(code, f"exit code {code}")
