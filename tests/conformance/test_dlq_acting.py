"""Acting on dead letters, from the plan to the receipt, on both brokers."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from broker_world import World
from dlq_scene import DlqScene

from heddle.contracts import AvroCodec, contract_of
from heddle.delivery.command import Action
from heddle.delivery.envelope import State
from heddle.errors import ContractError, UsageError
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.dry_run import SHOWN, DryRun, dry_run
from heddle.operations.dead_letters.dry_steps import open_runner
from heddle.operations.dead_letters.edit import settings_change
from heddle.operations.dead_letters.plan import Bodies, ReplayPlan
from heddle.operations.dead_letters.select import selection
from heddle.operations.dead_letters.session import DeadLettersChangedError, Session

DEAD, WAITING, UNKNOWN = State.DEAD, State.WAITING, State.UNKNOWN


@pytest.fixture
def scene(world: World, tmp_path: Path) -> DlqScene:
    return DlqScene(world, tmp_path)


def replay(session: Session, *names: str, **filters: Any) -> ReplayPlan:
    plan, _ = session.plan(session.header(Action.REPLAY), selection(names, **filters))
    return plan


def tried(session: Session, plan: ReplayPlan, bodies: Bodies | None = None) -> DryRun:
    parts = (session.component, session.project, session.registry, session.settings, session.admin, session.reader)
    with open_runner(*parts) as runner:
        return dry_run(plan, runner, session.reader, session.shelf, bodies)


def test_a_plan_is_made_of_what_is_there_and_refused_when_that_has_changed(scene: DlqScene) -> None:
    body = scene.body("a", "coffee")
    scene.park((0, "a", DEAD, body), (1, "a", WAITING, body), (2, "b", DEAD, body))
    scene.park((0, "c", DEAD, body), partition=1)
    with scene.session() as session:
        plan = replay(session, "0-1")
        assert [target.entry_id for target in plan.targets] == ["0-0", "0-1"]
        everything = replay(session)
        assert replay(session).hash == everything.hash
        session.check_unchanged(everything)
        scene.park((2, "b", UNKNOWN, body))
        session.check_unchanged(plan)
        with pytest.raises(DeadLettersChangedError) as refused:
            session.check_unchanged(everything)
        (change,) = refused.value.changed
        assert (change.entry_id, change.then, change.now) == ("0-2", "dead", "unknown, 1 attempts")
        with pytest.raises(UsageError, match="no entry"):
            replay(session, "0-77")


def test_a_plan_is_bound_to_the_handler(scene: DlqScene) -> None:
    scene.park((0, "a", DEAD, scene.body("a", "tea")))
    with scene.session() as session:
        plan = replay(session)
    assert plan.header.handler
    (scene.folder / "prices.py").write_text("TEA = 2\n", encoding="utf-8")
    from heddle.project import sources_digest

    sources_digest.cache_clear()
    with scene.session() as session, pytest.raises(DeadLettersChangedError, match="handler"):
        session.check_unchanged(plan)


def test_an_expression_selects_by_payload(scene: DlqScene) -> None:
    scene.park((0, "a", DEAD, scene.body("a", "coffee")), (1, "b", DEAD, scene.body("b", "cocoa")))
    with scene.session() as session:
        assert [target.entry_id for target in replay(session, where="value.product == 'cocoa'").targets] == ["0-1"]


def test_a_dry_run_tells_what_would_be_emitted_and_emits_nothing(scene: DlqScene) -> None:
    bill: AvroCodec[Any] = AvroCodec(contract_of(scene.types.Bill), scene.registry)
    scene.emitted(b"default/b", bill.encode_dict({"id": "b", "total": Decimal("9.00")}))
    scene.park(
        (0, "a", DEAD, scene.body("a", "tea")),
        (1, "b", DEAD, scene.body("b", "tea")),
        (2, "c", DEAD, scene.body("c", "coffee")),
        (3, "c", WAITING, scene.body("c", "tea")),
        (4, "d", DEAD, b"not framed"),
    )
    before = scene.ends()
    with scene.session() as session:
        result = tried(session, replay(session))
    assert result.outcomes == {"emitted": 2, "fails": 2, "waits": 1}
    assert {(cause.code, cause.path): count for cause, count in result.causes.items()} == {
        ("contract", "product"): 1,
        ("foreign-bytes", ""): 1,
    }
    first, second = (entry.effects[0] for entry in result.shown[:2])
    assert (first.key, first.was, first.now) == ("default/a", ABSENT, {"id": "a", "total": "1.50"})
    assert [tuple(change) for change in second.differences] == [("total", "9.00", "1.50")]
    assert scene.ends() == before


def test_a_dry_run_counts_all_and_shows_the_first(scene: DlqScene) -> None:
    scene.park(*((n, f"k{n}", DEAD, scene.body(f"k{n}", "tea")) for n in range(SHOWN + 5)))
    with scene.session() as session:
        result = tried(session, replay(session))
    assert (result.outcomes, len(result.shown), len(scene.calls)) == ({"emitted": SHOWN + 5}, SHOWN, SHOWN + 5)


def test_a_dry_run_of_an_edit_runs_the_new_bodies(scene: DlqScene) -> None:
    scene.park((0, "a", DEAD, scene.body("a", "coffee")), (1, "b", DEAD, scene.body("b", "tea")))
    with scene.session() as session:
        plan, edits = session.plan(
            session.header(Action.EDIT, run=True), selection([scene.name]), change_of=settings_change(["product=tea"])
        )
        assert edits is not None
        assert [(left.entry_id, left.reason) for left in plan.left_out] == [("0-1", "the change leaves it as it is")]
        assert list(edits.bodies.values()) == [scene.body("a", "tea")] == list(plan.slices[0].bodies)
        assert tried(session, plan, edits.bodies).outcomes == {"emitted": 1}


def test_of_many_edits_those_that_do_not_pass_are_left_out_and_a_single_one_is_refused(scene: DlqScene) -> None:
    scene.park((0, "a", DEAD, scene.body("a", "coffee")), (1, "b", DEAD, b"not framed"))
    change = settings_change(["amount=2.25"])
    with scene.session() as session:
        header = session.header(Action.EDIT)
        plan, edits = session.plan(header, selection([scene.name]), change_of=change)
        assert edits is not None
        assert (len(plan.targets), edits.refused, plan.left_out[0].entry_id) == (1, 1, "0-1")
        assert "refused" in plan.left_out[0].reason
        with pytest.raises(ContractError) as refused:
            session.plan(header, selection(["0-0"]), change_of=settings_change(["amount=2.255"]))
        assert refused.value.path == "amount"
