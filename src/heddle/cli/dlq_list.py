"""`heddle dlq list`: what failed, how much of it, and since when."""

from __future__ import annotations

import gc
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Any

import orjson
import typer

from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_open import broker_of, loaded, subscriptions_of
from heddle.cli.dlq_options import AsJson, Typed, selects
from heddle.cli.dlq_output import groups_document, page_document, print_groups, print_page, reading_progress
from heddle.cli.printable import plain_json
from heddle.contracts import ConfluentRegistry
from heddle.operations.dead_letters.entries import EntryView, named_shelves
from heddle.operations.dead_letters.groups import GroupBy, group
from heddle.operations.dead_letters.listing import Page, Reading
from heddle.operations.dead_letters.masking import Masking, contracts_of
from heddle.operations.dead_letters.payloads import Payloads
from heddle.operations.dead_letters.select import Selection
from heddle.project import Project
from heddle.settings import Settings


@dlq_app.command("list")
@selects
def list_entries(
    typed: Typed,
    group_by: Annotated[
        GroupBy | None, typer.Option("--group-by", help="Count all of them by what they have in common.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Entries to show.")] = 50,
    json: AsJson = False,
) -> None:
    """List what failed: how much, since when, and the newest entries.

    Example: heddle dlq list ledger --group-by fingerprint

    Exit codes: 0 listed (also when there is none), 2 an option cannot be read, 5 a dependency does not answer."""
    project, settings = loaded()
    page = _read(project, settings, typed.selection, None if group_by else limit)
    if group_by is None:
        page = replace(page, entries=[_listed(view, project) for view in page.entries])
        if json:
            _print_json(page_document(page))
        else:
            print_page(page, project.components)
        return
    groups = group(page.entries, group_by)
    for each in groups:
        if each.example is not None:
            each.example = _listed(each.example, project)
            each.value = (each.example.key_text or "") if group_by is GroupBy.KEY else each.value
    runbooks = {name: component.runbook for name, component in project.components.items()}
    if json:
        _print_json(groups_document(page, groups, group_by, runbooks))
    else:
        print_groups(page, groups, group_by, runbooks)


def _print_json(document: dict[str, Any]) -> None:
    """A list may be long: written by orjson, which takes all that is in one."""
    typer.echo(plain_json(orjson.dumps(document).decode()))


def _listed(view: EntryView, project: Project) -> EntryView:
    contracts = contracts_of(project.components.get(view.subscription))
    return Masking.of(contracts).listed(view, contracts)


def _read(project: Project, settings: Settings, selection: Selection, limit: int | None) -> Page:
    broker = broker_of(settings)
    with closing(broker.admin()) as admin:
        shelves = named_shelves(admin, subscriptions_of(project), selection.names)
    gc.disable()  # entries hold no cycles, and to look for some in a hundred thousand of them takes a while
    with closing(ConfluentRegistry(settings)) as registry, reading_progress() as tell:
        return Reading(broker, selection, Payloads(registry).value_of, tell).page(shelves, limit)
