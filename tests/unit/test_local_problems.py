"""A server that cannot start is explained, not just reported."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from heddle.local.problems import DamagedCacheError, explain_death, explain_oserror

# What the servers print, as seen.
SEEN = [
    ("java.io.IOException: No space left on device", "the disk is full"),
    ('FATAL:  could not write to file "pg_wal/xlogtemp.1": No space left on device', "the disk is full"),
    (
        "# There is insufficient memory for the Java Runtime Environment to continue.",
        "enough memory",
    ),
    ("Error: Could not reserve enough space for 262144KB object heap", "enough memory"),
    ("Terminating due to java.lang.OutOfMemoryError: Java heap space", "enough memory"),
    ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", "enough memory"),
    ("java.net.BindException: Address already in use", "port was taken"),
    ('LOG:  could not bind IPv4 address "127.0.0.1": Address already in use', "port was taken"),
    ("initdb: error: could not look up effective user ID 4711: user does not exist", "no entry in the user database"),
    ("java.nio.file.AccessDeniedException: /data: Permission denied", "refused access"),
    ("FATAL:  database files are incompatible with server", "another version"),
]


@pytest.mark.parametrize(("printed", "cause"), SEEN)
def test_known_last_words_become_a_cause_and_a_next_step(printed: str, cause: str, tmp_path: Path) -> None:
    output = tmp_path / "server.out"
    output.write_text(f"some lines before\n{printed}\nand after\n", encoding="utf-8")
    error = explain_death("kafka", 1, [output])
    assert cause in str(error)
    assert error.hint


def test_a_broken_program_file_is_its_own_kind(tmp_path: Path) -> None:
    output = tmp_path / "kafka.out"
    output.write_text("Caused by: java.lang.ClassNotFoundException: kafka.Kafka\n", encoding="utf-8")
    assert isinstance(explain_death("kafka", 1, [output]), DamagedCacheError)


def test_an_unknown_death_gives_its_last_words_and_the_folder_to_read(tmp_path: Path) -> None:
    output = tmp_path / "registry.out"
    output.write_text("starting\nERROR something new\n\tat a.b.c(d)\nbye\n", encoding="utf-8")
    error = explain_death("registry", 3, [tmp_path / "absent", output])
    assert str(error) == "registry ended with code 3 while it started: ERROR something new"
    assert str(tmp_path) in error.hint


def test_a_kill_without_words_points_at_memory(tmp_path: Path) -> None:
    assert "memory" in str(explain_death("kafka", -9, [tmp_path / "absent"]))


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.ENOMEM, "not enough memory"), (errno.EACCES, "may not be used here")],
)
def test_refusals_of_the_system_are_explained(number: int, words: str) -> None:
    error = explain_oserror("postgres", OSError(number, "refused", "/somewhere/postgres"))
    assert words in str(error)
    assert error.hint


def test_a_program_on_a_noexec_disk_gets_that_hint() -> None:
    assert "noexec" in explain_oserror("kafka", PermissionError(errno.EACCES, "Permission denied", "/x/java")).hint
