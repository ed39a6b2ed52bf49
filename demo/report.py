"""What the demo prints at its end: the figures, and what holds."""

from __future__ import annotations

import statistics

from rich.table import Table

from demo.census import Census
from demo.oncall import console
from demo.players import Answers
from heddle.delivery.metadata import Counts
from heddle.delivery.subscription import Subscription
from heddle.integration import Outcome


def report(census: Census, subscriptions: list[Subscription], crm: Answers, payments: Answers,
    undisturbed_until: float,
) -> None:  # fmt: skip
    for table in (_figures(census, crm, payments), _outcome_table(census, subscriptions), _dead_letter_table(census)):
        console.print()
        console.print(table)
    console.print()
    if recovered := sum((*census.settled.values(), *census.replayed.values()), Counts()).recovered:
        console.print(f"{recovered:,} effects had been made by a worker that died before it could say so")
    console.print(f"ledger: debits {census.debits:,.2f} = credits {census.credits:,.2f} USD")
    _print_latency(census, undisturbed_until)


def print_checks(census: Census) -> None:
    console.print()
    for name, holds in census.checks.items():
        console.print(f"  {'ok    ' if holds else 'FAILED'}  {name}", style=None if holds else "red", markup=False)


def _print_latency(census: Census, undisturbed_until: float) -> None:
    calm = [latency_s for sent_at, latency_s in census.latencies_s if sent_at < undisturbed_until]
    cuts = statistics.quantiles(calm, n=100) if len(calm) > 1 else [0.0] * 99
    longest_s = max((latency_s for _, latency_s in census.latencies_s), default=0.0)
    console.print(
        f"webhook to ledger row: p50 {cuts[49] * 1000:,.0f} ms, p99 {cuts[98] * 1000:,.0f} ms "
        f"({len(calm):,} before the outage)"
    )
    console.print(f"through outage and kill: {longest_s:.1f} s at most, where nobody had to mend anything")


def _figures(census: Census, crm: Answers, payments: Answers) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for name, answers in (("CRM", crm), ("card processor", payments)):
        refused = ", ".join(f"{n} with {status}" for status, n in sorted(answers.by_status.items()) if status >= 300)
        table.add_row(f"{answers.sent:,}", f"deliveries sent by the {name}")
        table.add_row(f"{answers.accepted:,}", f"accepted after Kafka had them; refused: {refused or 'none'}")
    for topic, count in sorted(census.records.items()):
        if count and not topic.endswith(".dlq"):
            table.add_row(f"{count:,}", f"events on {topic}")
    return table


def _outcome_table(census: Census, subscriptions: list[Subscription]) -> Table:
    """One row a subscription that had something to do, and one for its dead letters that ran; outcomes that did not
    occur have no column."""
    both = (*census.settled.values(), *census.replayed.values())
    total = sum(both, Counts())
    occurred = [outcome for outcome in Outcome if total.by_outcome[outcome]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("subscription", no_wrap=True)
    for name in ("in", *occurred):
        table.add_column(str(name), justify="right", no_wrap=True)
    for subscription in subscriptions:
        for name, counts in (
            (subscription.name, census.settled[subscription.name]),
            ("  dead letters", census.replayed[subscription.name]),
        ):
            if counts.total:
                cells = [counts.total, *(counts.by_outcome[outcome] for outcome in occurred)]
                table.add_row(name, *(f"{cell:,}" if cell else "" for cell in cells))
    return table


def _dead_letter_table(census: Census) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("entries", justify="right")
    for name in ("dead letters of", "cause", "fingerprint", "end"):
        table.add_column(name, no_wrap=True)
    for (subscription, cause, fingerprint, end), count in sorted(census.dead.items()):
        table.add_row(f"{count:,}", subscription, cause, fingerprint, end)
    return table
