"""A plan on its way to the owners, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from heddle.cli.dlq_documents import receipt_document
from heddle.cli.dlq_output import print_json
from heddle.cli.dlq_plan_output import print_changed, print_receipt
from heddle.cli.main import errors, out
from heddle.operations.dead_letters.jobs import checked_reason, first_command
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.pursuit import End, OnProgress, Pursuit
from heddle.operations.dead_letters.pursuit import Progress as Pursued
from heddle.operations.dead_letters.receipt import Receipt
from heddle.operations.dead_letters.session import DeadLettersChangedError, Session
from heddle.operators import OperatorKey

NO_ANSWER = 5
LEFT = 130

_TOLD = {
    End.CANARY_FAILED: "the canary did not succeed whole: nothing more was sent",
    End.NO_WORKER: "no worker of this subscription runs; the job waits for one: `heddle run` starts it",
    End.WAITS_FOR_APPROVAL: "the job waits for the signature of another operator",
}


def apply_plan(session: Session, plan: ReplayPlan, reason: str, *, as_json: bool) -> int:
    """Blocks until all is accounted for; returns the exit code. Ctrl-C leaves, and the job goes on.

    Raises `DeadLettersChangedError` when the entries are not any more what the plan saw."""
    reason = checked_reason(reason)
    key = OperatorKey.load()
    try:
        session.check_unchanged(plan)
    except DeadLettersChangedError as error:
        print_changed(error.changed)
        raise
    with closing(Pursuit(session.broker, session.shelf, plan, first_command(plan, reason), key)) as pursuit:
        end = _pursued(pursuit, as_json)
        _report(pursuit, end, len(plan.targets), as_json)
        return exit_code(pursuit.receipt, end)


def exit_code(receipt: Receipt, end: End | None) -> int:
    """0 done, or waiting for another's signature; 1 not all of it as asked; 5 nobody answers; 130 left by Ctrl-C."""
    if end is None:
        return LEFT
    if end is End.NO_WORKER:
        return NO_ANSWER
    return 1 if receipt.failed or end is End.CANARY_FAILED else 0


def _pursued(pursuit: Pursuit, as_json: bool) -> End | None:
    """None: somebody has left."""
    try:
        with _bar(pursuit.job, as_json) as show:
            return pursuit.run(show)
    except KeyboardInterrupt:
        return None


def _report(pursuit: Pursuit, end: End | None, planned: int, as_json: bool) -> None:
    if as_json:
        print_json(receipt_document(pursuit.receipt, planned) | {"end": end and str(end)})
    else:
        print_receipt(pursuit.receipt, planned)
    if end in _TOLD:
        errors.print(_TOLD[end], style="yellow", markup=False)
    if end is End.WAITS_FOR_APPROVAL:
        errors.print(f"  heddle dlq approve {pursuit.job}", markup=False)
    elif end is None:
        errors.print(_left(len(pursuit.receipt.targets), planned), style="yellow", markup=False)
    if end is not End.COMPLETE:
        errors.print(f"  heddle dlq jobs {pursuit.job}", markup=False)
    elif not as_json:
        out.print(f"job {pursuit.job} is complete", markup=False)


def _left(sent: int, planned: int) -> str:
    if not sent:
        return "you left before it was known whether anything was sent"
    rest = planned - sent
    if rest:
        return f"what was sent goes on without you; {rest:,} of {planned:,} were not sent: plan them again"
    return "the job goes on without you"


@contextmanager
def _bar(job: str, as_json: bool) -> Iterator[OnProgress]:
    """On a terminal a bar with counts. Elsewhere nothing until the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = as_json or not errors.is_terminal
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=errors, disable=quiet) as bar:
        task = bar.add_task(f"job {job}", total=None, told="")

        def show(progress: Pursued) -> None:
            receipt = progress.receipt
            told = ", ".join(f"{count:,} {result}" for result, count in receipt.counts.items())
            if progress.aborted:
                told += "; too many failed: cancelled"
            bar.update(task, total=progress.planned, completed=len(receipt.accounts), told=told)

        yield show
