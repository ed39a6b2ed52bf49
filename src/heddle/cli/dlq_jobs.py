"""`heddle dlq jobs`, `approve` and `cancel`: what was asked of owners, by whom, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from heddle.broker.log import Admin, Broker, Reader
from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_documents import receipt_document
from heddle.cli.dlq_open import broker_of, loaded, subscriptions_of
from heddle.cli.dlq_options import AsJson
from heddle.cli.dlq_output import NARROW, age, counted, print_json
from heddle.cli.dlq_plan_output import print_receipt
from heddle.cli.main import out
from heddle.cli.printable import plain
from heddle.errors import UsageError
from heddle.event import event_time
from heddle.operations.dead_letters.entries import Shelf, shelves_of
from heddle.operations.dead_letters.jobs import (
    Job,
    JobState,
    approval,
    cancellation,
    find_job,
    read_jobs,
    send_to_all,
    state_of,
    workers_of,
)
from heddle.operations.dead_letters.receipt import Receipt
from heddle.operations.dead_letters.select import since_ms
from heddle.operations.dead_letters.trail import receipts_of
from heddle.operators import OperatorKey
from heddle.project import Project

_FAILED = frozenset({JobState.CANCELLED, JobState.EXPIRED, JobState.REFUSED})

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or its beginning.")]


class Clients(NamedTuple):
    project: Project
    broker: Broker
    admin: Admin
    reader: Reader
    shelves: list[Shelf]


class Told(NamedTuple):
    """One job with what came of it."""

    shelf: Shelf
    job: Job
    receipt: Receipt
    state: JobState

    @property
    def failed(self) -> bool:
        return self.state in _FAILED or bool(self.receipt.failed)


@dlq_app.command()
def jobs(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A job's id, or its beginning.")] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Of the list: sent since.")] = "24h",
    json: AsJson = False,
) -> None:
    """Show what was asked of dead letters, and what came of it.

    Without JOB those of the last 24 hours. Looking is free: it reads what the owners have written.

    Example: heddle dlq jobs 4f1c

    Exit codes: 0, or 1 when the one job failed in part, expired, was refused or cancelled."""
    with clients() as all_:
        if job is None:
            found = [told for shelf in all_.shelves for told in _jobs_of(all_, shelf, since_ms(since))]
            found.sort(key=lambda told: -told.job.sent_at_ms)
            _show_list(found, json)
            return
        told = _told(all_, job)
        _show_one(told, json)
    raise typer.Exit(1 if told.failed else 0)


@dlq_app.command()
def approve(job: JobId, json: AsJson = False) -> None:
    """Sign another operator's job.

    Where the project asks for more than one signature.

    `[tool.heddle.approvals]` in pyproject.toml says for which actions. Look first: heddle dlq jobs JOB.
    The same as --approve JOB of the command that made it.

    Example: heddle dlq approve 4f1c

    Exit codes: 0 signed, 2 there is nothing to sign, or not by this key, 5 no broker answers."""
    approve_job(job, as_json=json)


@dlq_app.command()
def cancel(job: JobId, json: AsJson = False) -> None:
    """Stop a job: what has not run yet will not. What is done stays done.

    Example: heddle dlq cancel 4f1c

    Exit codes: 0 the owners are told, 2 there is no such job, 5 no broker answers."""
    with clients() as all_:
        shelf, found, receipt, state = _told(all_, job)
        if receipt.is_complete and not found.unsent:
            raise UsageError(f"job {found.id} is {state}: there is nothing to stop")
        send_to_all(all_.broker, shelf, cancellation(found.commands[0], OperatorKey.load()))
    _say(found, "asked to stop", json)


def approve_job(job_id: str, *, as_json: bool = False) -> None:
    with clients() as all_:
        shelf, found = find_job(all_.reader, all_.shelves, job_id)
        key = OperatorKey.load()
        if found.expires_at_ms < time.time() * 1000:
            raise UsageError(f"job {found.id} has expired", hint="plan and apply it again")
        send_to_all(all_.broker, shelf, approval(found, key))
    _say(found, f"approved by {key.name}", as_json)


@contextmanager
def clients() -> Iterator[Clients]:
    project, settings = loaded()
    with ExitStack() as stack:
        broker = broker_of(settings)
        admin, reader = broker.admin(), broker.reader()
        stack.callback(admin.close)
        stack.callback(reader.close)
        yield Clients(project, broker, admin, reader, shelves_of(admin, subscriptions_of(project)))


def _told(all_: Clients, job_id: str) -> Told:
    shelf, job = find_job(all_.reader, all_.shelves, job_id)
    (receipt,) = receipts_of(all_.reader, shelf, [job])
    return _with_state(all_, shelf, job, receipt)


def _jobs_of(all_: Clients, shelf: Shelf, sent_since_ms: int) -> list[Told]:
    found = read_jobs(all_.reader, shelf, since_ms=sent_since_ms)
    receipts = receipts_of(all_.reader, shelf, found)
    return [_with_state(all_, shelf, job, receipt) for job, receipt in zip(found, receipts, strict=True)]


def _with_state(all_: Clients, shelf: Shelf, job: Job, receipt: Receipt) -> Told:
    now_ms = int(time.time() * 1000)
    return Told(shelf, job, receipt, state_of(job, receipt, workers_of(all_.admin, shelf), now_ms))


def _show_list(found: Sequence[Told], as_json: bool) -> None:
    if as_json:
        print_json([_document(told) for told in found])
        return
    if not found:
        out.print("no jobs; --since looks further back")
        return
    now_ms = time.time() * 1000
    columns = ["job", "sent", "by", "what", "entries", "done", "failed", "state", "reason"]
    wide = out.width >= NARROW
    table = Table(box=None, pad_edge=False)
    for name in columns if wide else columns[:-1]:
        right = name in ("entries", "done", "failed", "sent")
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "job", overflow="fold")
    for told in found:
        table.add_row(*_cells(told, now_ms, wide=wide))
    out.print(table)


def _cells(told: Told, now_ms: float, *, wide: bool) -> Iterator[str | Text]:
    """In a narrow terminal the reason stands below what it is for."""
    receipt, header = told.receipt, told.job.header
    what, reason = Text(f"{header.action} {header.subscription}"), Text(plain(told.job.reason))
    failed = len(receipt.failed)
    yield Text(plain(told.job.id))
    yield f"{age(told.job.sent_at_ms, now_ms)} ago"
    yield Text(plain(", ".join(told.job.signed_by)))
    yield what if wide else Text.assemble(what, "\n", reason)
    yield f"{len(receipt.targets):,}"
    yield f"{len(receipt.accounts) - failed:,}"
    yield f"{failed:,}" if failed else ""
    yield _styled(told)
    if wide:
        yield reason


def _show_one(told: Told, as_json: bool) -> None:
    planned = _planned(told)
    if as_json:
        print_json(_document(told) | {"receipt": receipt_document(told.receipt, planned)})
        return
    job, header = told.job, told.job.header
    run = " and run" if header.run else ""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in (
        ("job", Text(plain(job.id))),
        ("state", _styled(told)),
        ("asked for", f"{header.action}{run} {counted(len(told.receipt.targets))} of {header.subscription}"),
        ("reason", Text(plain(job.reason))),
        ("signed by", Text(plain(f"{', '.join(job.signed_by)} (operating-system user {job.os_user})"))),
        ("approvals", f"{len(job.signed_by)} of {header.approvals}" if header.approvals > 1 else ""),
        ("cancelled by", Text(plain(", ".join(job.cancelled_by)))),
        ("sent", _moment(job.sent_at_ms)),
        ("expires", _moment(job.expires_at_ms)),
        ("plan", job.plan_hash),
        ("not sent", f"{job.unsent} of {len(job.commands[0].slice_hashes)} slices" if job.unsent else ""),
    ):
        if value:
            table.add_row(name, value)
    out.print(table)
    out.print()
    print_receipt(told.receipt, planned)


def _planned(told: Told) -> int:
    """Targets of unsent slices are known to nobody but the plan's file."""
    return len(told.receipt.targets)


def _document(told: Told) -> dict[str, Any]:
    job, receipt = told.job, told.receipt
    return {
        "job": job.id,
        "state": str(told.state),
        "subscription": job.header.subscription,
        "action": str(job.header.action),
        "run": job.header.run,
        "reason": job.reason,
        "signed_by": list(job.signed_by),
        "approvals": job.header.approvals,
        "cancelled_by": list(job.cancelled_by),
        "os_user": job.os_user,
        "sent_at": _moment(job.sent_at_ms),
        "expires_at": _moment(job.expires_at_ms),
        "plan": job.plan_hash,
        "unsent_slices": job.unsent,
        "targets": len(receipt.targets),
        "done": len(receipt.accounts) - len(receipt.failed),
        "failed": len(receipt.failed),
        "pending": receipt.missing,
    }


def _styled(told: Told) -> Text:
    style = "red" if told.failed else "green" if told.state is JobState.DONE else "yellow"
    return Text(str(told.state), style=style)


def _moment(ms: int) -> str:
    return event_time(datetime.fromtimestamp(ms / 1000, UTC))


def _say(job: Job, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"job": job.id, "told": what})
    else:
        typer.echo(f"job {job.id}: {what}; `heddle dlq jobs {job.id}` shows how it is")
