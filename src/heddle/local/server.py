"""What Kafka, the registry and PostgreSQL have in common as local processes."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import psutil

from heddle.local import process
from heddle.local.ports import HOST, require_free
from heddle.local.problems import LocalStackError, explain_death, explain_oserror

_POLL_S = 0.03


class Server(ABC):
    """One server of a stack, with its folder, its log and its port. Methods may be called from any thread,
    from one thread at a time per server. A restart keeps ports and data."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_timeout_s: ClassVar[float] = 60.0
    # How long a server that runs already may be silent before it counts as hanging.
    answer_timeout_s: ClassVar[float] = 15.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self._child: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None

    @property
    def folder(self) -> Path:
        return self.data_dir / self.name

    @property
    def output(self) -> Path:
        """What the process prints outside its log: mostly the last words of one that cannot start."""
        return self.data_dir / "logs" / f"{self.name}.out"

    @abstractmethod
    def log_files(self) -> list[Path]:
        """Its log files, newest last."""

    @abstractmethod
    def prepare(self) -> None:
        """Make its folder ready for a first or later start, and remove what a crash left behind."""

    @abstractmethod
    def spawn(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Ask the server itself, once, without waiting long."""

    def finish_start(self) -> None:  # noqa: B027 - a hook; most servers have nothing to do
        """What remains to be done after the server's first answer."""

    def after_clean_stop(self) -> None:  # noqa: B027 - same
        """What is to be done when the server has ended by itself after `stop`."""

    @property
    def pid(self) -> int | None:
        found = self.process()
        return None if found is None else int(found.pid)

    def process(self) -> psutil.Process | None:
        """The live process of this server, whoever started it, or None."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        known = self._process
        if known is None or not process.is_alive(known):
            self._process = process.find(process.token(self.folder))
        return self._process

    def start(self) -> None:
        """Returns when the server answers; does nothing when it does already. One that runs but does not answer
        is restarted. Raises `LocalStackError` that says why it cannot."""
        if self.process() is not None:
            if self._answers_within(self.answer_timeout_s):
                return
            self.kill()
        require_free(self.name, self.port)
        try:
            self.data_dir.joinpath("logs").mkdir(parents=True, exist_ok=True)
            self.prepare()
            self._child = self.spawn()
        except OSError as error:
            raise explain_oserror(self.name, error) from error
        self._process = psutil.Process(self._child.pid)
        self._wait_ready(self._child)
        self.finish_start()

    def stop(self) -> None:
        """Ask it to end cleanly and wait until it has; kill it when it takes too long. Nothing when it is down."""
        if self._end(self.stop_signal):
            self.after_clean_stop()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL) and return when it is gone."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> bool:
        found = self.process()
        clean = found is not None and process.end(found, sign, self.stop_timeout_s)
        if self._child is not None:
            self._child.wait()
        self._child = self._process = None
        return clean

    def _wait_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if child.poll() is not None:
                raise explain_death(self.name, child.returncode, [self.output, *reversed(self.log_files())])
            if time.monotonic() > deadline:
                self.kill()
                raise LocalStackError(
                    f"{self.name} did not answer on {HOST}:{self.port} within {self.start_timeout_s:.0f} s",
                    hint=f"the machine may be overloaded; its log is in {self.data_dir / 'logs'}",
                )
            time.sleep(_POLL_S)

    def _answers_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline or self.process() is None:
                return False
            time.sleep(_POLL_S)
        return True
