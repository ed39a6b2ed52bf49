"""The supervisor, on real processes: restarts, final exits, draining, locks."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from heddle.operations.supervise import AlreadyRunningError, Child, Supervisor, held

APPEND_LINE = "open(sys.argv[1], 'a').write('started\\n')"


def child(tmp_path: Path, code: str) -> Child:
    body = f"import os, signal, sys, time; {APPEND_LINE}; {code}"
    return Child("worker", [sys.executable, "-c", body, str(tmp_path / "starts")])


def starts(tmp_path: Path) -> int:
    path = tmp_path / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


@contextmanager
def terminated_after(condition_met: threading.Event) -> Iterator[None]:
    """SIGTERM to this process once the condition is met, as an operator would send it."""

    def wait_and_send() -> None:
        condition_met.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=wait_and_send)
    sender.start()
    yield
    sender.join()


def when(condition_met: threading.Event, tmp_path: Path, count: int) -> threading.Thread:
    def watch() -> None:
        pace = threading.Event()
        while starts(tmp_path) < count:
            pace.wait(0.02)
        condition_met.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_killed_worker_is_started_again_and_the_log_says_why(tmp_path: Path) -> None:
    enough = threading.Event()
    when(enough, tmp_path, 3)
    with capture_logs() as logs, terminated_after(enough):
        code = Supervisor([child(tmp_path, "os.kill(os.getpid(), 9)")], drain_timeout_s=5).run()
    assert code == 0
    reasons = [line["why"] for line in logs if line["event"] == "restarting"]
    assert reasons[:2] == ["killed by SIGKILL"] * 2


@pytest.mark.parametrize("code", [2, 4, 6])
def test_exits_that_a_restart_would_not_mend_are_final(tmp_path: Path, code: int) -> None:
    with capture_logs() as logs:
        assert Supervisor([child(tmp_path, f"sys.exit({code})")], drain_timeout_s=5).run() == code
    assert starts(tmp_path) == 1
    assert any(line["event"] == "stopped for good" for line in logs)


def test_sigterm_lets_workers_drain(tmp_path: Path) -> None:
    drains = "signal.signal(15, lambda *_: (open(sys.argv[1] + '.drained', 'w'), sys.exit(0))); "
    drains += "open(sys.argv[1], 'a').write('ready\\n'); time.sleep(60)"
    enough = threading.Event()
    when(enough, tmp_path, 2)
    with terminated_after(enough):
        Supervisor([child(tmp_path, drains)], drain_timeout_s=30).run()
    assert (tmp_path / "starts.drained").exists()


def test_a_worker_that_does_not_drain_is_killed_within_the_bound(tmp_path: Path) -> None:
    deaf = "signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'a').write('deaf\\n'); time.sleep(600)"
    enough = threading.Event()
    when(enough, tmp_path, 2)
    with capture_logs() as logs, terminated_after(enough):
        assert Supervisor([child(tmp_path, deaf)], drain_timeout_s=0.3).run() == 1
    assert any("did not drain" in str(line["event"]) for line in logs)


def test_a_second_start_names_the_first_ones_pid(tmp_path: Path) -> None:
    with held(tmp_path, "0", ["a", "b"]):
        probe = (
            "from pathlib import Path; from heddle.operations.supervise import held\n"
            f"with held(Path({str(tmp_path)!r}), '0', ['b']): pass"
        )
        result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
        assert f"already running as instance 0, pid {os.getpid()}" in result.stderr
        assert AlreadyRunningError.exit_code == 3
        with held(tmp_path, "1", ["a"]), held(tmp_path, "0", ["c"]):
            pass
    with held(tmp_path, "0", ["a"]):
        pass


def test_locks_free_themselves_when_their_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from heddle.operations.supervise import held\n"
        f"with held(Path({str(tmp_path)!r}), '0', ['a']):\n print('held', flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(AlreadyRunningError, match=str(process.pid)), held(tmp_path, "0", ["a"]):
            pass
        process.kill()
        process.wait()
        with held(tmp_path, "0", ["a"]):
            pass
