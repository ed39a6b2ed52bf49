"""`heddle mapping list`, `show` and `explain`: what flows do to fields, for owners and auditors, and how."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from heddle.cli.main import app, out
from heddle.contracts import contract_of
from heddle.contracts.resolution import as_written
from heddle.errors import UsageError
from heddle.integration import Flow
from heddle.mapping import Mapping
from heddle.mapping.document import document_json
from heddle.mapping.plan import plan_json
from heddle.project import load_project

commands = typer.Typer(no_args_is_help=True, help="Field-level mapping documents.")
app.add_typer(commands, name="mapping")


@commands.command("list")
def list_mappings(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")] = False,
) -> None:
    """List the flows whose handler is a mapping.

    Example: heddle mapping list"""
    found = [
        {"flow": name, "source": mapping.plan.source, "target": mapping.plan.target, "digest": mapping.digest}
        for name, mapping in sorted(_mappings().items())
    ]
    if json:
        typer.echo(json_text.dumps({"mappings": found}))
        return
    table = Table("flow", "reads", "writes", "plan", box=None)
    for row in found:
        table.add_row(row["flow"], row["source"], row["target"], row["digest"][:16])
    out.print(table)


@commands.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a flow.")],
    code: Annotated[bool, typer.Option("--code", help="The generated Python function instead.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="The canonical plan as JSON, of which the digest is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The document as JSON.")] = False,
) -> None:
    """Print a flow's field-level mapping document in Markdown.

    Example: heddle mapping show deal-to-invoice > deal-to-invoice.md

    Exit codes: 0 printed, 2 no such flow, or its handler is a function."""
    if code + plan + json > 1:
        raise UsageError("--code, --plan and --json exclude each other")
    mapping = _mapping(name)
    if code:
        typer.echo(mapping.compiled.source, nl=False)
    elif plan:
        typer.echo(json_text.dumps(plan_json(mapping.plan), indent=2))
    elif json:
        typer.echo(json_text.dumps(document_json(name, mapping.plan, contract_of(mapping.source)), indent=2))
    else:
        typer.echo(mapping.document(name), nl=False)


@commands.command()
def explain(
    name: Annotated[str, typer.Argument(help="Name of a flow.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")] = False,
) -> None:
    """Print how a flow makes each target field of the source's bytes, and why so.

    Fields are copied as they are, constant, made by instructions, or by a call of Python. This is for records written
    with the contract's own schema: each other version of it has its own plan.

    Example: heddle mapping explain deal-to-invoice

    Exit codes: 0 printed, 2 no such flow, or its handler is a function."""
    mapping = _mapping(name)
    lowered = mapping.lowered(as_written(contract_of(mapping.source).root))
    digest = None if lowered.plan is None else lowered.plan.digest
    if json:
        fields = [asdict(field) for field in lowered.fields]
        typer.echo(json_text.dumps({"flow": name, "sha256": digest, "reason": lowered.reason, "fields": fields}))
        return
    if digest is None:
        typer.echo(f"No plan: {lowered.reason}. Every record is decoded, mapped and encoded in Python.")
        return
    table = Table("target", "way", "why", box=None)
    for field in lowered.fields:
        table.add_row(field.path, field.way, field.why)
    out.print(table)
    out.print(f"Plan SHA-256: {digest}")


def _mappings() -> dict[str, Mapping[Any, Any]]:
    return {flow.name: flow.do for flow in load_project().flows if isinstance(flow.do, Mapping)}


def _mapping(name: str) -> Mapping[Any, Any]:
    component = load_project().component(name)
    if not isinstance(component, Flow) or not isinstance(component.do, Mapping):
        names = ", ".join(sorted(_mappings())) or "none"
        raise UsageError(f"{name} has no mapping: its handler is a function", hint=f"flows with a mapping: {names}")
    return component.do
