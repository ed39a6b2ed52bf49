"""`heddle operators`: who may act on dead letters, and with which keys."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer
from rich.table import Table

from heddle.cli.main import app, errors, out
from heddle.operators import FILE, Operators, entry_of, make_key, private_names
from heddle.root import find_root

operators_app = typer.Typer(no_args_is_help=True, help="Operators: whose signature a subscription's workers accept.")
app.add_typer(operators_app, name="operators")


@operators_app.command()
def new(name: Annotated[str, typer.Argument(help="The operator, as the audit trail will name them.")]) -> None:
    """Make a key pair: the private half stays here, the public one goes into operators.toml.

    Example: heddle operators new ada >> operators.toml

    Exit codes: 0 made, 2 there is one of that name."""
    root = find_root()
    key = make_key(root / ".heddle", name)
    typer.echo(entry_of(key), nl=False)
    errors.print(f"private key: .heddle/operators/{key.name}.key (stays here, mode 0600)", markup=False)
    errors.print(f"Next: let {FILE} with these lines be reviewed, then restart the workers.", markup=False)


@operators_app.command("list")
def list_operators(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show whose signatures are accepted, and whose keys are here.

    Example: heddle operators list"""
    root = find_root()
    project, local = Operators.load(root, local=False).names, Operators.load(root, local=True).names
    here = private_names(root / ".heddle")
    names = sorted({*local, *here})
    rows = [(name, _accepted(name, project, local), name in here) for name in names]
    if json:
        listed = [{"name": name, "accepted": accepted, "key_here": is_here} for name, accepted, is_here in rows]
        typer.echo(json_text.dumps(listed, indent=2))
        return
    if not rows:
        out.print("no operators; `heddle operators new NAME` makes a key")
        return
    table = Table("operator", "accepted", "private key", box=None, pad_edge=False)
    for name, accepted, is_here in rows:
        table.add_row(name, accepted, "here" if is_here else "")
    out.print(table)


def _accepted(name: str, project: list[str], local: list[str]) -> str:
    if name in project:
        return "everywhere"
    return "on the local stack" if name in local else "nowhere"
