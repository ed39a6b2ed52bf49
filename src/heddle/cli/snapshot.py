"""`heddle snapshot`: read the rows of captured tables again."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from heddle.broker.kafka import KafkaBroker
from heddle.cli.completion import subscriptions
from heddle.cli.main import app, out
from heddle.errors import UsageError
from heddle.operations.restart import restart_source
from heddle.project import load_project
from heddle.settings import load_settings, need
from heddle.sources.outbox import OutboxSource
from heddle.sources.postgres import PostgresSource
from heddle.telemetry.logs import configure_logs


@app.command()
def snapshot(
    source: Annotated[str, typer.Argument(help="Name of a captured database's source.", autocompletion=subscriptions)],
    table: Annotated[list[str] | None, typer.Option("--table", help="schema.table; may be given again.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Give the slot up, and read every table.")] = False,
) -> None:
    """Read the rows of captured tables again, as events.

    With --table the running source does it beside the stream, in order for each row; the wish is written into the
    database's log. With --restart the stopped source gives up its position: when it starts, it drops its slot, makes a
    new one, and reads every table; of an outbox it publishes all that the table holds. What was deleted while nobody
    listened is not told by either.

    Example: heddle snapshot erp --table public.customer

    Exit codes: 0 asked for, 2 usage, 3 the source runs, 5 a dependency does not answer, 6 credentials are refused."""
    project = load_project()
    os.chdir(project.root)
    component = project.component(source)
    if not isinstance(component, PostgresSource | OutboxSource):
        raise UsageError(f"{source} reads no database", hint="name a PostgresSource, or an OutboxSource with --restart")
    if bool(table) == restart:
        raise UsageError("say either --table or --restart")
    if table and not isinstance(component, PostgresSource):
        raise UsageError(f"{source} has one table alone", hint="--restart reads all that its outbox holds")
    settings = load_settings()
    configure_logs(settings)
    for name in table or ():
        assert isinstance(component, PostgresSource)
        component.request_snapshot(name)
        out.print(f"asked for {name}: `heddle run {source}` reads it", markup=False)
    if restart:
        need(settings, "bootstrap_servers")
        restart_source(component, KafkaBroker(settings))
        out.print(f"{source} begins anew when it starts", markup=False)
