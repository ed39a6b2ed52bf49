"""Fixtures that every test folder shares."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from heddle.local import Stack, running_stack

# What has long modules comes early, so that the end of the run is short ones, which fill every process alike.
_FOLDERS = ("integration", "conformance", "contracts", "unit")
_LONG = ("test_wire_agreement.py", "test_wire_mutations.py")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One real, throw-away stack per pytest process: Kafka, registry and PostgreSQL.

    Tests share it, so each makes names of its own (topics, groups, tables). A test that kills a server starts it
    again (`stack.kafka.kill(); stack.kafka.start()`); ports and data stay."""
    with running_stack() as started:
        yield started


@pytest.fixture(autouse=True, scope="module")
def workers_go_with_their_module() -> Iterator[None]:
    """Python's collector looks last for what has lived longest, such as the cycles that workers of earlier tests are.
    Each holds some clients of Kafka, and of these a process can have a thousand (a thread-local key for each)."""
    yield
    gc.collect()


@pytest.hookimpl(trylast=True)  # within a folder the order stays random
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which pytest-xdist hands modules out, with `--no-loadscope-reorder` (its own order is by the number
    of tests: the few long ones would come last). A module of `faults` starts a whole application, which keeps the
    machine busy: between two of them come others."""
    modules = list(dict.fromkeys(item.path for item in items))
    faults = [path for path in modules if path.parent.name == "faults"]
    others = sorted((path for path in modules if path not in faults), key=_turn)
    dealt = chain.from_iterable(zip_longest(faults, others[::2], others[1::2]))
    place = {path: number for number, path in enumerate(filter(None, dealt))}
    items.sort(key=lambda item: place[item.path])


def _turn(path: Path) -> int:
    if path.name in _LONG:
        return -1
    return _FOLDERS.index(path.parent.name) if path.parent.name in _FOLDERS else len(_FOLDERS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Figures that tests hand over with `record_property("summary", text)`, also through pytest-xdist."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")
