"""What on-call types by mistake at two in the morning is refused, not half understood."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from dlq_views import entry
from typer.testing import CliRunner

from heddle.broker.log import Record
from heddle.cli import dlq_act
from heddle.cli.dlq_applying import _left
from heddle.cli.dlq_editor import edited_by_hand
from heddle.cli.dlq_options import Typed
from heddle.cli.watch import _json, _line
from heddle.contracts import MemoryRegistry
from heddle.delivery import envelope
from heddle.delivery.command import Action, PlanHeader, Slice, Target
from heddle.errors import ContractError, UsageError
from heddle.operations.dead_letters import transfer
from heddle.operations.dead_letters.edit import open_body, settings_change
from heddle.operations.dead_letters.explain import explain
from heddle.operations.dead_letters.finding import FoundEntry
from heddle.operations.dead_letters.hiding import body_hiding
from heddle.operations.dead_letters.jobs import checked_reason, find_job
from heddle.operations.dead_letters.json_text import MAX_DEPTH, InvalidJsonError, parse, render
from heddle.operations.dead_letters.payloads import Payloads
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.select import selection, since_ms
from producers.crm_deals import source

HASH = "0" * 32


def ask(*names: str, canary: int = 0, **header: Any) -> dlq_act.Ask:
    typed = Typed(selection(names), cast(typer.Context, None))
    return dlq_act.Ask(Action.REPLAY, typed, HASH, "why", False, False, canary=canary, header=header)


def plan(**header: Any) -> ReplayPlan:
    part = Slice(0, (Target("t", 1, 2),))
    return ReplayPlan(PlanHeader("ledger", Action.REPLAY, **header), (part,), ())


def test_what_is_typed_beside_a_hash_must_not_say_anything_else() -> None:
    made = plan(rate_per_s=5.0)
    for good in (ask(), ask("ledger"), ask("ledger/0-1", rate_per_s=5.0), ask(rate_per_s=0.0, max_failed=1.0)):
        dlq_act._check_asked(good, made)
    for wrong, why in (
        (ask("deals"), "is one for ledger, not for deals"),
        (ask(rate_per_s=1.0), "another --rate"),
        (ask(max_failed=0.1), "another --max-failed"),
        (ask(canary=3), "another --canary"),
    ):
        with pytest.raises(UsageError, match=why):
            dlq_act._check_asked(wrong, made)
    canary = replace(made, slices=(replace(made.slices[0], canary=True),))
    dlq_act._check_asked(ask(canary=3), canary)


def test_a_dry_run_is_never_applied() -> None:
    result = CliRunner().invoke(dlq_act.dlq_app, ["replay", "--apply", HASH, "--dry-run", "--reason", "why"])
    assert "do not go together" in str(result.exception)


def test_rates_that_are_no_rates_are_refused() -> None:
    for rate in ("inf", "nan", "-1"):
        assert CliRunner().invoke(dlq_act.dlq_app, ["replay", "ledger", "--rate", rate]).exit_code == 2


def test_a_patch_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "patch.json"
    path.write_text(" " * (dlq_act.MAX_PATCH_CHARS + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        dlq_act._read(path)


@pytest.mark.parametrize("reason", ["", " ", "…", "-", "?!"])
def test_a_reason_has_words(reason: str) -> None:
    with pytest.raises(UsageError, match="a reason is missing"):
        checked_reason(reason)


def test_no_job_is_not_the_only_job_there_is() -> None:
    with pytest.raises(UsageError, match="no job is named"):
        find_job(cast(Any, None), [], "")


@pytest.mark.parametrize("text", ["99999999999w", "999999w", "9" * 5_000 + "d"])
def test_longer_ago_than_there_are_times(text: str) -> None:
    with pytest.raises(UsageError, match="before any time"):
        since_ms(text)


def test_whoever_leaves_is_told_what_goes_on() -> None:
    assert _left(0, 5).startswith("you left before")
    assert "3 of 5 were not sent" in _left(2, 5)
    assert _left(5, 5) == "the job goes on without you"


class Endless(io.RawIOBase):
    """A device without end and without a line feed."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_an_import_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_FILE_BYTES", 2**16)
    monkeypatch.setattr(transfer, "MAX_LINE_BYTES", 2**12)
    with pytest.raises(UsageError, match="more than one plan may"):
        transfer.read_lines(io.BufferedReader(Endless()))


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def of_body(value: bytes) -> Record:
    """As an entry and as its original at once."""
    origin: list[tuple[str, bytes | None]] = [(envelope.TOPIC, b"raw"), (envelope.TIMESTAMP, b"0")]
    origin += [(envelope.PARTITION, b"0"), (envelope.OFFSET, b"1")]
    return Record("raw", 0, 1, None, value, origin, 0)


def test_json_is_read_to_a_depth_that_all_of_it_can_be_handled_in() -> None:
    deepest = parse(nested(MAX_DEPTH).decode())
    assert parse(render(deepest, indent=2)) == deepest
    with pytest.raises(InvalidJsonError, match="nested deeper"):
        parse(nested(MAX_DEPTH + 1).decode())


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 600, 30_000])
def test_a_delivery_that_is_nested_too_deep_is_text(levels: int) -> None:
    record = of_body(nested(levels))
    view = replace(entry(), record=record)
    assert Payloads(MemoryRegistry()).value_of(view) is not None
    shown = explain(FoundEntry(cast(Any, None), view), source, MemoryRegistry())
    assert shown.body.document is None
    assert shown.body.data == record.value
    body = open_body(record, source, MemoryRegistry())
    with pytest.raises(ContractError, match="no JSON, and has no fields"):
        settings_change(["deal_stage=Won"])(body)


def test_a_delivery_may_hold_what_only_json_can_say() -> None:
    value = b'{"n": 1000000000000000000000000000000, "half": "\\ud800", "digits": 1.10}'
    shown = explain(FoundEntry(cast(Any, None), replace(entry(), record=of_body(value))), source, MemoryRegistry())
    assert json.loads(render(shown.body.document)) == json.loads(value)
    assert "1.10" in render(shown.body.document)


def test_a_topic_is_shown_without_its_tricks() -> None:
    record = {"partition": 0, "offset": 1, "key": "\x1b[31m", "headers": [("ce_id", "\x9b31m\r")], "value": "\x1b"}
    assert _line(record).isprintable()
    assert json.loads(_json({"n": 10**30, "half": "\ud800", "c1": "\x9b"})) == {
        "n": 10**30, "half": "\ud800", "c1": "\x9b",
    }  # fmt: skip


def test_an_interrupt_is_the_editors_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import os, signal, sys\n"
        "assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "open(sys.argv[1], 'w').write('{\"deal_stage\": \"Won\"}')\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    before = signal.getsignal(signal.SIGINT)
    body = open_body(of_body(b'{"deal_stage": "Negotiating"}'), source, MemoryRegistry())
    assert edited_by_hand(body, body_hiding(source))(body.document) == {"deal_stage": "Won"}
    assert signal.getsignal(signal.SIGINT) is before


def test_an_editor_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "VISUAL", '"vi')
    body = open_body(of_body(b"{}"), source, MemoryRegistry())
    with pytest.raises(UsageError, match="does not start: No closing quotation"):
        edited_by_hand(body, body_hiding(source))(body.document)
