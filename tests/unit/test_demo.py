"""What `make demo` shows is what was said, and what it counts is what was there."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text

from demo import application
from demo.oncall import Cut
from demo.parked import parked_in
from demo.repair import fingerprint_of
from heddle.broker.log import Record
from heddle.delivery import envelope
from heddle.delivery.envelope import State

PLAN = """\
3 entries would be edited
  3 keys

class  code
contract  lookup

0-1
    ~ product: "GTXPro" → "GTX Pro"

0-2
    ~ product: "GTXPro" → "GTX Pro"

plan 0a1b
To do it: …"""


def shown(text: str, cut: Cut) -> list[str]:
    return [line.plain for line in cut.shown([Text(line) for line in text.splitlines()])]


def test_a_cut_shows_the_first_the_marked_and_the_last_paragraph_and_says_how_much_it_left_out() -> None:
    assert shown(PLAN, Cut(marks=("→",))) == [
        "3 entries would be edited",
        "  3 keys",
        "… 3 lines left out",
        "",
        "0-1",
        '    ~ product: "GTXPro" → "GTX Pro"',
        "… 3 lines left out",
        "",
        "plan 0a1b",
        "To do it: …",
    ]


@pytest.mark.parametrize(("max_lines", "last"), [(9, "c"), (2, "… 1 line left out")])
def test_a_cut_of_one_paragraph(max_lines: int, last: str) -> None:
    assert shown("a\nb\nc", Cut(max_lines=max_lines))[-1] == last


def test_nothing_is_cut_from_nothing() -> None:
    assert shown("", Cut()) == []


def entry(offset: int, state: State | None, key: bytes) -> Record:
    """A version of an entry, or for None its tombstone."""
    headers = {
        envelope.STATE: str(state), envelope.PARTITION: "0", envelope.OFFSET: key.decode(), envelope.CODE: "lookup",
        envelope.PATH: "list_price", envelope.FINGERPRINT: "f1",
    }  # fmt: skip
    pairs = [(name, value.encode()) for name, value in headers.items()]
    return Record("a.dlq", 0, offset, key, None if state is None else b"body", [] if state is None else pairs, 0)


def test_an_entry_is_known_by_what_it_was_first_and_what_became_of_it() -> None:
    versions = [
        entry(0, State.DEAD, b"7"),
        entry(1, State.WAITING, b"8"),
        entry(2, State.DEAD, b"9"),
        entry(3, None, b"3"),  # parked by an earlier run
        entry(4, State.DEAD, b"7"),
        entry(5, State.REVISED, b"7"),
        entry(6, State.DEAD, b"8"),
        entry(7, None, b"8"),
        entry(8, State.DISCARDED, b"9"),
    ]
    found = [(e.id, e.first, e.cause, e.end, e.has_run, e.is_unresolved) for e in parked_in(versions)]
    assert found == [
        ("0-7", State.DEAD, "lookup list_price", "edited and run", True, False),
        ("0-8", State.WAITING, "waits behind an earlier one", "run", True, False),
        ("0-9", State.DEAD, "lookup list_price", "discarded", False, False),
    ]


def test_an_entry_that_nobody_has_mended_is_unresolved() -> None:
    (found,) = parked_in([entry(0, State.DEAD, b"7")])
    assert (found.is_unresolved, found.has_run, found.end) == (True, False, "dead")


def test_the_price_table_is_changed_in_the_copy_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = application.REPOSITORY / application.PRICE_TABLE
    before = ours.read_text(encoding="utf-8")
    monkeypatch.setattr(application, "FOLDER", tmp_path / "app")
    application.copy_application()
    changed = [line for line in application.add_price_alias() if line.startswith(("+ ", "- "))]
    assert changed == ['+    "GTXPro": Decimal(4821),  # as the CRM spells it']
    assert changed[0][1:] in (tmp_path / "app" / application.PRICE_TABLE).read_text(encoding="utf-8")
    application.copy_application()
    assert (tmp_path / "app" / application.PRICE_TABLE).read_text(encoding="utf-8") == before
    assert ours.read_text(encoding="utf-8") == before


def test_the_fingerprint_is_read_from_the_list() -> None:
    listed = "  6  crm-deals  fingerprint aaa  first 2s ago\n183  deal-to-invoice  fingerprint l4irc  first 2s ago\n"
    assert fingerprint_of(listed, "deal-to-invoice") == "l4irc"
