"""The person on call: types commands, reads what they say, and goes on from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

from heddle.cli.shell import shell_line

console = Console(highlight=False)

HEDDLE = Path(sys.executable).with_name("heddle")
"""As installed beside the Python that runs us."""
_INDENT = "  "
_PLAN = re.compile(r"^plan ([0-9a-f]+)$", re.MULTILINE)


class DemoError(Exception):
    """The demo could not go on; the log has the reason."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which paragraphs of an output are shown: the first, the last, and of each mark the first that contains it; of
    each at most so many lines."""

    marks: tuple[str, ...] = ()
    max_lines: int = 9

    def shown(self, lines: Sequence[Text]) -> Iterator[Text]:
        """The lines, and in place of what is left out how many lines that is."""
        keep, left_out = self._kept(lines), 0
        for number, line in enumerate(lines):
            if number in keep:
                yield from _left_out(left_out)
                yield line
            left_out = 0 if number in keep else left_out + 1
        yield from _left_out(left_out)

    def _kept(self, lines: Sequence[Text]) -> set[int]:
        """Numbers of lines; a paragraph comes with the blank line before it."""
        paragraphs = list(_paragraphs(lines))
        wanted = paragraphs[:1] + paragraphs[-1:]
        for mark in self.marks:
            wanted += [p for p in paragraphs if any(mark in lines[n].plain for n in p)][:1]
        return {n for p in wanted for n in (p.start - 1, *p[: self.max_lines])}


def _paragraphs(lines: Sequence[Text]) -> Iterator[range]:
    """Where they begin and end."""
    start = 0
    for number, line in enumerate([*lines, Text()]):
        if not line.plain.strip():
            if start < number:
                yield range(start, number)
            start = number + 1


def _left_out(count: int) -> Iterator[Text]:
    if count:
        yield Text(f"… {count} {'line' if count == 1 else 'lines'} left out", style="dim")


class OnCall:
    """Runs `heddle` in the application's folder. What is typed and what comes back are printed, and logged whole."""

    def __init__(self, folder: Path, log: IO[str]) -> None:
        self._folder = folder
        self._log = log

    def types(self, *arguments: str, cut: Cut | None = None, expects: int = 0) -> str:
        """The command's output, all of it. Raises `DemoError` when it ends with another code than expected."""
        prompt(typed(arguments))
        return self._shown(arguments, *self._run(arguments), cut, expects)

    def types_each(self, *commands: Sequence[str], cut: Cut | None = None) -> list[str]:
        """As in as many terminals: commands that do not wait for each other, shown one after the other."""
        outputs = []
        with ThreadPoolExecutor(len(commands)) as pool:
            for command, run in [(command, pool.submit(self._run, command)) for command in commands]:
                prompt(typed(command))
                outputs.append(self._shown(command, *run.result(), cut, 0))
        return outputs

    def plans(self, *commands: Sequence[str], cut: Cut | None = None) -> list[list[str]]:
        """Shows plans. Returns for each the command that applies it, and nothing else, once a reason stands behind."""
        outputs = self.types_each(*commands, cut=cut)
        return [_applying(command, output) for command, output in zip(commands, outputs, strict=True)]

    def quietly(self, *arguments: str) -> None:
        """A command that nobody types; only the log has its output. Raises `DemoError` when it fails."""
        lines, code = self._run(arguments)
        if code:
            raise DemoError("\n".join([f"`{typed(arguments)}` failed:", *(line.plain for line in lines)]))

    def _shown(self, arguments: Sequence[str], lines: list[Text], code: int, cut: Cut | None, expects: int) -> str:
        show(lines if cut is None else cut.shown(lines))
        if code != expects:
            raise DemoError(f"`{typed(arguments)}` ended with exit code {code}")
        return "\n".join(line.plain for line in lines)

    def _run(self, arguments: Sequence[str]) -> tuple[list[Text], int]:
        lines, code = on_a_terminal([str(HEDDLE), *arguments], self._folder)
        output = "\n".join(line.plain for line in lines)
        self._log.write(f"$ {typed(arguments)}\n{output}\nexit code {code}\n")
        self._log.flush()
        return lines, code


def _applying(command: Sequence[str], output: str) -> list[str]:
    plan = _PLAN.search(output)
    if plan is None:
        raise DemoError(f"`{typed(command)}` printed no plan")
    return [argument for argument in command if argument != "--dry-run"] + ["--apply", plan[1], "--reason"]


def on_a_terminal(command: Sequence[str], folder: Path) -> tuple[list[Text], int]:
    """What a command prints on a terminal as wide as ours, less our margin: standard error first, then its output."""
    ours, theirs = os.openpty()
    environment = os.environ | {
        "COLUMNS": str(max(console.width - len(_INDENT), 40)), "LINES": "1000", "TERM": "xterm-256color",
    }  # fmt: skip
    try:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=errors
            )
            os.close(theirs)
            output = _read_all(ours)
            code = process.wait()
            errors.seek(0)
            text = errors.read() + output
    finally:
        os.close(ours)
    return [Text.from_ansi(line) for line in text.decode(errors="replace").splitlines()], code


def _read_all(terminal: int) -> bytes:
    """To the end, which Linux tells by an error, others by nothing."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def typed(arguments: Sequence[str]) -> str:
    return shell_line(["heddle", *arguments])


def heading(text: str) -> None:
    console.print()
    console.print(text, style="bold", markup=False)


def say(text: str) -> None:
    console.print(text, style="dim" if text.startswith(" ") else None, markup=False)


def prompt(line: str, remark: str = "") -> None:
    """A line as somebody has typed it, to be copied: never broken by us."""
    console.print()
    console.print(f"$ {line}" + (f"  # {remark}" if remark else ""), style="bold", markup=False, soft_wrap=True)


def show(lines: Iterable[Text]) -> None:
    for line in lines:
        line.rstrip()
        console.print(Text(_INDENT) + line if line.plain else line, soft_wrap=True)
