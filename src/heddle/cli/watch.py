"""`heddle tail` and `heddle lag`."""

from __future__ import annotations

import json as json_text
import os
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from heddle.broker.kafka import KafkaBroker
from heddle.cli.main import app, out
from heddle.cli.printable import plain, plain_json
from heddle.contracts import ConfluentRegistry
from heddle.delivery.metadata import Counts
from heddle.delivery.subscription import subscription_of
from heddle.integration import Outcome
from heddle.operations.lag import UNREADABLE_HINT, SubscriptionLag, subscription_lag
from heddle.operations.tail import tail as follow
from heddle.project import load_project
from heddle.settings import load_settings, need
from heddle.telemetry.logs import configure_logs

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


@app.command()
def tail(
    topic: str,
    beginning: Annotated[bool, typer.Option("--beginning", help="From the oldest record, not from now on.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Stop after this many records; 0 = never.")] = 0,
    stop_at_end: Annotated[bool, typer.Option("--stop-at-end", help="Stop when nothing is new.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, headers included.")] = False,
) -> None:
    """Show a topic's events as they come, decoded.

    Example: heddle tail billing.invoice.v1 --beginning --limit 5"""
    os.chdir(load_project().root)
    settings = need(load_settings(), "bootstrap_servers", "registry_url")
    configure_logs(settings)
    shown = 0
    for record in follow(KafkaBroker(settings), ConfluentRegistry(settings), topic, from_beginning=beginning):
        if record is None:
            if stop_at_end:
                return
            continue
        typer.echo(_json(record) if json else _line(record))
        shown += 1
        if limit and shown >= limit:
            return


@app.command()
def lag(json: AsJson = False) -> None:
    """Show how far behind and how settled everything is.

    Lag counts records. The outcomes are exact: they commit together with the offsets. --json has the runs of
    dead-letter entries too, which are counted apart.

    Example: heddle lag --json

    Exit codes: 0 all was read, 1 the outcomes of a subscription cannot be read, 5 no broker answers."""
    project = load_project()
    os.chdir(project.root)
    settings = need(load_settings(), "bootstrap_servers")
    configure_logs(settings)
    subscriptions = [subscription_of(component) for component in project.components.values()]
    rows = subscription_lag(KafkaBroker(settings), subscriptions)
    unreadable = [row for row in rows if row.unreadable]
    if json:
        typer.echo(_json([_lag_row(row) for row in rows]))
    else:
        out.print(_lag_table(rows))
        for row in unreadable:
            out.print(f"{row.subscription}: {row.unreadable}", markup=False, soft_wrap=True)
            out.print(f"  {UNREADABLE_HINT}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if unreadable else 0)


def _lag_row(row: SubscriptionLag) -> dict[str, Any]:
    return {
        "subscription": row.subscription,
        "topic": row.topic,
        "missing": row.missing,
        "lag": row.lag,
        "workers": row.members,
        "unreadable": row.unreadable,
        **_settled(row),
    }


def _settled(row: SubscriptionLag) -> dict[str, Any]:
    """Sums that lack a partition would be wrong: they are left out."""
    if row.unreadable:
        return dict.fromkeys(("settled", "outcomes", "recovered", "entry_runs", "entry_outcomes"))
    return {
        "settled": row.counts.total,
        "outcomes": _named(row.counts),
        "recovered": row.counts.recovered,
        "entry_runs": row.entry_counts.total,
        "entry_outcomes": _named(row.entry_counts),
    }


def _named(counts: Counts) -> dict[str, int]:
    return {str(outcome): count for outcome, count in counts.by_outcome.items()}


def _lag_table(rows: list[SubscriptionLag]) -> Table:
    """One row a subscription; outcomes that never occurred have no column."""
    total = sum((row.counts for row in rows if not row.unreadable), Counts())
    occurred = [outcome for outcome in Outcome if total.by_outcome[outcome]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("subscription", no_wrap=True)
    table.add_column("reads")
    for name in ("lag", "workers", "settled", *occurred):
        table.add_column(str(name), justify="right", no_wrap=True)
    for row in rows:
        if row.missing:
            table.add_row(row.subscription, f"no topic {row.topic}: run `heddle apply`")
            continue
        if row.unreadable:
            table.add_row(row.subscription, row.topic, str(row.lag), str(row.members), "unreadable")
            continue
        outcomes = [str(row.counts.by_outcome[outcome] or "") for outcome in occurred]
        table.add_row(row.subscription, row.topic, str(row.lag), str(row.members), str(row.counts.total), *outcomes)
    return table


def _line(record: dict[str, Any]) -> str:
    where = f"{record['partition']}/{record['offset']}"
    headers = dict(record["headers"])
    value = record.get("value", record.get("text", record.get("hex")))
    why = f"  ({record['undecoded']})" if "undecoded" in record and "value" not in record else ""
    return plain(f"{where}  {record['key']}  {headers.get('ce_id', '-')}  {_json(value)}{why}")


def _json(value: Any) -> str:
    try:
        return plain_json(orjson.dumps(value, default=str).decode())
    except TypeError:  # an integer of more than 64 bits, half a surrogate pair
        return plain_json(json_text.dumps(value, default=str))
