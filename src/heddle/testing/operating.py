"""What on-call does, on the way that their commands take: a plan, a signature, the owner, the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

from heddle.delivery.command import Action
from heddle.delivery.desk import POLL_INTERVAL_S
from heddle.errors import UsageError
from heddle.operations.dead_letters.edit import Body
from heddle.operations.dead_letters.jobs import EXPIRY_S, first_command, send_slices, signed
from heddle.operations.dead_letters.patching import Change, parse_setting, set_value
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.receipt import Receipt, receipt_of
from heddle.operations.dead_letters.select import selection
from heddle.operations.dead_letters.session import ChangeOf, Session, open_session
from heddle.operations.dead_letters.trail import Trail
from heddle.testing.engine import Engine
from heddle.testing.values import DeadLetter
from heddle.testing.world import World

POLLS = 10
"""For so long a command is waited for: what has not come to its end by then waits for something else."""

Selected = DeadLetter | str
EditOf = Mapping[str, Any] | Callable[[Any], Any]


class Operator:
    """Acts on dead letters. Every act moves the clock a little: owners look for commands a few times a second."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._world = world
        self._engine = engine

    def act(
        self, action: Action, entries: tuple[Selected, ...], filters: Mapping[str, Any], reason: str, *,
        change_of: ChangeOf | None = None, **header: Any,
    ) -> Receipt:  # fmt: skip
        """Raises `UsageError` where nothing is selected, or nothing of it can be done."""
        world = self._world
        names = [entry.name if isinstance(entry, DeadLetter) else entry for entry in entries]
        chosen = selection(names or [world.component.name], **filters)
        with open_session(world.project, world.settings, world.component.name, world.broker, world.registry) as session:
            plan, _ = session.plan(session.header(action, **header), chosen, change_of=change_of)
            if not plan.targets:
                reasons = "; ".join(f"{left.entry_id}: {left.reason}" for left in plan.left_out)
                raise UsageError(f"nothing to {action}: {reasons}")
            return self._apply(session, plan, reason)

    def _apply(self, session: Session, plan: ReplayPlan, reason: str) -> Receipt:
        clock = self._world.clock
        command = replace(first_command(plan, reason), expires_at_ms=clock.wall_ms() + int(EXPIRY_S * 1000))
        with closing(self._world.broker.reader()) as reader:
            trail = Trail.from_now_on(session.admin, reader, session.shelf)
            parts = enumerate(plan.slices)
            commands = send_slices(self._world.broker, session.shelf, signed(command, self._world.key), parts)
            receipt = receipt_of(commands, session.shelf.topic_id)
            for _ in range(POLLS):
                self._engine.advance_to(clock.now + timedelta(seconds=POLL_INTERVAL_S))
                trail.feed(receipt, 0.0)
                if receipt.is_complete or self._engine.stopped is not None:
                    break
            return receipt


def edit_of(change: EditOf) -> ChangeOf:
    """New values by field path (`lines[0].amount`), in the JSON form of the contract; or a function of the document."""
    if callable(change):
        return lambda _: change
    settings = [(parse_setting(f"{path}=")[0], value) for path, value in change.items()]

    def apply(document: Any) -> Any:
        for path, value in settings:
            document = set_value(document, path, value)
        return document

    def change_of(_: Body) -> Change:
        return apply

    return change_of
