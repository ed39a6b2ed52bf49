"""Plans between being looked at and being applied: one file each under `.heddle/plans`, for its owner's eyes alone.

The first line is what people saw; then one line a slice, in the very form that is sent. A file is used only if it still
has the hash that it is named after.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from heddle.delivery.command import Command, Kind, Slice, Target
from heddle.delivery.envelope import State
from heddle.errors import FormatError, UsageError
from heddle.operations.dead_letters.plan import NOT_THERE, Place, Planned, ReplayPlan

FORMAT_VERSION = 1
KEPT_S = 7 * 86_400
_HASH = re.compile(r"[0-9a-f]{32}")


class PlanFiles:
    """`folder` is made when it is needed. Plans older than a week go when a new one is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, plan: ReplayPlan) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        descriptor, name = tempfile.mkstemp(dir=self._folder)  # mode 0600: an edit holds payloads
        with os.fdopen(descriptor, "wb") as file:
            for line in _lines(plan):
                file.write(line + b"\n")
        Path(name).replace(self._path(plan.hash))

    def load(self, plan_hash: str) -> ReplayPlan | None:
        """None when no plan of that hash was made here. Raises `FormatError` for a file that was changed."""
        try:
            lines = self._path(plan_hash).read_bytes().splitlines()
        except FileNotFoundError:
            return None
        try:
            plan = _plan(lines)
        except (ValueError, LookupError, TypeError, FormatError) as error:
            raise FormatError(f"the plan {plan_hash} cannot be read", hint="make it anew: leave --apply out") from error
        if plan.hash != plan_hash:
            raise FormatError(f"the plan {plan_hash} is not what it was", hint="make it anew: leave --apply out")
        return plan

    def _path(self, plan_hash: str) -> Path:
        if not _HASH.fullmatch(plan_hash):
            raise UsageError(f"--apply {plan_hash}: no plan's hash", hint="the hash is what the plan ends with")
        return self._folder / f"{plan_hash}.json"

    def _sweep(self) -> None:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - KEPT_S:
                    path.unlink()


def _lines(plan: ReplayPlan) -> list[bytes]:
    seen: dict[str, Any] = {
        "v": FORMAT_VERSION,
        "header": asdict(plan.header),
        "targets": plan.targets,
        "followers": plan.followers,
        "most_runs": plan.most_runs,
    }
    commands = [
        Command(Kind.ACT, "", plan.header, plan.slice_hashes, "", 0, "", (), index, part)
        for index, part in enumerate(plan.slices)
    ]
    return [orjson.dumps(seen, default=list), *(command.pack() for command in commands)]


def _plan(lines: list[bytes]) -> ReplayPlan:
    seen = orjson.loads(lines[0])
    if seen["v"] != FORMAT_VERSION:
        raise ValueError(seen["v"])
    commands = [Command.unpack(line) for line in lines[1:]]
    parts = tuple(command.slice for command in commands if command.slice is not None)
    targets = tuple(
        Planned(Place(*place), version, entry_id, State(state), *rest)
        for place, version, entry_id, state, *rest in seen["targets"]
    )
    named = {(part.partition, *target) for part in parts for target in _targets_of(part)}
    if named != {(t.place.partition, t.place.topic_id, t.place.offset, t.version) for t in targets}:
        raise ValueError("the targets are not the slices' ones")
    return ReplayPlan(commands[0].header, parts, targets, int(seen["followers"]), int(seen["most_runs"]))


def _targets_of(part: Slice) -> list[Target]:
    return [*part.targets, *(Target(foreign.origin, foreign.offset, NOT_THERE) for foreign in part.foreign)]
