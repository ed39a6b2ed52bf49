"""The documentation is true where a machine can tell: commands exist with their options, links lead somewhere, the
table of settings is the code's, and every component has its runbook."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from heddle.cli import main
from heddle.on_failure import DEFAULT, Retry
from heddle.project import load_project

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

_CODE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`(heddle [^`]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands_of(text: str) -> Iterator[str]:
    """`$ heddle …` lines of console blocks, and `heddle …` in running text."""
    for block in _CODE.findall(text):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ heddle "))
    for span in _SPAN.findall(_CODE.sub("", text).replace("\n", " ")):
        if "…" not in span:
            yield span


COMMANDS = sorted({(str(page.relative_to(DOCS)), line) for page in PAGES for line in commands_of(page.read_text())})


@pytest.fixture(scope="module")
def cli() -> Any:
    for name in main.COMMAND_MODULES:
        importlib.import_module(f"heddle.cli.{name}")
    return typer.main.get_command(main.app)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_each_command_exists_with_its_options(cli: Any, page: str, line: str) -> None:
    command, words = cli, shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        assert words, f"{line}: a group alone"
        name = words.pop(0)
        assert name in command.commands, f"{line}: no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known | {"--help"}, f"{line}: no option {used - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_each_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_every_component_has_its_runbook_with_its_owner() -> None:
    for component in load_project(ROOT).components.values():
        text = (DOCS / "runbooks" / f"{component.runbook}.md").read_text()
        assert text.startswith(f"# {component.name}\n")
        assert f"Owner: **{component.owner}**" in text


def test_the_table_of_settings_is_the_codes() -> None:
    text = (DOCS / "how-to" / "choose-a-failure-mode.md").read_text()
    table = text.partition("| setting | default |")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", table, re.MULTILINE))
    assert {name: _number(value) for name, value in told.items()} == dict(_settings(DEFAULT))


def _settings(part: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Retry):
            yield prefix + field.name, value
        elif is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value or "none"


def _number(told: str) -> Any:
    """`86,400 (a day)` and `Retry(tries=12, …)` as the code has them."""
    told = told.strip("`")
    if told.startswith("Retry("):
        return Retry(**{name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", told)})
    number = re.match(r"[\d.,]+", told)
    return float(number[0].replace(",", "")) if number else told
