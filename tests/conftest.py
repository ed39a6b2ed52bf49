"""Fixtures that every test folder shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heddle.local import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One real, throw-away stack per pytest process: Kafka, registry and PostgreSQL.

    Tests share it, so each makes names of its own (topics, groups, tables). A test that kills a server starts it
    again (`stack.kafka.kill(); stack.kafka.start()`); ports and data stay."""
    with running_stack() as started:
        yield started


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Figures that tests hand over with `record_property("summary", text)`, also through pytest-xdist."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")
