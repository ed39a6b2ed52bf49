"""`heddle dlq show`: one entry whole."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from heddle.broker.log import Broker
from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_open import broker_of, loaded, subscriptions_of
from heddle.cli.dlq_options import AsJson, Reason
from heddle.cli.dlq_output import print_json, reading_progress
from heddle.cli.dlq_show_output import explanation_document, print_explanation
from heddle.contracts import ConfluentRegistry
from heddle.errors import UsageError
from heddle.operations.dead_letters.entries import named_shelves
from heddle.operations.dead_letters.explain import explain
from heddle.operations.dead_letters.finding import FoundEntry, find_entry
from heddle.operations.dead_letters.history import History, history_of
from heddle.operations.dead_letters.reveal import note_reveal
from heddle.operations.dead_letters.select import EntryName, entry_name
from heddle.operators import OperatorKey
from heddle.project import Project


@dlq_app.command()
def show(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="As `list` prints it: deal-to-invoice/3-1042.")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Show classified fields; needs --reason.")] = False,
    reason: Reason = "",
    json: AsJson = False,
) -> None:
    """Show one entry whole: its fields, why it failed, what waits.

    Each field stands beside what the handler expects. Classified ones are masked; --reveal shows them, and who did,
    when and why is kept in the audit trail.

    Example: heddle dlq show deal-to-invoice/3-1042

    Exit codes: 0 shown, 1 there is no such entry, 2 it is named ambiguously, 5 a dependency does not answer."""
    if reason and not reveal:
        raise UsageError("--reason goes with --reveal")
    project, settings = loaded()
    broker = broker_of(settings)
    found, history = _found(broker, project, entry_name(entry))
    component = project.components.get(found.view.subscription)
    with closing(ConfluentRegistry(settings)) as registry:
        if reveal:
            note_reveal(broker, found.shelf, [found.view], reason, OperatorKey.load())
        explained = explain(found, component, registry, reveal=reveal)
    if json:
        print_json(explanation_document(explained, history))
    else:
        print_explanation(explained, history)


def _found(broker: Broker, project: Project, name: EntryName) -> tuple[FoundEntry, History]:
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader, reading_progress() as tell:
        names = [name.subscription] if name.subscription else []
        found = find_entry(reader, named_shelves(admin, subscriptions_of(project), names), name, tell)
        return found, history_of(admin, reader, found.shelf, found.view)
