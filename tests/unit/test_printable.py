"""Text from elsewhere plays no tricks with a terminal, and JSON stays the same document."""

import errno
import json

import pytest
import typer

from heddle.cli import main as cli
from heddle.cli.printable import plain, plain_json, plain_lines
from heddle.errors import HeddleError
from heddle.operations.dead_letters.json_text import render

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b31m\u202etxt\r\x08\x7f"


def test_nothing_unprintable_is_left() -> None:
    assert plain(HOSTILE).isprintable()
    assert plain("Zürich 東京") == "Zürich 東京"
    assert plain_lines(f"one\n{HOSTILE}\ntwo").count("\n") == 2


@pytest.mark.parametrize("text", [HOSTILE, "\U000e0001", "a\nb", "\ud800", "Zürich"])
def test_json_stays_the_same_document(text: str) -> None:
    printed = plain_json(render({"a": text, text: [1]}))
    assert printed.isprintable()
    assert json.loads(printed) == {"a": text, text: [1]}


def test_an_error_that_repeats_hostile_text_is_printed_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        error = HeddleError(f"no {HOSTILE}", hint=HOSTILE)
        error.add_note(HOSTILE)
        raise error

    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr(cli, "COMMAND_MODULES", ())
    monkeypatch.setattr("sys.argv", ["heddle"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


def test_a_full_disk_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr(cli, "COMMAND_MODULES", ())
    monkeypatch.setattr("sys.argv", ["heddle"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert "no space is left" in capsys.readouterr().err
