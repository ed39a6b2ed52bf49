"""What `heddle dlq replay` and its siblings print: plans, dry runs, receipts. Names and counts; payloads only where a
dry run was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from heddle.cli.dlq_output import STYLES, age, counted
from heddle.cli.main import out
from heddle.cli.printable import plain
from heddle.operations.dead_letters.differences import ABSENT, Difference
from heddle.operations.dead_letters.dry_run import SHOWN, DryRun, Tried
from heddle.operations.dead_letters.hiding import Hiding
from heddle.operations.dead_letters.json_text import render
from heddle.operations.dead_letters.plan import Changed, LeftOut, Planned, ReplayPlan
from heddle.operations.dead_letters.receipt import Account, Receipt
from heddle.operations.dead_letters.session import Edited

LISTED = 20
_WORDS = {"replay": "replayed", "discard": "discarded", "edit": "edited", "settle": "settled", "import": "imported"}


def print_plan(plan: ReplayPlan, hiding: Hiding, edited: Sequence[Edited] = ()) -> None:
    """What would be done, before it is. `hiding`: of bodies."""
    out.print(Text(_headline(plan), style="bold"))
    for line in _facts(plan):
        out.print(f"  {line}", markup=False)
    if plan.targets:
        out.print()
        out.print(_group_table(plan))
        out.print()
        out.print(_target_table(plan.targets[:LISTED], hiding))
        _print_rest(len(plan.targets), LISTED, "entries")
    for document in edited[:LISTED]:
        out.print(f"\n{document.entry_id}", markup=False, style="bold")
        print_differences(hiding.differences(document.was, document.now))
    _print_rest(len(edited), LISTED, "edits")
    print_left_out(plan.left_out)


def print_left_out(left_out: Sequence[LeftOut]) -> None:
    if left_out:
        out.print(f"\n{len(left_out):,} left out", style="yellow")
        for entry in left_out[:LISTED]:
            out.print(f"  {entry.entry_id}  {plain(entry.reason)}", markup=False)
        _print_rest(len(left_out), LISTED, "entries")


def print_dry_run(result: DryRun, hiding: Hiding) -> None:
    """`hiding`: of effects."""
    out.print(Text("\ndry run, nothing was changed", style="bold"))
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in result.outcomes.items())
    out.print(f"  {told or 'nothing was tried'}; {_count(result.effects, 'effect')}", markup=False)
    for cause, count in sorted(result.causes.items(), key=lambda item: -item[1]):
        where = f" {cause.path}" if cause.path else ""
        told = f"{count:,} would fail: {cause.failure_class} {cause.code}{where}"
        out.print(f"  {plain(told)}", markup=False, style="red")
    for tried in result.shown:
        _print_tried(tried, hiding)
    _print_rest(sum(result.outcomes.values()), SHOWN, "entries")
    if result.interrupted is not None:
        out.print(f"\nnot all were tried: {result.interrupted}", style="red", markup=False)


def print_differences(found: Iterable[Difference]) -> None:
    for difference in found:
        path = plain(difference.path) or "(all)"
        was, now = _value(difference.was), _value(difference.now)
        if difference.was is ABSENT:
            out.print(f"    + {path} = {now}", markup=False, style="green")
        elif difference.now is ABSENT:
            out.print(f"    - {path} = {was}", markup=False, style="red")
        else:
            out.print(f"    ~ {path}: {was} → {now}", markup=False)


def print_changed(changed: Sequence[Changed]) -> None:
    """Why a plan is not applied."""
    for each in changed[:LISTED]:
        out.print(f"  {each.entry_id}  {each.then} → {each.now or 'resolved'}", markup=False)
    _print_rest(len(changed), LISTED, "entries")


def print_receipt(receipt: Receipt, planned: int) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    for result, count in receipt.counts.items():
        table.add_row(f"{count:,}", Text(str(result), style="" if result.is_good else "red"))
    if receipt.missing:
        table.add_row(f"{receipt.missing:,}", "not accounted for yet")
    if planned > len(receipt.targets):
        table.add_row(f"{planned - len(receipt.targets):,}", "not sent")
    out.print(table)
    if receipt.followers:
        bad = sum(not follower.result.is_good for follower in receipt.followers.values())
        failed = f", {bad:,} failed again" if bad else ""
        out.print(f"{len(receipt.followers):,} that waited behind them have run{failed}")
    for reason in sorted(set(receipt.refusals.values())):
        out.print(f"refused: {plain(reason)}", style="red", markup=False)
    _print_accounts([account for account in receipt.accounts.values() if account.code or not account.result.is_good])


def _headline(plan: ReplayPlan) -> str:
    header = plan.header
    done = _WORDS[header.action] + (f" as {header.settle_as}" if header.settle_as else "")
    also = " and run" if header.run else ""
    return f"{counted(len(plan.targets))} of {header.subscription} would be {done}{also}"


def _facts(plan: ReplayPlan) -> list[str]:
    facts = [_count(plan.keys, "key")]
    if plan.heads:
        facts.append(f"{plan.heads:,} come along: earlier entries of a selected one's key, which have to run first")
    if plan.followers:
        facts.append(f"{plan.followers:,} wait behind them and run once these are resolved")
    if plan.estimated_s is not None:
        facts.append(f"about {_duration(plan.estimated_s)} at {plan.header.rate_per_s:g} a second and partition")
    canary = sum(len(part.targets) for part in plan.slices if part.canary)
    if canary:
        facts.append(f"{canary:,} first; the rest once all of these have succeeded")
    if plan.header.approvals > 1:
        facts.append(f"takes the signatures of {plan.header.approvals} operators")
    return facts


def _group_table(plan: ReplayPlan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("entries", justify="right")
    for name in ("class", "code", "fingerprint"):
        table.add_column(name, no_wrap=name == "fingerprint")
    for group in plan.groups[:LISTED]:
        told = (group.failure_class or "not tried yet", group.code, group.fingerprint)
        table.add_row(f"{group.entries:,}", *(Text(plain(text)) for text in told))
    return table


def _target_table(targets: Sequence[Planned], hiding: Hiding) -> Table:
    now_ms = time.time() * 1000
    table = Table(box=None, pad_edge=False)
    for name in ("entry", "state", "key", "age", ""):
        table.add_column(name, justify="right" if name == "age" else "left", no_wrap=name == "entry")
    for target in targets:
        table.add_row(
            Text(plain(target.entry_id)), Text(str(target.state), style=STYLES[target.state]),
            Text(plain(hiding.key(target.key) or "-")), age(target.since_ms, now_ms),
            "comes along" if target.came_along else "",
        )  # fmt: skip
    return table


def _print_tried(tried: Tried, hiding: Hiding) -> None:
    out.print(Text(f"\n{tried.entry_id}  {tried.outcome}", style="bold"))
    if tried.failure is not None:
        where = f" {tried.failure.path}" if tried.failure.path else ""
        told = f"{tried.failure.failure_class} {tried.failure.code}{where}: {tried.failure.message}"
        out.print(f"  {plain(told)}", style="red", markup=False)
    for effect in tried.effects:
        key = f"  {plain(hiding.key(effect.key) or '')}" if effect.key else ""
        out.print(f"  {effect.target}{key}  {'new' if effect.was is ABSENT else ''}", markup=False)
        print_differences(hiding.differences(effect.was, effect.now))
    if tried.obstacle:
        out.print(f"  {plain(tried.obstacle)}", style="yellow", markup=False)
    elif tried.failure is None and not tried.effects:
        out.print("  nothing would change", markup=False)


def _print_accounts(accounts: Sequence[Account]) -> None:
    for account in accounts[:LISTED]:
        code = f"  {account.code}" if account.code else ""
        out.print(f"  {account.entry}  {account.result}{plain(code)}", markup=False)
    _print_rest(len(accounts), LISTED, "entries")


def _print_rest(count: int, shown: int, what: str) -> None:
    if count > shown:
        out.print(f"  … {count - shown:,} more {what}; --json lists all", markup=False, style="dim")


def _value(part: Any) -> str:
    return "" if part is ABSENT else plain(render(part))


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{max(rest, 1)} s"
