"""A command: what its signature covers, and what its owner refuses to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from heddle.delivery.command import Action, Command, Foreign, Kind, PlanHeader, Signature, Slice, Target
from heddle.errors import FormatError

PART = Slice(0, (Target("here", 3, 7), Target("here", 4, 8)), (b"one", None))
OTHER = Slice(1, (Target("here", 5, 9),), (b"two",))
HEADER = PlanHeader("billing", Action.EDIT, "digest", 2.0, 0.5, 2, True, "", 1_000)
COMMAND = Command(
    Kind.ACT, "job", HEADER, (PART.hash, OTHER.hash), "a reason", 5_000, "root", (Signature("ada", "c2ln"),), 0, PART
)


def header(**changes: object) -> Command:
    return replace(COMMAND, header=replace(HEADER, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        replace(COMMAND, kind=Kind.CANCEL),
        replace(COMMAND, job="another"),
        replace(COMMAND, reason="another"),
        replace(COMMAND, expires_at_ms=5_001),
        replace(COMMAND, slice_hashes=(PART.hash,)),
        replace(COMMAND, slice_hashes=(OTHER.hash, PART.hash)),
        replace(COMMAND, job="jo", reason="b" + COMMAND.reason),
        header(subscription="another"),
        header(action=Action.DISCARD),
        header(handler="another"),
        header(rate_per_s=3.0),
        header(max_failed=1.0),
        header(approvals=1),
        header(run=False),
        header(settle_as="applied"),
    ],
)
def test_whatever_a_command_would_do_is_signed(other: Command) -> None:
    assert other.statement != COMMAND.statement


def test_an_approval_signs_the_act_and_every_slice_has_the_same_statement() -> None:
    approval = replace(COMMAND, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
    second = replace(COMMAND, index=1, slice=OTHER)
    assert approval.statement == second.statement == COMMAND.statement


CHANGES: list[Callable[[Slice], Slice]] = [
    lambda part: replace(part, partition=1),
    lambda part: replace(part, targets=part.targets[:1]),
    lambda part: replace(part, targets=(Target("there", 3, 7), *part.targets[1:])),
    lambda part: replace(part, targets=(Target("here", 2, 7), *part.targets[1:])),
    lambda part: replace(part, targets=(Target("here", 3, 6), *part.targets[1:])),
    lambda part: replace(part, bodies=(b"1", None)),
    lambda part: replace(part, bodies=(b"one", b"")),
    lambda part: replace(part, foreign=(Foreign("dlt", 0, b"k", b"v", (), 0, ()),)),
    lambda part: replace(part, canary=True),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_slice_that_the_plan_does_not_name_is_refused(change: Callable[[Slice], Slice]) -> None:
    with pytest.raises(FormatError, match="slice"):
        Command.unpack(replace(COMMAND, slice=change(PART)).pack())


@pytest.mark.parametrize("index", [-1, 1, 2])
def test_a_slice_at_another_place_of_the_plan_is_refused(index: int) -> None:
    with pytest.raises(FormatError, match="slice"):
        Command.unpack(replace(COMMAND, index=index).pack())


def test_a_command_is_read_back_as_it_was_written() -> None:
    foreign = Foreign("dlt", 3, None, None, (("x", b"\xff"), ("y", None)), 5, (("heddle-code", "Boom"),))
    part = Slice(2, foreign=(foreign,))
    imports = replace(header(action=Action.IMPORT), slice_hashes=(part.hash,), slice=part)
    for command in (COMMAND, imports, replace(COMMAND, kind=Kind.CANCEL, index=-1, slice=None)):
        assert Command.unpack(command.pack()) == command


@pytest.mark.parametrize("changes", [{"v": 2}, {"kind": "undo"}, {"header": {"action": "undo"}}, {"slice": {}}])
def test_what_another_version_wrote_is_refused_not_guessed(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        Command.unpack(orjson.dumps(orjson.loads(COMMAND.pack()) | changes))
