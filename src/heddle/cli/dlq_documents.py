"""What `--json` of `heddle dlq replay` and its siblings prints: plans, dry runs, receipts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from heddle.operations.dead_letters.differences import ABSENT, Difference
from heddle.operations.dead_letters.dry_run import DryRun, Tried
from heddle.operations.dead_letters.hiding import Hiding
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.receipt import Account, Receipt
from heddle.operations.dead_letters.session import Edited


def plan_document(plan: ReplayPlan, hiding: Hiding, edited: Sequence[Edited] = ()) -> dict[str, Any]:
    """`hiding`: of bodies."""
    header = plan.header
    return {
        "hash": plan.hash,
        "subscription": header.subscription,
        "action": str(header.action),
        "run": header.run,
        "settle_as": header.settle_as,
        "entries": len(plan.targets),
        "heads": plan.heads,
        "keys": plan.keys,
        "followers": plan.followers,
        "rate_per_s": header.rate_per_s,
        "estimated_s": plan.estimated_s,
        "approvals": header.approvals,
        "groups": [group._asdict() for group in plan.groups],
        "targets": [
            {
                "entry": target.entry_id,
                "version": target.version,
                "state": str(target.state),
                "key": hiding.key(target.key),
                "came_along": target.came_along,
            }
            for target in plan.targets
        ],
        "edits": [
            {"entry": edit.entry_id, "differences": _listed(hiding.differences(edit.was, edit.now))} for edit in edited
        ],
        "left_out": [
            {"entry": entry.entry_id, "state": str(entry.state), "reason": entry.reason} for entry in plan.left_out
        ],
    }


def dry_run_document(result: DryRun, hiding: Hiding) -> dict[str, Any]:
    """`hiding`: of effects."""
    return {
        "outcomes": result.outcomes,
        "effects": result.effects,
        "would_fail": [
            {"class": cause.failure_class, "code": cause.code, "path": cause.path, "entries": count}
            for cause, count in result.causes.items()
        ],
        "shown": [_tried_document(tried, hiding) for tried in result.shown],
        "interrupted": None if result.interrupted is None else str(result.interrupted),
    }


def receipt_document(receipt: Receipt, planned: int) -> dict[str, Any]:
    return {
        "job": receipt.job,
        "complete": receipt.is_complete and planned <= len(receipt.targets),
        "planned": planned,
        "sent": len(receipt.targets),
        "missing": receipt.missing,
        "counts": {str(result): count for result, count in receipt.counts.items()},
        "followers": {
            "run": len(receipt.followers),
            "failed_again": sum(not follower.result.is_good for follower in receipt.followers.values()),
        },
        "refusals": sorted(set(receipt.refusals.values())),
        "entries": [_account_document(account) for account in receipt.accounts.values()],
    }


def _tried_document(tried: Tried, hiding: Hiding) -> dict[str, Any]:
    failure = tried.failure
    return {
        "entry": tried.entry_id,
        "outcome": tried.outcome,
        "failure": failure
        and {
            "class": str(failure.failure_class),
            "code": failure.code,
            "path": failure.path,
            "message": failure.message,
        },
        "obstacle": tried.obstacle,
        "effects": [
            {
                "target": effect.target,
                "key": hiding.key(effect.key),
                "new": effect.was is ABSENT,
                "differences": _listed(hiding.differences(effect.was, effect.now)),
            }
            for effect in tried.effects
        ],
    }


def _account_document(account: Account) -> dict[str, Any]:
    return {"entry": account.entry, "result": str(account.result), "code": account.code, "reason": account.reason}


def _listed(found: Iterable[Difference]) -> list[dict[str, Any]]:
    return [
        {"path": path} | ({} if was is ABSENT else {"was": was}) | ({} if now is ABSENT else {"now": now})
        for path, was, now in found
    ]
