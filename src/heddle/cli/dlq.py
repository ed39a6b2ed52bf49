"""The `heddle dlq` group, and the options by which all its commands select entries."""

from __future__ import annotations

from typing import Annotated

import typer

from heddle.cli.completion import failure_classes, states, subscriptions
from heddle.cli.main import app
from heddle.operations.dead_letters.select import Selection, selection

dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: look, repair, run again.")
app.add_typer(dlq_app, name="dlq")

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUBSCRIPTION|ENTRY",
        help="Subscriptions (ledger) and entries (ledger/3-1042).",
        autocompletion=subscriptions,
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state", help="dead, retrying, waiting or unknown; may be given more than once.", autocompletion=states
    ),
]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Changed since: 2h ago, or 2026-03-01T09:30Z.")]
Key = Annotated[str, typer.Option("--key", help="Record key, or its entity: default/D-17 or D-17.")]
Fingerprint = Annotated[str, typer.Option("--fingerprint", help="Failures with one cause; its beginning is enough.")]
Class = Annotated[
    str,
    typer.Option("--class", help="Failure class: contract, poison, transient, …", autocompletion=failure_classes),
]
Code = Annotated[str, typer.Option("--code", help="What exactly went wrong, as `list` shows it behind the class.")]
ContractName = Annotated[str, typer.Option("--contract", help="Type of the event, for example billing.invoice.v1.")]
WhereText = Annotated[
    str, typer.Option("--where", metavar="EXPR", help="For example: value.product == 'GTXPro' and attempts >= 3")
]


def selection_of(
    names: list[str] | None,
    states: list[str] | None = None,
    since: str = "",
    key: str = "",
    fingerprint: str = "",
    failure_class: str = "",
    code: str = "",
    contract: str = "",
    where: str = "",
) -> Selection:
    """What the options above select. Raises `UsageError` saying which one cannot be read."""
    return selection(
        names or (), states=states or (), since=since, key=key, fingerprint=fingerprint, failure_class=failure_class,
        code=code, contract=contract, where=where,
    )  # fmt: skip
