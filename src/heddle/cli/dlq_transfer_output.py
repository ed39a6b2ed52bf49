"""What `heddle dlq import` and `adopt` print beside the plan."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from heddle.cli.main import out
from heddle.cli.printable import plain
from heddle.operations.dead_letters.adopt import Adoption
from heddle.operations.dead_letters.importing import same_key, without_identity
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.transfer import Import

LISTED = 20
_UNRECOGNISED = "none that is known"


def print_adoption(found: Adoption) -> None:
    if found.formats:
        out.print()
        out.print(_format_table(found))
    if found.unreadable:
        out.print()
        out.print(_unreadable_table(found))
        for spoilt in found.spoilt[:LISTED]:
            headers = ", ".join(f"{plain(each.header)} ({each.why})" for each in spoilt.headers)
            out.print(f"  {plain(spoilt.name)}  {headers}", markup=False)
        if len(found.spoilt) > LISTED:
            out.print(f"  … {len(found.spoilt) - LISTED:,} more records; --json lists all", style="dim", markup=False)
        out.print("  they stay on the entries as they are; what they tell is not known")
    if found.without_body:
        out.print(f"\n{found.without_body:,} have no value: the other system did not keep it, or they are tombstones")
    if not found.complete:
        out.print("\nthe plan is full, and the topic holds more: adopt again once this is done", style="yellow")


def print_import(made: Import) -> None:
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(made.states.items()))
    if states:
        out.print(f"\nwhere they come from they are {states}; here they will be dead until somebody replays them")
    if made.edited:
        out.print(f"{made.edited:,} were edited: the edited bodies are imported, the first ones stay in the file")


def print_new_entries(plan: ReplayPlan, *, has_identities: bool) -> None:
    """What every imported entry is not. `has_identities`: the subscription's converter finds an event's id itself."""
    later = same_key(plan)
    if later:
        out.print(
            f"\n{later:,} come after another of their key: imported entries do not wait, so replay the first alone"
        )
    nameless = 0 if has_identities else without_identity(f for part in plan.slices for f in part.foreign)
    if nameless:
        out.print(
            f"\n{nameless:,} carry no event id (ce_id, ce_source): if their effect was made before, "
            "targets cannot tell, and replaying makes it again",
            style="yellow",
            soft_wrap=True,
        )


def adoption_document(found: Adoption) -> dict[str, Any]:
    return {
        "complete": found.complete,
        "formats": [{"format": by, "records": count} for by, count in found.formats.items()],
        "without_body": found.without_body,
        "unreadable": [
            {"format": by, "header": header, "why": why, "records": count}
            for (by, (header, why)), count in found.unreadable.items()
        ],
        "unreadable_records": [
            {"record": spoilt.name, "headers": [each._asdict() for each in spoilt.headers]} for spoilt in found.spoilt
        ],
    }


def import_document(made: Import) -> dict[str, Any]:
    return {"states": {str(state): count for state, count in made.states.items()}, "edited": made.edited}


def _format_table(found: Adoption) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("records", justify="right")
    table.add_column("headers of")
    for by, count in found.formats.most_common():
        table.add_row(f"{count:,}", Text(by or _UNRECOGNISED, style="" if by else "yellow"))
    return table


def _unreadable_table(found: Adoption) -> Table:
    table = Table(box=None, pad_edge=False, header_style="yellow")
    table.add_column("records", justify="right")
    table.add_column("header that cannot be read", overflow="fold")
    table.add_column("because")
    for (_, unreadable), count in found.unreadable.most_common():
        table.add_row(f"{count:,}", Text(plain(unreadable.header)), unreadable.why)
    return table
