"""What `heddle dlq show` prints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from heddle.cli.dlq_output import STYLES, age, why
from heddle.cli.main import out
from heddle.cli.printable import plain
from heddle.delivery.envelope import State
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.explain import Body, Explanation
from heddle.operations.dead_letters.fields import FieldRow, Mark
from heddle.operations.dead_letters.history import History
from heddle.operations.dead_letters.json_text import render

MAX_ROWS = 200
MAX_BYTES = 512
_BYTES_A_LINE = 16
_MARKS = {Mark.EXTRA: "dim", Mark.DEFAULT: "dim"}


def print_explanation(shown: Explanation, history: History) -> None:
    for told in _head(shown):
        out.print(told, soft_wrap=True)
    _section("body")
    _print_body(shown)
    if shown.edits:
        _section(f"edited {shown.view.edit} times: the original, and now")
        out.print(_indented(_edits_table(shown)))
    _section("headers")
    out.print(_indented(_pairs(list(shown.headers))))
    _section("history")
    _print_history(history)
    if shown.view.exception:
        _section(f"exception {plain(shown.view.exception)}")
        for line in shown.stack.splitlines():
            out.print(Text(f"  {plain(line)}"), soft_wrap=True)


def explanation_document(shown: Explanation, history: History) -> dict[str, Any]:
    body = shown.body
    return shown.view.document() | {
        "key": shown.key,
        "message": shown.message,
        "stack": shown.stack,
        "owner": shown.owner,
        "runbook": shown.runbook,
        "masked": shown.masked,
        "headers": [list(header) for header in shown.headers],
        "body": {
            "written_as": body.claims or None,
            "expected": body.expects or None,
            "fields": [_row_document(row) for row in body.rows],
            "document": body.document,
            "undecoded": body.undecoded or None,
            "hex": body.data.hex() if body.data else None,
            "text": body.data.decode(errors="replace") if body.data else None,
            "is_null": body.is_null,
        },
        "before": {"count": shown.before[0], "first": shown.before[1]},
        "behind": {"count": shown.behind[0], "first": shown.behind[1]},
        "edits": [{"path": e.path, "was": _json_value(e.was), "now": _json_value(e.now)} for e in shown.edits],
        "history": [line.document() for line in history.lines],
        "history_missing": history.missing or None,
    }


def _head(shown: Explanation) -> Iterator[Text]:
    view = shown.view
    yield Text(plain(view.name), style="bold").append(f"  {view.state}", style=f"not bold {STYLES[view.state]}")
    if view.state is not State.WAITING:
        message = f": {plain(shown.message)}" if shown.message else ""
        yield Text(f"  {why(view)}{message}")
    yield Text("  " + ", ".join(_counted(shown)))
    yield Text(f"  {_lane_text(shown)}")
    yield Text(f"  root {plain(view.root)}, trace {plain(view.trace) or 'none'}")
    about = [f"handler {plain(view.handler)[:16]}", f"fingerprint {view.fingerprint or 'none'}"]
    about += [f"owner {shown.owner}"] if shown.owner else []
    about += [f"runbook {shown.runbook}"] if shown.runbook else []
    yield Text("  " + ", ".join(about), style="dim")


def _counted(shown: Explanation) -> Iterator[str]:
    view, now_ms = shown.view, time.time() * 1000
    yield f"key {plain(shown.key) if shown.key is not None else 'none'}"
    yield f"{view.attempts} attempt{'' if view.attempts == 1 else 's'}"
    if view.first_failed_at:
        yield f"first failed {_second(view.first_failed_at)} ({age(view.first_failed_ms, now_ms)} ago)"
    if view.last_failed_at and view.last_failed_at != view.first_failed_at:
        yield f"last {_second(view.last_failed_at)}"
    if view.state is State.RETRYING:
        yield f"next at {_second(view.due.isoformat())}"


def _lane_text(shown: Explanation) -> str:
    (before, first_before), (behind, first_behind) = shown.before, shown.behind
    parts = []
    if before:
        parts.append(f"waits behind {_some(before, first_before)}")
    parts.append(f"{_some(behind, first_behind)} wait behind it" if behind else "nothing waits behind it")
    return "; ".join(parts)


def _some(count: int, first: tuple[str, ...]) -> str:
    more = ", …" if count > len(first) else ""
    return f"{count:,} of its key ({', '.join(map(plain, first))}{more})"


def _print_body(shown: Explanation) -> None:
    body = shown.body
    if body.claims or body.expects:
        expects = f"; the handler expects {plain(body.expects)}" if body.expects else ""
        out.print(Text(f"  written as {plain(body.claims) or 'nothing that is known'}{expects}"), soft_wrap=True)
    if body.undecoded:
        out.print(Text(f"  cannot be read: {plain(body.undecoded)}", style="red"), soft_wrap=True)
    if body.rows:
        out.print(_indented(_field_table(body, shown.view.path)))
    elif body.document is not None:
        text = render(body.document, indent=2)
        out.print(Text("\n".join(f"  {plain(line)}" for line in text.splitlines())), soft_wrap=True)
    elif body.is_null:
        out.print("  null: a tombstone")
    elif body.data:
        _print_bytes(body.data)
    elif shown.masked and shown.view.size_bytes:
        out.print(f"  {shown.view.size_bytes:,} bytes, masked")
    else:
        out.print("  empty")
    if shown.masked:
        out.print(Text("  masked: `--reveal --reason TEXT` shows it, and is audited", style="dim"), soft_wrap=True)


def _print_bytes(data: bytes) -> None:
    """Hexadecimal, and what of it is text."""
    for start in range(0, min(len(data), MAX_BYTES), _BYTES_A_LINE):
        part = data[start : start + _BYTES_A_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        out.print(Text(f"  {start:04x}  {part.hex(' '):<{_BYTES_A_LINE * 3}} {text}"), soft_wrap=True)
    if len(data) > MAX_BYTES:
        out.print(f"  … {len(data) - MAX_BYTES:,} more bytes: `--json` has them all")


def _field_table(body: Body, failed_path: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    rows = [row for row in body.rows if row.mark or row.path == failed_path]
    kept = set(map(id, [*rows, *[row for row in body.rows if row not in rows][: max(MAX_ROWS - len(rows), 0)]]))
    for row in body.rows:
        if id(row) in kept:
            table.add_row(*_cells(row, row.path == failed_path and bool(failed_path)))
    if len(kept) < len(body.rows):
        table.add_row("…", f"{len(body.rows) - len(kept):,} more, unmarked", "`--json` has them all", "")
    return table


def _cells(row: FieldRow, failed: bool) -> list[Text]:
    types = row.written or row.expected
    if row.written and row.expected and row.written != row.expected:
        types = f"{row.written}, expected {row.expected}"
    style = "" if row.mark is None else _MARKS.get(row.mark, "red")
    note = " ".join(
        part
        for part in (str(row.mark or ""), f"({row.note})" if row.note else "", "← failed" if failed else "")
        if part
    )
    value = "" if row.value is ABSENT else render(row.value)
    return [
        Text(plain(row.path or "."), style=style),
        Text(plain(value)),
        Text(plain(types), style="dim"),
        Text(plain(note), style="red" if failed else style),
    ]


def _edits_table(shown: Explanation) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("field", "original", "now"):
        table.add_column(title, overflow="fold")
    for each in shown.edits:
        table.add_row(Text(plain(each.path or ".")), Text(_value_text(each.was)), Text(_value_text(each.now)))
    return table


def _print_history(history: History) -> None:
    if history.missing:
        out.print(Text(f"  not whole: {plain(history.missing)}", style="yellow"), soft_wrap=True)
    if not history.lines and not history.missing:
        out.print("  the audit trail does not know it")
    if not history.lines:
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    for line in history.lines:
        became = " ".join(part for part in (line.outcome, line.state and f"→ {line.state}", line.code) if part)
        tries = f"attempt {line.attempts}" if line.attempts else ""
        job = ", ".join(part for part in (line.actor, line.job and f"job {line.job}", line.reason) if part)
        table.add_row(*[Text(plain(cell)) for cell in (_second(line.at), became, tries, job)])
    out.print(_indented(table))


def _pairs(pairs: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(plain(name)), Text(plain(value)))
    return table


def _row_document(row: FieldRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "value": _json_value(row.value),
        "written": row.written or None,
        "expected": row.expected or None,
        "mark": str(row.mark) if row.mark else None,
        "note": row.note or None,
    }


def _json_value(value: Any) -> Any:
    return None if value is ABSENT else value


def _value_text(value: Any) -> str:
    return "-" if value is ABSENT else plain(render(value))


def _section(title: str) -> None:
    out.print(Text(f"\n{title}", style="bold"), soft_wrap=True)


def _indented(table: Table) -> Padding:
    return Padding(table, (0, 0, 0, 2))


def _second(at: str) -> str:
    """A time without fractions: they matter to nobody here."""
    return at.partition(".")[0].removesuffix("Z").removesuffix("+00:00") + "Z"
