"""Options that several `heddle dlq` commands share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

from heddle.cli.dlq import (
    Class,
    Code,
    ContractName,
    Fingerprint,
    Key,
    Names,
    Since,
    States,
    WhereText,
    selection_of,
)  # fmt: skip
from heddle.cli.shell import shell_line
from heddle.delivery.envelope import State
from heddle.operations.dead_letters.select import Selection

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Apply = Annotated[str, typer.Option("--apply", metavar="HASH", help="Do what the plan of this hash says, and no more.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever reads the audit trail.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Run the present code on the plan, its effects discarded.")]
Rate = Annotated[
    float, typer.Option("--rate", min=0, max=1e6, help="Entries a second and partition; 0 = as fast as it goes.")
]
Canary = Annotated[int, typer.Option("--canary", metavar="N", min=0, help="First N entries; the rest if all succeed.")]
MaxFailed = Annotated[
    float,
    typer.Option("--max-failed", metavar="RATIO", min=0, max=1, help="Cancel once this share of 20 or more failed."),
]
ApproveJob = Annotated[
    str, typer.Option("--approve", metavar="JOB", help="Approve somebody else's job: the same as `approve JOB`.")
]

_SELECTION: dict[str, tuple[Any, Any]] = {
    "names": (Names, None),
    "states": (States, None),
    "since": (Since, ""),
    "key": (Key, ""),
    "fingerprint": (Fingerprint, ""),
    "failure_class": (Class, ""),
    "code": (Code, ""),
    "contract": (ContractName, ""),
    "where": (WhereText, ""),
}


class Typed(NamedTuple):
    """What a command was called with: its selection, and the words themselves."""

    selection: Selection
    context: typer.Context

    def of_state(self, state: State) -> Typed:
        """Entries of this state, unless others were asked for."""
        chosen = replace(self.selection, states=self.selection.states or frozenset({state}))
        return self._replace(selection=chosen)

    def to_apply(self, plan_hash: str, without: str = "") -> str:
        """The command that applies the plan which this one has made."""
        reason = () if self.context.params.get("reason") else ("--reason", "…")
        return self.line("--apply", plan_hash, *reason, without=("json", without))

    def line(self, *more: str, without: tuple[str, ...] = ()) -> str:
        """The command as one would type it, less the options named in `without` and with `more`."""
        words = ["heddle", *self.context.command_path.split()[1:]]
        for parameter in self.context.command.params:
            value = self.context.params.get(parameter.name or "")
            if value in (None, "", parameter.default) or parameter.name in without:
                continue
            for each in value if isinstance(value, list | tuple) else [value]:
                is_option = parameter.param_type_name == "option"
                words += _option(parameter.opts[0], each) if is_option else [str(each)]
        return shell_line([*words, *more])


def selects(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `list`, in place of its first parameter, which gets what was typed."""
    _, *own = inspect.signature(function).parameters.values()
    hints = get_type_hints(function, include_extras=True)

    def command(context: typer.Context, **given: Any) -> None:
        chosen = selection_of(**{name: given.pop(name) for name in _SELECTION})
        function(Typed(chosen, context), **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter("context", keyword, annotation=typer.Context)]
    options += [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in _SELECTION.items()
    ]
    options += [p.replace(kind=keyword, annotation=hints[p.name]) for p in own]
    command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in options}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [name]
    return [name, f"{value:g}" if isinstance(value, float) else str(value)]
