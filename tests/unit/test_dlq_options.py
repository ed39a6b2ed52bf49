"""Options shared by several commands, and the command line that applies a plan."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import heddle.cli.dlq_act
import heddle.cli.dlq_jobs  # noqa: F401  # both add their commands to the group
from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_options import Apply, DryRun, Rate, Reason, Typed, selects
from heddle.delivery.envelope import State
from heddle.operations.dead_letters.select import Selection


def _run(*words: str) -> tuple[Selection, dict[str, Any], str]:
    seen: list[Any] = []
    app = typer.Typer()

    @app.callback()
    def main() -> None: ...

    @app.command()
    @selects
    def act(typed: Typed, apply: Apply = "", dry_run: DryRun = False, rate: Rate = 0.0, reason: Reason = "") -> None:
        """Acts."""
        line = typed.to_apply("abc", without="dry_run")
        seen.append((typed.selection, {"apply": apply, "dry_run": dry_run, "rate": rate}, line))

    result = CliRunner().invoke(app, ["act", *words], prog_name="heddle")
    assert result.exit_code == 0, result.output
    (found,) = seen
    return found  # type: ignore[no-any-return]


def test_a_command_gets_the_options_of_list_beside_its_own() -> None:
    selection, own, _ = _run(
        "ledger", "ledger/3-10", "--state", "dead", "--state", "unknown", "--class", "poison", "--rate", "5"
    )
    assert selection.subscriptions == ("ledger",)
    assert [entry.entry_id for entry in selection.entries] == ["3-10"]
    assert selection.states == {State.DEAD, State.UNKNOWN}
    assert (selection.failure_class, own) == ("poison", {"apply": "", "dry_run": False, "rate": 5.0})


def test_the_line_that_applies_a_plan_can_be_typed_as_it_stands() -> None:
    words = (
        "ledger",
        "--where",
        "value.product == 'GTX Pro'",
        "--state",
        "dead",
        "--state",
        "unknown",
        "--dry-run",
        "--rate",
        "2.5",
    )
    *_, line = _run(*words)
    assert line == (
        "heddle act ledger --state dead --state unknown --where \"value.product == 'GTX Pro'\" --rate 2.5"
        " --apply abc --reason '…'"
    )


@pytest.mark.parametrize("command", ["replay", "retry-now", "discard", "settle", "edit", "approve", "jobs", "cancel"])
def test_every_command_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(dlq_app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: heddle dlq {command}" in " ".join(result.output.split())


def test_a_reason_that_was_given_already_is_not_asked_for_again() -> None:
    _, _, line = _run("ledger", "--reason", "the table is mended")
    assert line == "heddle act ledger --reason 'the table is mended' --apply abc"
