"""The real application in a folder of its own: applied, run, and reached into, process by process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from heddle.delivery.subscription import Subscription, subscription_of
from heddle.local import Stack
from heddle.local.ports import free_port
from heddle.project import ROLE_FOLDERS, load_project
from heddle.settings import Settings

REPOSITORY = Path(__file__).parents[2]
GATEWAY = "gateway"
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.02

# Small batches: more transactions, so more places to be killed at.
BATCH_MAX_RECORDS = 100

# As `heddle`, but ended when the test's process ends, however that happens.
_HEDDLE = """
from heddle.local import die_with_parent
die_with_parent()
from heddle.cli.main import main
main()
"""
# These tests are about what webhooks become. The ERP's leg needs a database and an API of its own, and its kinds are
# taken through faults by test_capture.py and test_http_sink_faults.py. What is not started costs no time.
LEFT_OUT_FILES = ("erp", "erp.py", "order_to_ledger.py", "billing.py")
LEFT_OUT = frozenset({"erp", "order-to-ledger", "billing-accounts", "billing-charges"})
_PYPROJECT = '[tool.heddle]\nproject = "order-to-cash"\n'


class Application:
    """One application root on one stack. `run` keeps every component running, as in production."""

    def __init__(self, root: Path, stack: Stack) -> None:
        self.root = root
        self.stack = stack
        self.log = root / "run.log"
        self.crm_secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        self.payments_secret = "whsec_" + secrets.token_hex(16)
        self._port = free_port()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        for folder in (*ROLE_FOLDERS, "schemas"):
            ignored = shutil.ignore_patterns("__pycache__", *LEFT_OUT_FILES)
            shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored)
        (root / "pyproject.toml").write_text(_PYPROJECT)
        (root / ".heddle").mkdir()

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def subscriptions(self) -> list[Subscription]:
        """Declared by the same files as in `root`; read in place, so that no second copy is imported."""
        components = load_project(REPOSITORY).components
        return [subscription_of(component) for name, component in components.items() if name not in LEFT_OUT]

    @property
    def components(self) -> list[str]:
        return [GATEWAY, *(subscription.name for subscription in self.subscriptions)]

    def apply(self) -> None:
        result = subprocess.run(self._command("apply"), capture_output=True, text=True, **self._place())  # type: ignore[call-overload]
        assert result.returncode == 0, result.stdout + result.stderr

    @contextmanager
    def running(self) -> Iterator[None]:
        """`heddle run`. At the end it drains, and has to end by itself."""
        try:
            self._run()
            yield
        finally:
            assert self._supervisor is not None
            code = _stop(self._supervisor)
            self._supervisor = None
        assert code == 0, f"`heddle run` ended with {code}\n{self.last_lines()}"

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Between two runs of `heddle run`, of which the first has to end by itself."""
        assert self._supervisor is not None
        code = _stop(self._supervisor)
        assert code == 0, f"`heddle run` ended with {code}\n{self.last_lines()}"
        yield
        self._run()

    @contextmanager
    def successor(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A second worker of a component, under an instance name of its own, as another host would run it."""
        with self.log.open("a") as log:
            process = self._start(log, "worker", name, "--instance", "b")
            try:
                yield process
            finally:
                code = _stop(process)
        assert code == 0, f"the successor of {name} ended with {code}\n{self.last_lines()}"

    def kill_supervisor(self) -> None:
        """kill -9 of `heddle run` itself: its workers have to end by themselves, so that it can be started again."""
        assert self._supervisor is not None
        workers = psutil.Process(self._supervisor.pid).children()
        self._supervisor.kill()
        self._supervisor.wait()
        left = psutil.wait_procs(workers, STOP_TIMEOUT_S)[1]
        assert not left, f"outlived their supervisor: {left}"
        self._run()

    def process(self, name: str) -> psutil.Process:
        """The component's live process under the supervisor, once there is one."""
        found: list[psutil.Process] = []

        def started() -> bool:
            found.extend(self._workers(name))
            return bool(found)

        self.until(f"{name} has a process", started, READY_TIMEOUT_S)
        return found[0]

    def until(self, what: str, holds: Callable[[], bool], timeout_s: float) -> float:
        """Wait for a condition while `heddle run` lives; returns how long it took (s)."""
        began = time.monotonic()
        while not holds():
            supervisor = self._supervisor
            assert supervisor is None or supervisor.poll() is None, f"`heddle run` ended\n{self.last_lines()}"
            assert time.monotonic() - began < timeout_s, f"not within {timeout_s:g} s: {what}\n{self.last_lines()}"
            moment(POLL_S)
        return time.monotonic() - began

    def said(self, text: str) -> Callable[[], bool]:
        """The condition that the log says this, from now on. Runs of blanks count as one."""
        known = len(self.log.read_text(errors="replace"))
        return lambda: text in " ".join(self.log.read_text(errors="replace")[known:].split())

    def last_lines(self, count: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _workers(self, name: str) -> Iterator[psutil.Process]:
        assert self._supervisor is not None
        with suppress(psutil.Error):
            for child in psutil.Process(self._supervisor.pid).children():
                with suppress(psutil.Error):
                    if name in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        yield child

    def _run(self) -> None:
        """Start `heddle run`, and wait until it has a process: from then on SIGTERM drains."""
        with self.log.open("a") as log:
            self._supervisor = self._start(log, "run")
        self.process(GATEWAY)

    def _start(self, log: object, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self._command(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._place()
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _HEDDLE, *arguments]

    def _place(self) -> dict[str, object]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("HEDDLE_")}
        environment = given | {
            "HEDDLE_BOOTSTRAP_SERVERS": self.stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": self.stack.registry_url,
            "HEDDLE_LOCAL": "true",
            "HEDDLE_GATEWAY_PORT": str(self._port),
            "HEDDLE_BATCH_MAX_RECORDS": str(BATCH_MAX_RECORDS),
            "HEDDLE_SECRET_AUDIT_KEY": "of these tests",
            "HEDDLE_SECRET_LEDGER_DSN": self.stack.dsn,
            "HEDDLE_SECRET_CRM_WEBHOOK": self.crm_secret,
            "HEDDLE_SECRET_PAYMENTS_WEBHOOK": self.payments_secret,
        }
        return {"cwd": self.root, "env": environment}


def moment(seconds: float) -> None:
    threading.Event().wait(seconds)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, as an operator stops it; killed only when it does not end."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        return process.wait()
