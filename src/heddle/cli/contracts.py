"""`heddle types`, `check`, `plan` and `apply`: from contract files to topics, schemas and tables."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from heddle.broker.kafka import KafkaBroker
from heddle.cli.main import app, out
from heddle.contracts import ConfluentRegistry, load_contracts
from heddle.contracts.types import generate, stale, write
from heddle.delivery.subscription import subscription_of
from heddle.operations.check import check_project, check_sources
from heddle.operations.dead_letter_topics import DeadLetterTopics
from heddle.operations.declared import declared_topics
from heddle.operations.plan import Item, Plan, State, make_plan
from heddle.operations.plan import apply as apply_plan
from heddle.project import load_project
from heddle.root import find_root
from heddle.settings import load_settings, need
from heddle.telemetry.logs import configure_logs

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]

_STYLES = {
    State.IN_ORDER: "green",
    State.MISSING: "yellow",
    State.DIFFERS: "yellow",
    State.INCOMPATIBLE: "red",
    State.REFUSED: "red",
}


@app.command()
def types(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when a file is stale.")] = False,
) -> None:
    """Generate the contracts' Python types.

    They stand in schemas/<domain>/__init__.py, beside the contracts.

    Example: heddle types --check

    Exit codes: 0 up to date or written, 1 stale (with --check) or a contract is invalid."""
    root = find_root()
    files = stale(root) if check else write(root)
    for path in files:
        out.print(f"{'stale' if check else 'wrote'} {path.relative_to(root)}", soft_wrap=True)
    if check and files:
        out.print("run `heddle types`")
        raise typer.Exit(1)
    if not files:
        out.print(f"{len(generate(root))} files up to date")


@app.command()
def check(
    json: AsJson = False,
    sources: Annotated[bool, typer.Option("--sources", help="Ask databases and APIs of sources too.")] = False,
) -> None:
    """Check all that can be known without a broker.

    Contracts, generated types, mappings, and what components refer to. With --sources also whether databases are set
    up to be captured (log level, publication, replica identities, privileges, slots), and what polled APIs announce of
    their end: warnings, with dates.

    Example: heddle check --json

    Exit codes: 0 all is well, or warnings alone, 1 problems were found."""
    problems = check_project()
    if sources and not problems:
        configure_logs(load_settings())
        problems = check_sources()
    if json:
        typer.echo(json_text.dumps({"problems": [problem._asdict() for problem in problems]}))
    for problem in problems if not json else ():
        hint = f" ({problem.hint})" if problem.hint else ""
        kind = "" if problem.severity == "error" else f"{problem.severity}: "
        out.print(f"{problem.file}: {kind}{problem.message}{hint}", markup=False, soft_wrap=True)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(1)
    if not json and not problems:
        out.print("all is well")


@app.command()
def plan(json: AsJson = False) -> None:
    """Show which topics, schemas and tables are missing or differ.

    Example: heddle plan

    Exit codes: 0 nothing to do, 1 changes are pending or refused, 5 a dependency does not answer, 6 one
    refuses our credentials."""
    with _planned() as made:
        if json:
            typer.echo(json_text.dumps(made.document()))
        else:
            _print_plan(made)
        if not made.in_order:
            raise typer.Exit(1)


@app.command()
def apply(
    hash: Annotated[str | None, typer.Argument(help="The plan's hash: refuse to do anything else.")] = None,
    json: AsJson = False,
) -> None:
    """Make topics, schemas and tables as declared.

    Running it again does nothing.

    Example: heddle apply 3f2a9c0d1e4b

    Exit codes: 0 as declared now, 1 refused or the plan has changed, 5 a dependency does not answer, 6 one
    refuses our credentials."""
    done: list[Item] = []

    def report(item: Item) -> None:
        done.append(item)
        if not json:
            out.print(f"{item.kind:<6} {item.name}", markup=False, soft_wrap=True)

    with _planned() as made:
        apply_plan(made, expected=hash or "", done=report)
        if json:
            typer.echo(
                json_text.dumps({"hash": made.hash, "applied": [{"kind": i.kind, "name": i.name} for i in done]})
            )
        else:
            out.print(f"applied {len(done)} changes" if done else "nothing to do")


@contextmanager
def _planned() -> Iterator[Plan]:
    """A fresh plan, and the connections that applying it needs."""
    project = load_project()
    settings = need(load_settings(), "bootstrap_servers", "registry_url")
    configure_logs(settings)
    contracts = load_contracts(project.root)
    broker = KafkaBroker(settings)
    subscriptions = [subscription_of(component) for component in project.components.values()]
    with (
        closing(broker.admin()) as admin,
        closing(broker.reader()) as reader,
        closing(ConfluentRegistry(settings)) as registry,
    ):
        topics = declared_topics(project, contracts, settings)
        dead_letters = DeadLetterTopics(admin, reader, subscriptions)
        yield make_plan(topics, contracts, project.sinks, admin, registry, dead_letters)


def _print_plan(made: Plan) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "name", "state", "change"):
        table.add_column(title, overflow="fold")
    for item in made.items:
        table.add_row(item.kind, item.name, Text(item.state, style=_STYLES[item.state]), Text(_changes(item)))
    out.print(table)
    for orphan in made.orphans:
        out.print(f"{orphan}\n  {orphan.hint}", markup=False, soft_wrap=True)
    if made.in_order:
        out.print("nothing to do")
    elif made.blocked:
        out.print(f"{len(made.blocked)} refused: correct the declarations; `heddle apply` does nothing until then")
    else:
        out.print(f"{len(made.pending)} to change: `heddle apply {made.hash}`")


def _changes(item: Item) -> str:
    """What is new in one sentence, what changes one line each, and of SQL the first line: `--json` has it all."""
    details = [detail.partition("\n")[0].removesuffix(" (") for detail in item.details]
    lines = [", ".join(details)] if item.state is State.MISSING else details
    return "\n".join((*lines, *(f"note: {note}" for note in item.notes)))
