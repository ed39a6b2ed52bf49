"""`heddle dlq export`, `import` and `adopt`: entries out of a subscription, and into one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import typer

from heddle.broker.log import Reader
from heddle.cli.completion import subscriptions
from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_applying import apply_plan
from heddle.cli.dlq_documents import plan_document
from heddle.cli.dlq_open import broker_of, loaded, opened, subscriptions_of
from heddle.cli.dlq_options import Apply, AsJson, Reason, Typed, selects
from heddle.cli.dlq_output import counted, print_json, reading_progress
from heddle.cli.dlq_plan_output import print_changed, print_plan
from heddle.cli.dlq_transfer_output import (
    adoption_document,
    import_document,
    print_adoption,
    print_import,
    print_new_entries,
)
from heddle.cli.main import errors, out
from heddle.contracts import ConfluentRegistry
from heddle.delivery.command import Action
from heddle.errors import UsageError
from heddle.integration import Source
from heddle.operations.dead_letters.adopt import adoption
from heddle.operations.dead_letters.entries import EntryView, Shelf, each_entry, named_shelves
from heddle.operations.dead_letters.foreign import Format
from heddle.operations.dead_letters.hiding import body_hiding
from heddle.operations.dead_letters.importing import Gathered, imported_meanwhile, limits_of, present_in
from heddle.operations.dead_letters.payloads import Payloads
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.reveal import note_reveal
from heddle.operations.dead_letters.select import Selection, selection
from heddle.operations.dead_letters.session import DeadLettersChangedError, Session
from heddle.operations.dead_letters.transfer import export_lines, import_plan, read_lines
from heddle.operators import OperatorKey
from heddle.project import Project

Subscription = Annotated[
    str, typer.Argument(metavar="SUBSCRIPTION", help="Whose entries they become.", autocompletion=subscriptions)
]


class Made(NamedTuple):
    """A plan, how it is shown, and what `--json` has beside it."""

    plan: ReplayPlan
    show: Callable[[], None]
    document: dict[str, Any]


@dlq_app.command()
@selects
def export(typed: Typed, reason: Reason = "") -> None:
    """Write entries to standard output, a JSON line each.

    All that is known of them, their bytes as base64. They stay where they are. Where a contract classifies fields,
    --reason is needed; who took them out, when and why is kept in the audit trail.

    Example: heddle dlq export ledger --fingerprint 3f2a > entries.jsonl

    Exit codes: 0 written (also when there is none), 2 usage, 5 a dependency does not answer."""
    project, settings = loaded()
    broker = broker_of(settings)
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader:
        shelves = named_shelves(admin, subscriptions_of(project), typed.selection.names)
        with closing(ConfluentRegistry(settings)) as registry:
            chosen = [(shelf, _chosen(reader, shelf, typed.selection, Payloads(registry))) for shelf in shelves]
        _need_reason(project, chosen, reason)
        for shelf, views in chosen:
            if reason and views and shelf.subscription.name in project.components:
                note_reveal(broker, shelf, views, reason, OperatorKey.load())
        _write(reader, chosen)


@dlq_app.command("import")
def import_entries(
    context: typer.Context,
    subscription: Subscription,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; - reads standard input.")],
    apply: Apply = "",
    reason: Reason = "",
    json: AsJson = False,
) -> None:
    """Make entries of the lines that `export` wrote.

    Byte by byte the same. Shows a plan; nothing is done without --apply. If one line cannot be read, nothing is.
    Imported entries are dead until somebody replays them, and hold nothing up. Importing twice makes one entry.

    Example: heddle dlq import ledger entries.jsonl

    Exit codes: 0 done, 1 nothing to import, or not all of it as asked, 2 usage, 5 no worker or broker answers."""

    path = file if file == "-" else str(Path(file).absolute())  # the process moves to the project's root

    def make(session: Session) -> Made:
        with _opened(path) as lines_file:
            lines = read_lines(lines_file)
        with reading_progress() as tell:
            gathered = Gathered(
                session.shelf,
                present_in(session.reader, session.shelf, tell),
                limits_of(session.admin, session.shelf),
            )
        made = import_plan(gathered, lines, session.header(Action.IMPORT))
        return Made(made.plan, lambda: print_import(made), import_document(made))

    _act(Typed(selection([subscription]), context), subscription, apply, reason, json, make)


@dlq_app.command()
def adopt(
    context: typer.Context,
    subscription: Subscription,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where the other system parks its records.")],
    written_by: Annotated[
        Format | None, typer.Option("--format", help="Who wrote them. Default: told from each record's headers.")
    ] = None,
    apply: Apply = "",
    reason: Reason = "",
    json: AsJson = False,
) -> None:
    """Make entries of another system's dead letters.

    Of what Spring Kafka, Kafka Connect, Kafka Streams or a share group has given up. Shows a plan; nothing is done
    without --apply, and never anything to TOPIC. A header that cannot be read is said to be unreadable. Adopted
    entries are dead until somebody replays them. Adopting twice makes one entry.

    Example: heddle dlq adopt deal-to-invoice orders-dlt

    Exit codes: 0 done, 1 nothing to adopt, or not all of it as asked, 2 usage, 5 no worker or broker answers."""

    def make(session: Session) -> Made:
        with reading_progress() as tell:
            header = session.header(Action.IMPORT)
            found = adoption(session.admin, session.reader, session.shelf, header, topic, written_by, tell)
        return Made(found.plan, lambda: print_adoption(found), adoption_document(found))

    _act(Typed(selection([subscription]), context), subscription, apply, reason, json, make)


def _act(
    typed: Typed, subscription: str, plan_hash: str, reason: str, as_json: bool, make: Callable[[Session], Made]
) -> None:
    with opened(typed.selection, plan_hash) as (session, kept):
        if plan_hash:
            plan = _expected(session, subscription, plan_hash, kept, make)
            raise typer.Exit(apply_plan(session, plan, reason, as_json=as_json))
        made = make(session)
        _show(typed, session, made, as_json)
    raise typer.Exit(0 if made.plan.targets else 1)


def _expected(
    session: Session, subscription: str, plan_hash: str, kept: ReplayPlan | None, make: Callable[[Session], Made]
) -> ReplayPlan:
    """The plan of that hash: as it was kept here, else made again; with nothing imported since."""
    plan = kept or make(session).plan
    if plan.header.subscription != subscription or plan.header.action is not Action.IMPORT:
        raise UsageError(f"the plan {plan_hash} is not one to import into {subscription}")
    if plan.hash != plan_hash:
        raise DeadLettersChangedError(
            f"the same arguments give the plan {plan.hash} now, not {plan_hash}",
            hint="look at the new plan: leave --apply out",
        )
    changed = imported_meanwhile(plan, present_in(session.reader, session.shelf))
    if changed:
        print_changed(changed)
        raise DeadLettersChangedError(
            f"{len(changed)} of {len(plan.targets)} records were imported since the plan was made",
            changed,
            hint="plan again: leave --apply out",
        )
    return plan


def _show(typed: Typed, session: Session, made: Made, as_json: bool) -> None:
    plan, hiding = made.plan, body_hiding(session.component)
    line = typed.to_apply(plan.hash)
    if plan.targets:
        session.files.save(plan)
    if as_json:
        print_json(plan_document(plan, hiding) | made.document | {"apply": line})
        return
    print_plan(plan, hiding)
    made.show()
    if plan.targets:
        print_new_entries(plan, has_identities=isinstance(session.component, Source))
        out.print(f"\nplan {plan.hash}\nTo do it, and nothing else:\n  {line}", markup=False, soft_wrap=True)


def _chosen(reader: Reader, shelf: Shelf, chosen: Selection, payloads: Payloads) -> list[EntryView]:
    with reading_progress() as tell:
        every = each_entry(reader, shelf, range(shelf.partitions), keep_bodies=chosen.needs_records, on_progress=tell)
        return [
            replace(view, record=None)
            for view in every
            if chosen.matches(view, payloads.value_of) and not view.state.is_marker
        ]


def _need_reason(project: Project, chosen: list[tuple[Shelf, list[EntryView]]], reason: str) -> None:
    for shelf, views in chosen:
        component = project.components.get(shelf.subscription.name)
        if views and not reason and component is not None and body_hiding(component).masking:
            raise UsageError(
                f"the contract of {component.name} classifies fields, and an export holds them",
                hint="say why, for whoever reads the audit trail: --reason TEXT",
            )


def _write(reader: Reader, chosen: list[tuple[Shelf, list[EntryView]]]) -> None:
    written = 0
    for shelf, views in chosen:
        for line in export_lines(reader, shelf, views):
            sys.stdout.buffer.write(line)
            written += 1
    sys.stdout.buffer.flush()
    gone = sum(len(views) for _, views in chosen) - written
    changed = f"; {gone:,} changed meanwhile and are not among them" if gone else ""
    errors.print(f"{counted(written)} written{changed}", markup=False)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened_file:
            yield opened_file
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
