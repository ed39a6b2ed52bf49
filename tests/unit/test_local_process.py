"""Knowing our processes again, and not leaving any behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from heddle.local import process, warden

SLEEPER = """
import signal
signal.signal(signal.SIGTERM, signal.{})
print("up", flush=True)
while True:
    signal.pause()
"""
OWNER = """
import pathlib, signal, sys
from heddle.local import warden
warden.watch(pathlib.Path(sys.argv[1]), remove=True)
print("up", flush=True)
signal.pause()
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import signal
from heddle.local import die_with_parent
die_with_parent()
print("up", flush=True)
signal.pause()
"""


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def started() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def sleeper(folder: Path, started: list[int], on_term: str = "SIG_DFL") -> subprocess.Popen[bytes]:
    output = folder.parent / f"{folder.name}.out"
    command = [sys.executable, "-c", SLEEPER.format(on_term), process.token(folder)]
    child = process.spawn(command, output=output, cwd=folder.parent)
    started.append(child.pid)
    assert eventually(lambda: output.read_text() == "up\n")
    return child


def test_a_process_is_found_by_its_mark_and_by_nothing_less(tmp_path: Path, started: list[int]) -> None:
    child = sleeper(tmp_path / "kafka", started)
    found = process.find(process.token(tmp_path / "kafka"))
    assert found is not None
    assert found.pid == child.pid
    assert process.find(process.token(tmp_path / "kafk")) is None
    assert process.find(str(tmp_path / "kafka")) is None


def test_a_dead_child_is_not_found(tmp_path: Path, started: list[int]) -> None:
    child = sleeper(tmp_path / "kafka", started)
    os.kill(child.pid, signal.SIGKILL)
    assert eventually(lambda: process.find(process.token(tmp_path / "kafka")) is None)
    child.wait()


@pytest.mark.parametrize(("on_term", "clean"), [("SIG_DFL", True), ("SIG_IGN", False)])
def test_end_says_whether_the_signal_was_enough(on_term: str, clean: bool, tmp_path: Path, started: list[int]) -> None:
    child = sleeper(tmp_path / "kafka", started, on_term)
    assert process.end(psutil.Process(child.pid), signal.SIGTERM, 0.3) is clean
    child.wait()
    assert process.find(process.token(tmp_path / "kafka")) is None


def test_the_warden_ends_the_servers_of_a_killed_owner_and_no_others(tmp_path: Path, started: list[int]) -> None:
    data, other = tmp_path / "data", tmp_path / "data-of-another"
    data.mkdir()
    other.mkdir()
    ours, foreign = sleeper(data / "kafka", started), sleeper(other / "kafka", started)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(data)], stdout=subprocess.PIPE)
    started.append(owner.pid)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert ours.wait(10) == -signal.SIGKILL
    assert eventually(lambda: not data.exists())
    assert foreign.poll() is None


def test_a_released_warden_goes(tmp_path: Path) -> None:
    guard = warden.watch(tmp_path / "data", remove=False)
    warden.release(guard)
    assert guard.returncode == 0


def test_a_child_dies_with_its_killed_parent(started: list[int]) -> None:
    owner = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE)
    started.append(owner.pid)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    started.append(pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
