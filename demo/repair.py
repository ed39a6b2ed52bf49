"""Second act: what could not be processed is looked at, mended, and run again."""

from __future__ import annotations

import signal
import time

from rich.text import Text

from demo.application import PRICE_TABLE, add_price_alias
from demo.oncall import Cut, OnCall, console, heading, prompt, say, show
from demo.workers import Workers

FLOW = "deal-to-invoice"
CUSTOMER = "Condax"
_COLOURS = {"+": "green", "-": "red"}
REASONS = (
    "Negotiating is part of Engaging, says sales",
    "cut off on their way; the CRM knows of no deal in them",
    "the CRM's spelling of GTX Pro",
)
PLAN = Cut(marks=("→", "dry run", "  emitted"))


def repair(workers: Workers, on_call: OnCall) -> None:
    """Resolves every dead letter: edits, a discard, and a corrected price table."""
    began = time.monotonic()
    heading("On call: what could not be processed is parked, by cause")
    fingerprint = fingerprint_of(on_call.types("dlq", "list", "--group-by", "fingerprint"), FLOW)
    console.print()
    say("later deliveries of these deals wait behind them; all others have flowed")
    _decide_some(on_call)
    _mend_the_code(workers, on_call, fingerprint)
    heading("Nothing is left, and who did what, and why, is on record")
    since = f"{time.monotonic() - began + 1:.0f}s"
    on_call.types_each(["dlq", "list"], ["dlq", "jobs", "--since", since])


def _decide_some(on_call: OnCall) -> None:
    """Each plan is frozen: what one does is nothing to the others."""
    heading("Plans first, for what needs no change of code")
    say("  an invented stage; deliveries that were cut off; a customer who cannot wait")
    stages = ["dlq", "edit", "crm-deals", "--code", "contract", "--set", "deal_stage=Engaging", "--replay"]
    cut_off = ["dlq", "discard", "crm-deals", "--code", "malformed-json"]
    few = ["dlq", "edit", FLOW, "--where", f"value.account == '{CUSTOMER}'", "--set", "product=GTX Pro", "--replay"]
    plans = on_call.plans(stages, cut_off, [*few, "--dry-run"], cut=PLAN)
    heading("Then exactly these, each with its reason")
    on_call.types_each(*([*plan, reason] for plan, reason in zip(plans, REASONS, strict=True)))


def _mend_the_code(workers: Workers, on_call: OnCall, fingerprint: str) -> None:
    """The plan is made from the new code on this machine, while the worker that has to run it starts."""
    heading("For all others, the price table learns the CRM's spelling")
    prompt(f"$EDITOR {PRICE_TABLE}")
    show(Text(line, style=_COLOURS.get(line[:1], "")) for line in add_price_alias())
    pid = workers.signal(FLOW, signal.SIGTERM)
    prompt(f"kill {pid}", f"{FLOW}; its supervisor starts it again")
    command = ["dlq", "replay", FLOW, "--fingerprint", fingerprint, "--dry-run"]
    (replay,) = on_call.plans(command, cut=PLAN)
    workers.until(f"{FLOW} is there again", workers.restarted(FLOW, pid))
    on_call.types(*replay, "the price table has the CRM's spelling now")


def fingerprint_of(listed: str, subscription: str) -> str:
    """Of the subscription's first group in what `dlq list --group-by fingerprint` has printed."""
    for line in listed.splitlines():
        words = line.split()
        if words[1:3] == [subscription, "fingerprint"]:
            return words[3]
    raise LookupError(f"no group of {subscription}")
