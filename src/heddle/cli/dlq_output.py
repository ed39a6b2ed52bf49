"""What `heddle dlq list` prints. Nothing that came in a record can move the cursor or colour the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from heddle.cli.main import errors, out
from heddle.cli.printable import plain, plain_json
from heddle.delivery.envelope import State
from heddle.operations.dead_letters.entries import EntryView
from heddle.operations.dead_letters.groups import Group, GroupBy
from heddle.operations.dead_letters.json_text import render
from heddle.operations.dead_letters.listing import Overview, Page

STYLES = {
    State.DEAD: "red",
    State.UNKNOWN: "magenta",
    State.WAITING: "yellow",
    State.RETRYING: "cyan",
    State.DISCARDED: "dim",
    State.REVISED: "dim",
}
NARROW = 100
"""Below so many columns a table leaves out what can be had otherwise."""
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def print_json(document: Any) -> None:
    """The one document of `--json`, on a line."""
    typer.echo(plain_json(render(document)))


def age(since_ms: int, now_ms: float) -> str:
    """How long ago in one unit, rounded down: `3h`."""
    seconds = max(int((now_ms - since_ms) / 1000), 0)
    return next((f"{seconds // size}{unit}" for unit, size in _UNITS if seconds >= size), "0s")


def counted(entries: int) -> str:
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}"


def counts(by_state: Counter[State], more: str = "") -> str:
    """`1,180 dead, 24 waiting`."""
    return ", ".join(f"{by_state[state]:,}{more} {state}" for state in State if by_state[state])


def why(view: EntryView) -> str:
    """Class, code and field path, or what it waits for."""
    if view.state is State.WAITING:
        return f"behind {plain(view.blocked_by)}" if view.blocked_by else "behind an earlier one"
    return plain(" ".join(dict.fromkeys(part for part in (view.failure_class, view.code, view.path) if part)))


def print_page(page: Page, declared: Collection[str]) -> None:
    """An overview by subscription, then the newest entries."""
    now_ms = time.time() * 1000
    found = [overview for overview in page.overviews if overview.count]
    if not found:
        out.print(f"no dead letters match, of {len(page.overviews)} subscriptions")
    else:
        out.print(_overview_table(found, now_ms, declared))
        out.print()
        out.print(_entry_table(page.entries, now_ms))
        if len(page.entries) < page.count:
            out.print(f"\n{len(page.entries):,} of {page.count:,}{'' if page.complete else ' or more'}", end="")
            out.print("; `--limit` shows more, `--group-by fingerprint` counts them by cause")
    print_unreadable(page)


def print_groups(page: Page, groups: Sequence[Group], by: GroupBy, runbooks: Mapping[str, str]) -> None:
    now_ms = time.time() * 1000
    width = max((len(f"{group.count:,}") for group in groups), default=0)
    for group in groups:
        margin = " " * (width + 2)
        out.print(_first_line(group, by, width, now_ms), soft_wrap=True)
        for line in _cause_lines(group, runbooks.get(group.subscription, "")):
            out.print(Text(margin) + line, soft_wrap=True)
    if groups:
        out.print(f"\n{counted(page.count)} in {len(groups):,} group{'' if len(groups) == 1 else 's'}")
    else:
        out.print(f"no dead letters match, of {len(page.overviews)} subscriptions")
    print_unreadable(page)


def print_unreadable(page: Page) -> None:
    for overview in page.overviews:
        if overview.unreadable:
            errors.print(
                f"{overview.subscription}: {overview.unreadable:,} entries cannot be read, for example "
                f"{plain(overview.why_unreadable)}", style="red", markup=False,
            )  # fmt: skip


@contextmanager
def reading_progress() -> Iterator[Callable[[int], None]]:
    """On a terminal, how many records have been read so far."""
    if not errors.is_terminal:
        yield lambda _: None
        return
    read = 0
    with errors.status("reading dead letters …") as status:

        def tell(more: int) -> None:
            nonlocal read
            read += more
            status.update(f"reading dead letters … {read:,} records")

        yield tell


def page_document(page: Page) -> dict[str, Any]:
    return {
        "complete": page.complete,
        "subscriptions": [_overview_document(overview) for overview in page.overviews],
        "entries": [view.document() for view in page.entries],
    }


def groups_document(page: Page, groups: Sequence[Group], by: GroupBy, runbooks: Mapping[str, str]) -> dict[str, Any]:
    return {
        "group_by": str(by),
        "subscriptions": [_overview_document(overview) for overview in page.overviews],
        "groups": [
            {
                "subscription": group.subscription,
                "value": group.value,
                "count": group.count,
                "by_state": {str(state): count for state, count in group.by_state.items()},
                "keys": group.keys,
                "oldest_ms": group.oldest_ms,
                "last_ms": group.last_ms,
                "example": None if group.example is None else group.example.document(),
                "runbook": runbooks.get(group.subscription, ""),
            }
            for group in groups
        ],
    }


def _overview_document(overview: Overview) -> dict[str, Any]:
    return {
        "subscription": overview.subscription,
        "count": overview.count,
        "by_state": {str(state): count for state, count in overview.by_state.items()},
        "oldest_ms": overview.oldest_ms or None,
        "complete": overview.complete,
        "unreadable": overview.unreadable,
        "why_unreadable": overview.why_unreadable,
    }


def _overview_table(overviews: Sequence[Overview], now_ms: float, declared: Collection[str]) -> Table:
    states = [state for state in State if any(overview.by_state[state] for overview in overviews)]
    table = Table(box=None, pad_edge=False)
    table.add_column("subscription", overflow="fold")
    for state in states:
        table.add_column(str(state), justify="right", no_wrap=True, style=STYLES[state])
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("")
    for overview in overviews:
        more = "" if overview.complete else "+"
        numbers = [f"{overview.by_state[state]:,}{more}" if overview.by_state[state] else "" for state in states]
        oldest = age(overview.oldest_ms, now_ms) + more
        note = "" if overview.subscription in declared else "declared no more"
        table.add_row(overview.subscription, *numbers, oldest, note)
    return table


def _entry_table(views: Sequence[EntryView], now_ms: float) -> Table:
    """In a narrow terminal without the column that `--json` and `show` have too."""
    wide = out.width >= NARROW
    table = Table(box=None, pad_edge=False)
    table.add_column("entry", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("key", overflow="fold")
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    if wide:
        table.add_column("fingerprint", no_wrap=True)
    for view in views:
        row = [Text(plain(view.name)), Text(str(view.state), style=STYLES[view.state]), Text(why(view))]
        row += [Text(plain(view.key_text or "-")), Text(str(view.attempts or "")), Text(age(view.since_ms, now_ms))]
        table.add_row(*row, *([Text(view.fingerprint)] if wide else []))
    return table


def _first_line(group: Group, by: GroupBy, width: int, now_ms: float) -> Text:
    line = Text(f"{group.count:>{width},}  ", style="bold")
    line.append(f"{group.subscription}  ", style="default")
    label = plain(group.value) or ("-" if by is not GroupBy.FINGERPRINT else "waiting behind others")
    line.append(f"{by} {label}" if group.value else label)
    first, last = age(group.oldest_ms, now_ms), age(group.last_ms, now_ms)
    line.append(f"  first {first} ago, last {last} ago", style="not bold")
    return line


def _cause_lines(group: Group, runbook: str) -> Iterator[Text]:
    keys = f", {group.keys:,} keys" if group.keys > 1 else ""
    yield Text(counts(group.by_state) + keys)
    example = group.example
    if example is not None:
        if example.message:
            yield Text(f"{why(example)}: {plain(example.message)}")
        more = f", runbook {plain(runbook)}" if runbook else ""
        yield Text(f"for example {plain(example.name)}{more}", style="dim")
