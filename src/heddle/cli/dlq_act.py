"""`heddle dlq replay`, `retry-now`, `discard`, `settle` and `edit`: a plan first, then by its hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from heddle.cli.dlq import dlq_app
from heddle.cli.dlq_applying import apply_plan
from heddle.cli.dlq_documents import dry_run_document, plan_document
from heddle.cli.dlq_editor import editor_change
from heddle.cli.dlq_jobs import approve_job
from heddle.cli.dlq_open import opened
from heddle.cli.dlq_options import (
    Apply,
    ApproveJob,
    AsJson,
    Canary,
    DryRun,
    MaxFailed,
    Rate,
    Reason,
    Typed,
    selects,
)
from heddle.cli.dlq_output import print_json
from heddle.cli.dlq_plan_output import print_dry_run, print_plan
from heddle.cli.main import out
from heddle.delivery.command import Action, PlanHeader
from heddle.delivery.envelope import State
from heddle.errors import UsageError
from heddle.operations.dead_letters.dry_run import DryRun as DryRunResult
from heddle.operations.dead_letters.dry_run import dry_run
from heddle.operations.dead_letters.dry_steps import open_runner
from heddle.operations.dead_letters.edit import settings_change
from heddle.operations.dead_letters.hiding import body_hiding, effect_hiding
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse
from heddle.operations.dead_letters.patching import patch_of
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.select import Selection
from heddle.operations.dead_letters.session import ChangeOf, DeadLettersChangedError, Edits, Session

MAX_PATCH_CHARS = 2**20

_OPTIONS = {
    "rate_per_s": "--rate", "max_failed": "--max-failed", "settle_as": "--as", "run": "--replay", "canary": "--canary",
}  # fmt: skip


class SettleAs(StrEnum):
    APPLIED = "applied"
    NOT_APPLIED = "not-applied"


@dataclass(frozen=True)
class Ask:
    """What was typed. `header`: the settings of a plan's header; `change_of`: for edits, asked only when planning."""

    action: Action
    typed: Typed
    apply: str
    reason: str
    dry_run: bool
    json: bool
    approve: str = ""
    canary: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    change_of: Callable[[Session], ChangeOf] | None = None
    newest: bool = False


@dlq_app.command()
@selects
def replay(
    typed: Typed, apply: Apply = "", reason: Reason = "", dry_run: DryRun = False, rate: Rate = 0.0,
    canary: Canary = 0, max_failed: MaxFailed = 1.0, approve: ApproveJob = "", json: AsJson = False,
) -> None:  # fmt: skip
    """Run entries again now, in the order of their keys.

    Shows a plan; nothing is done without --apply. What has taken effect already does not take effect twice.

    Example: heddle dlq replay ledger --fingerprint 3f2a --dry-run

    Exit codes: 0 done, 1 something failed again, was refused or cancelled, 2 usage, 5 no worker or broker answers."""
    header = {"rate_per_s": rate, "max_failed": max_failed}
    _act(Ask(Action.REPLAY, typed, apply, reason, dry_run, json, approve, canary, header))


@dlq_app.command("retry-now")
@selects
def retry_now(
    typed: Typed, apply: Apply = "", reason: Reason = "", dry_run: DryRun = False, rate: Rate = 0.0,
    canary: Canary = 0, max_failed: MaxFailed = 1.0, approve: ApproveJob = "", json: AsJson = False,
) -> None:  # fmt: skip
    """Run entries that wait for their next try, before its time.

    Example: heddle dlq retry-now ledger --class transient

    Exit codes: as `replay`."""
    typed = typed.of_state(State.RETRYING)
    header = {"rate_per_s": rate, "max_failed": max_failed}
    _act(Ask(Action.REPLAY, typed, apply, reason, dry_run, json, approve, canary, header))


@dlq_app.command()
@selects
def discard(
    typed: Typed, apply: Apply = "", reason: Reason = "", canary: Canary = 0, approve: ApproveJob = "",
    json: AsJson = False,
) -> None:  # fmt: skip
    """Give entries up: they never take effect.

    What waits behind them runs then. A rewind does not bring them back.

    Example: heddle dlq discard ledger/3-1042 --apply HASH --reason "test order, agreed with finance"

    Exit codes: as `replay`."""
    _act(Ask(Action.DISCARD, typed, apply, reason, False, json, approve, canary))


@dlq_app.command()
@selects
def settle(
    typed: Typed,
    as_: Annotated[SettleAs | None, typer.Option("--as", help="What somebody found out at the target.")] = None,
    apply: Apply = "", reason: Reason = "", approve: ApproveJob = "", json: AsJson = False,
) -> None:  # fmt: skip
    """Decide what nobody knows: whether the target has acted.

    applied: it has, the entry is done. not-applied: it has not, the entry runs again.

    Example: heddle dlq settle payments/0-77 --as applied

    Exit codes: as `replay`."""
    if as_ is None and not (apply or approve):
        raise UsageError("--as is missing", hint="look at the target, then say --as applied or --as not-applied")
    header = {} if as_ is None else {"settle_as": str(as_)}
    typed = typed.of_state(State.UNKNOWN)
    _act(Ask(Action.SETTLE, typed, apply, reason, False, json, approve, 0, header))


@dlq_app.command()
@selects
def edit(
    typed: Typed,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="For example lines[0].product='GTX Pro'.")
    ] = None,
    patch: Annotated[
        Path | None, typer.Option("--patch", metavar="FILE", help="JSON merge patch, or a list of RFC 6902 operations.")
    ] = None,
    newest: Annotated[
        bool, typer.Option("--newest", help="Write it under the contract's newest version, not under its own.")
    ] = False,
    run: Annotated[bool, typer.Option("--replay", help="And run the entries at once.")] = False,
    apply: Apply = "", reason: Reason = "", dry_run: DryRun = False, rate: Rate = 0.0, canary: Canary = 0,
    max_failed: MaxFailed = 1.0, approve: ApproveJob = "", json: AsJson = False,
) -> None:  # fmt: skip
    """Correct the body of entries; the original stays beside it.

    One entry opens in $EDITOR as JSON; --set and --patch change one or many. What does not pass the contract is
    refused with the field.

    Example: heddle dlq edit deal-to-invoice --fingerprint 3f2a --set product='GTX Pro' --replay --dry-run

    Exit codes: as `replay`."""
    header = {"run": run, "rate_per_s": rate, "max_failed": max_failed} if run else {}
    change = _change_of(set_ or [], patch, typed.selection)
    _act(Ask(Action.EDIT, typed, apply, reason, dry_run, json, approve, canary, header, change, newest))


def _change_of(settings: list[str], patch: Path | None, selection: Selection) -> Callable[[Session], ChangeOf]:
    if settings and patch is not None:
        raise UsageError("--set and --patch do not go together", hint="put all of it into the patch")
    if patch is not None:
        change = patch_of(_parsed(patch))
        return lambda _: lambda _: change
    if settings:
        return lambda _: settings_change(settings)
    return lambda session: editor_change(session, selection)


def _parsed(path: Path) -> Any:
    try:
        return parse(_read(path))
    except InvalidJsonError as error:
        raise UsageError(f"--patch {path}: {error}", hint=error.hint or "correct its JSON") from error


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_PATCH_CHARS + 1)
        if len(text) > MAX_PATCH_CHARS:
            raise UsageError(f"--patch {path} is larger than {MAX_PATCH_CHARS // 2**20} MiB")
        return text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--patch {path}: {error}") from error


def _act(ask: Ask) -> None:
    if ask.approve:
        approve_job(ask.approve, as_json=ask.json)
        return
    if ask.apply and ask.dry_run:
        raise UsageError("--dry-run and --apply do not go together", hint="leave --apply out, and nothing is done")
    with opened(ask.typed.selection, ask.apply) as (session, kept):
        if ask.apply:
            plan = _expected(session, ask, kept)
            raise typer.Exit(apply_plan(session, plan, ask.reason, as_json=ask.json))
        plan, edits = _planned(session, ask)
        tried = _tried(session, plan, edits) if ask.dry_run and plan.targets else None
        _show(session, ask, plan, edits, tried)
    failed = not plan.targets or (edits is not None and edits.refused) or (tried is not None and tried.fails)
    raise typer.Exit(1 if failed else 0)


def _planned(session: Session, ask: Ask) -> tuple[ReplayPlan, Edits | None]:
    change_of = None if ask.change_of is None else ask.change_of(session)
    header = session.header(ask.action, **ask.header)
    return session.plan(header, ask.typed.selection, ask.canary, change_of, ask.newest)


def _expected(session: Session, ask: Ask, kept: ReplayPlan | None) -> ReplayPlan:
    """The plan of that hash: as it was kept here, else made again from the same arguments."""
    plan = kept
    if plan is None:
        if ask.typed.selection.is_empty and not ask.typed.selection.subscriptions:
            raise UsageError(
                f"no plan {ask.apply} was made here", hint="repeat the whole command that made it, with --apply"
            )
        plan, _ = _planned(session, ask)
        if plan.hash != ask.apply:
            raise DeadLettersChangedError(
                f"the same arguments give the plan {plan.hash} now, not {ask.apply}",
                hint="look at the new plan: leave --apply out",
            )
    if plan.header.action is not ask.action:
        raise UsageError(
            f"the plan {ask.apply} is one to {plan.header.action}, not to {ask.action}",
            hint=f"repeat the command that made it, or leave --apply out to plan to {ask.action}",
        )
    _check_asked(ask, plan)
    return plan


def _check_asked(ask: Ask, plan: ReplayPlan) -> None:
    """A plan is applied as it is: what was typed beside its hash must not say anything else."""
    names, header = ask.typed.selection.names, plan.header
    if names and header.subscription not in names:
        raise UsageError(f"the plan {ask.apply} is one for {header.subscription}, not for {', '.join(names)}")
    asked = PlanHeader(header.subscription, ask.action, **ask.header)
    unset = PlanHeader(header.subscription, ask.action)
    other = [name for name in ask.header if getattr(asked, name) not in (getattr(unset, name), getattr(header, name))]
    if ask.canary and not any(part.canary for part in plan.slices):
        other.append("canary")
    if other:
        options = ", ".join(_OPTIONS[name] for name in other)
        raise UsageError(f"the plan {ask.apply} was made with another {options}", hint="plan again: leave --apply out")


def _tried(session: Session, plan: ReplayPlan, edits: Edits | None) -> DryRunResult:
    parts = (session.component, session.project, session.registry, session.settings, session.admin, session.reader)
    with open_runner(*parts) as runner:
        return dry_run(plan, runner, session.reader, session.shelf, None if edits is None else edits.bodies)


def _show(session: Session, ask: Ask, plan: ReplayPlan, edits: Edits | None, tried: DryRunResult | None) -> None:
    bodies, effects = body_hiding(session.component), effect_hiding(session.component)
    documents = [] if edits is None else edits.documents
    if plan.targets:
        session.files.save(plan)
    line = ask.typed.to_apply(plan.hash, without="dry_run")
    if ask.json:
        document = plan_document(plan, bodies, documents) | {"apply": line}
        if tried is not None:
            document["dry_run"] = dry_run_document(tried, effects)
        print_json(document)
        return
    print_plan(plan, bodies, documents)
    if tried is not None:
        print_dry_run(tried, effects)
    if plan.targets:
        out.print(f"\nplan {plan.hash}\nTo do it, and nothing else:\n  {line}", markup=False, soft_wrap=True)
