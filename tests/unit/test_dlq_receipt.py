"""Receipts: every target accounted for once, by its first line."""

from __future__ import annotations

from typing import Any

from heddle.audit import Line
from heddle.delivery.command import Action, Command, Foreign, Kind, PlanHeader, Signature, Slice, Target
from heddle.operations.dead_letters.jobs import Job, JobState, state_of
from heddle.operations.dead_letters.receipt import Event, Receipt, Result, entry_names, receipt_of

JOB = "j1"


def command(action: Action = Action.REPLAY, index: int = 0, *targets: Target, **header: Any) -> Command:
    part = Slice(0, targets or (Target("t1", 1, 11), Target("t1", 2, 12), Target("old", 3, 13)))
    asked = PlanHeader("ledger", action, **header)
    return Command(Kind.ACT, JOB, asked, (part.hash,), "why", 1000, "root", (Signature("ann", "s"),), index, part)


def line(entry: str, outcome: str, job: str = JOB, code: str = "") -> Line:
    return Line(0, outcome, entry=entry, job=job, code=code)


def filled(receipt: Receipt, *lines: Line) -> dict[str, int]:
    for each in lines:
        receipt.line(each)
    return {str(result): count for result, count in receipt.counts.items()}


def test_the_first_line_of_an_entry_counts_and_followers_are_apart() -> None:
    receipt = receipt_of([command()], "t1")
    assert list(receipt.targets) == ["0-1", "0-2", "0-3@old"]
    counts = filled(
        receipt,
        line("0-1", "failed-again", "other"),
        line("0-1", "applied"),
        line("0-1", "skipped", code="changed"),
        line("0-9", "applied"),
        line("0-2", "failed-again", code="timeout"),
    )
    assert counts == {"applied": 1, "failed again": 1}
    assert (receipt.missing, receipt.is_complete) == (1, False)
    assert [account.entry for account in receipt.followers.values()] == ["0-9"]
    assert [(account.entry, account.code) for account in receipt.failed] == [("0-2", "timeout")]
    receipt.line(line("0-3@old", "skipped", code="changed"))
    assert receipt.is_complete


def test_what_an_earlier_try_had_done_is_said_to_be_applied_already() -> None:
    receipt = receipt_of([command()], "t1")
    counts = filled(receipt, line("0-1", "recovered"), line("0-2", "duplicate"), line("0-3@old", "superseded"))
    assert counts == {"already applied": 2, "superseded": 1}


def test_a_refused_slice_accounts_for_its_targets_unless_they_were_done() -> None:
    receipt = receipt_of([command()], "t1")
    receipt.event(Event("refused", "other", 0, "not ours"))
    assert receipt.missing == 3
    receipt.line(line("0-1", "applied"))
    receipt.event(Event("refused", JOB, 0, "the handler has changed"))
    assert receipt.counts == {Result.APPLIED: 1, Result.REFUSED: 2}
    receipt.line(line("0-2", "applied"))  # the refused command was a forged one
    assert receipt.counts == {Result.APPLIED: 2, Result.REFUSED: 1}
    assert receipt.refusals == {0: "the handler has changed"}


def test_an_edit_that_runs_is_complete_when_its_entries_have_run() -> None:
    receipt = receipt_of([command(Action.EDIT, 0, Target("t1", 1, 11), run=True)], "t1")
    receipt.line(line("0-1", "edited"))
    assert (receipt.counts, receipt.missing) == ({Result.EDITED: 1}, 1)
    receipt.line(line("0-1", "emitted", job=""))
    assert (receipt.counts, receipt.missing) == ({Result.EMITTED: 1}, 0)
    receipt.line(line("0-1", "failed-again", job=""))
    assert receipt.counts == {Result.EMITTED: 1}
    only_edited = receipt_of([command(Action.EDIT, 0, Target("t1", 1, 11))], "t1")
    only_edited.line(line("0-1", "edited"))
    assert only_edited.is_complete


def test_imported_entries_go_by_their_origin() -> None:
    foreign = Foreign("spring", 7, None, b"", (), 0, ())
    part = Slice(2, foreign=(foreign,))
    imported = Command(Kind.ACT, JOB, PlanHeader("ledger", Action.IMPORT), (part.hash,), "", 0, "", (), 0, part)
    assert entry_names(imported, "t1") == ["2-7@spring"]


def test_the_state_of_a_job() -> None:
    asked = command(approvals=2)

    def state(*lines: Line, signed: tuple[str, ...] = ("ann", "bob"), workers: int = 1, now_ms: int = 0) -> JobState:
        receipt = receipt_of([asked], "t1")
        filled(receipt, *lines)
        return state_of(Job(JOB, (asked,), signed, (), 1), receipt, workers, now_ms)

    every = ("0-1", "0-2", "0-3@old")
    assert state() is JobState.RUNNING
    assert state(signed=("ann",)) is JobState.WAITING_FOR_APPROVAL
    assert state(workers=0) is JobState.WAITING_FOR_A_WORKER
    assert state(now_ms=2000) is JobState.EXPIRED
    assert state(*(line(name, "applied") for name in every)) is JobState.DONE
    assert state(*(line(name, "failed-again") for name in every)) is JobState.DONE
    assert state(*(line(name, "cancelled") for name in every)) is JobState.CANCELLED
    assert state(line("0-1", "applied"), *(line(name, "expired") for name in every[1:])) is JobState.EXPIRED
