"""`heddle rewind`: read records again."""

from __future__ import annotations

import os
from typing import Annotated

import orjson
import typer
from rich.table import Table

from heddle.audit import audit_key
from heddle.broker.kafka import KafkaBroker
from heddle.cli.completion import subscriptions
from heddle.cli.main import app, out
from heddle.delivery.subscription import subscription_of
from heddle.errors import UsageError
from heddle.operations.dead_letters.jobs import checked_reason, os_user
from heddle.operations.destination import Destination
from heddle.operations.inbox_bounds import inbox_bounds
from heddle.operations.plan import PlanChangedError
from heddle.operations.rewind import Move, RewindPlan, plan_rewind
from heddle.operations.rewind_apply import Mandate, apply_rewind
from heddle.operators import OperatorKey, Operators
from heddle.project import Project, load_project
from heddle.settings import Settings, load_settings, need
from heddle.telemetry.logs import configure_logs


@app.command()
def rewind(
    subscription: Annotated[str, typer.Argument(help="Name of a source, flow or sink.", autocompletion=subscriptions)],
    to: Annotated[
        str, typer.Option("--to", metavar="TIME|OFFSETS|earliest", help="2h ago, 2026-03-01T09:30Z, 0=1500,1=1400.")
    ],
    apply: Annotated[str, typer.Option("--apply", metavar="HASH", help="Do what the plan of that hash says.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Let a stopped subscription read records again.

    Shows a plan first. What took effect before is recognised and has none again; to go back further than a sink
    remembers is refused. Applying it needs the subscription's workers stopped, a reason, and your operator key. The
    audit trail keeps the offsets before and after.

    Example: heddle rewind ledger --to 2h

    Exit codes: 0 planned or done, 1 refused, or the plan has changed, 2 usage, 3 its workers run, 5 a dependency does
    not answer, 6 credentials or your key are refused."""
    project = load_project()
    os.chdir(project.root)
    component = project.component(subscription)
    destination = Destination.parse(to)
    settings = need(load_settings(), "bootstrap_servers")
    configure_logs(settings)
    broker, chosen = KafkaBroker(settings), subscription_of(component)
    mandate = _mandate(project, settings, reason) if apply else None
    plan = plan_rewind(broker, chosen, destination, inbox_bounds(chosen, project.components.values()))
    if mandate is not None:
        _check_hash(plan, apply)
        apply_rewind(broker, chosen, plan, mandate, audit_key())
    if json:
        typer.echo(orjson.dumps(plan.document() | {"applied": mandate is not None}))
    elif mandate is None:
        _print_plan(plan)
    else:
        _print_done(plan)


def _mandate(project: Project, settings: Settings, reason: str) -> Mandate:
    operators = Operators.load(project.root, local=settings.local)
    return Mandate(checked_reason(reason), OperatorKey.load(), operators, os_user())


def _check_hash(plan: RewindPlan, expected: str) -> None:
    if not plan.moves:
        raise UsageError(f"{plan.subscription} stands there already", hint="there is nothing to apply")
    if plan.hash != expected:
        raise PlanChangedError(
            f"the plan is {plan.hash} now, not {expected}",
            hint=f"look at it again: heddle rewind {plan.subscription} --to {plan.offsets}",
        )


def _print_plan(plan: RewindPlan) -> None:
    if not plan.moves:
        out.print(f"{plan.subscription} stands there already: nothing would be read again")
        return
    out.print(_table(plan.moves))
    for bound in plan.bounds:
        if bound.is_told:
            since = f"since {bound.before.isoformat()}" if bound.before else "ever"
            _line(f"{bound.sink} knows everything that it has applied {since}: none of it takes effect again")
    for note in plan.notes:
        _line(f"note: {note}")
    if plan.members:
        workers = "1 worker runs" if plan.members == 1 else f"{plan.members} workers run"
        _line(f"{workers}: stop every `heddle run` of {plan.subscription} first, then plan again")
        return
    _line(f"To do it: heddle rewind {plan.subscription} --to {plan.offsets} --apply {plan.hash} --reason TEXT")


def _table(moves: tuple[Move, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("partition", "now", "then", "records"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True)
    table.add_column("of these unattempted")
    for move in moves:
        now = "never begun" if move.now is None else str(move.now)
        kept = [f"{move.unresolved} unresolved"] if move.unresolved else []
        kept += [f"{move.decided} discarded or edited"] if move.decided else []
        table.add_row(str(move.partition), now, str(move.then), str(move.records), move.since, ", ".join(kept))
    return table


def _print_done(plan: RewindPlan) -> None:
    for move in plan.moves:
        _line(f"partition {move.partition}: {'never begun' if move.now is None else move.now} → {move.then}")
    records = sum(move.records for move in plan.moves)
    _line(f"{records} records are read again once it runs: heddle run {plan.subscription}")


def _line(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)
