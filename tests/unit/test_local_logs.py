"""Reading the servers' logs over rotation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heddle.local import Runtime, Server, find_stack
from heddle.local.logs import Line, follow, last_lines


@pytest.fixture
def kafka(tmp_path: Path) -> Server:
    (tmp_path / "logs").mkdir()
    return find_stack(tmp_path, Runtime(tmp_path / "cache")).kafka


def texts(lines: Iterator[Line | None]) -> list[str]:
    """What comes until nothing is new."""
    return [line.text for line in iter(lines.__next__, None)]


def test_the_newest_lines_reach_back_into_rotated_files(kafka: Server, tmp_path: Path) -> None:
    (tmp_path / "logs" / "kafka.out").write_text("first words\n", encoding="utf-8")
    (tmp_path / "logs" / "kafka.log.1").write_text("old 1\nold 2\n", encoding="utf-8")
    (tmp_path / "logs" / "kafka.log").write_text("new 1\n", encoding="utf-8")
    assert [line.text for line in last_lines(kafka, 2)] == ["old 2", "new 1"]
    assert [line.text for line in last_lines(kafka, 9)] == ["first words", "old 1", "old 2", "new 1"]


def test_following_goes_on_over_a_rotation(kafka: Server, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "kafka.log"
    log.write_text("before\n", encoding="utf-8")
    lines = follow([kafka])
    assert texts(lines) == []
    with log.open("a", encoding="utf-8") as file:
        file.write("added\n")
    assert texts(lines) == ["added"]
    with log.open("a", encoding="utf-8") as file:
        file.write("last of the old\n")
    log.rename(log.with_name("kafka.log.1"))
    log.write_text("first of the new\n", encoding="utf-8")
    assert texts(lines) == ["last of the old", "first of the new"]


def test_following_begins_with_a_log_that_does_not_exist_yet(kafka: Server, tmp_path: Path) -> None:
    lines = follow([kafka])
    assert texts(lines) == []
    (tmp_path / "logs" / "kafka.log").write_text("up\n", encoding="utf-8")
    assert texts(lines) == ["up"]
