"""Acting on dead letters, from the plan to the receipt, on both brokers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from broker_world import World
from delivery_harness import eventually, running
from dlq_scene import DlqScene

from heddle.contracts import AvroCodec, contract_of
from heddle.delivery.command import Action
from heddle.delivery.envelope import State
from heddle.errors import ContractError, UsageError
from heddle.operations.dead_letters import dry_run as dry_running
from heddle.operations.dead_letters import pursuit
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.dry_run import SHOWN, DryRun, dry_run
from heddle.operations.dead_letters.dry_steps import open_runner
from heddle.operations.dead_letters.edit import settings_change
from heddle.operations.dead_letters.jobs import (
    Job,
    JobState,
    approval,
    cancellation,
    find_job,
    first_command,
    send_slices,
    send_to_all,
    signed,
    state_of,
    workers_of,
)
from heddle.operations.dead_letters.plan import Bodies, ReplayPlan
from heddle.operations.dead_letters.pursuit import End, OnProgress, Progress, Pursuit
from heddle.operations.dead_letters.receipt import Receipt, Result
from heddle.operations.dead_letters.select import selection
from heddle.operations.dead_letters.session import DeadLettersChangedError, Session
from heddle.operations.dead_letters.trail import receipts_of
from heddle.operators import OperatorKey, make_key

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


def test_a_failed_key_waits_in_later_batches_of_a_dry_run_too(scene: DlqScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_running, "BATCH", 1)
    scene.park((0, "a", DEAD, scene.body("a", "coffee")), (1, "a", WAITING, scene.body("a", "tea")))
    with scene.session() as session:
        assert tried(session, replay(session)).outcomes == {"fails": 1, "waits": 1}


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


# With the owner at work.


@dataclass
class Applied:
    end: End
    receipt: Receipt
    job: str

    @property
    def counts(self) -> dict[str, int]:
        return {str(result): count for result, count in self.receipt.counts.items()}


def apply(
    session: Session, plan: ReplayPlan, key: OperatorKey, *, on_progress: OnProgress = lambda _: None,
    expiry_s: float = 600.0,
) -> Applied:  # fmt: skip
    command = first_command(plan, "a test", expiry_s)
    with closing(Pursuit(session.broker, session.shelf, plan, command, key)) as pursuit:
        end = pursuit.run(on_progress)
        return Applied(end, pursuit.receipt, pursuit.job)


def look(session: Session, job_id: str) -> tuple[Job, Receipt, JobState]:
    """As `heddle dlq jobs JOB` does, from the topics alone."""
    shelf, job = find_job(session.reader, [session.shelf], job_id)
    (receipt,) = receipts_of(session.reader, shelf, [job])
    return job, receipt, state_of(job, receipt, workers_of(session.admin, shelf), int(time.time() * 1000))


def look_until(session: Session, job_id: str, state: JobState) -> tuple[Job, Receipt]:
    eventually(lambda: look(session, job_id)[2] is state, f"the job is {state}")
    job, receipt, _ = look(session, job_id)
    return job, receipt


def test_a_replay_runs_heads_and_followers_and_its_receipt_is_complete(scene: DlqScene) -> None:
    with scene.failed(("a", "coffee"), ("a", "tea"), ("a", "tea"), ("b", "tea"), ("c", "cocoa")):
        scene.products.add("coffee")
        with scene.session() as session:
            plan = replay(session, "0-0", "0-4")
            assert plan.followers == 2
            done = apply(session, plan, scene.ada)
            assert (done.end, done.counts, len(done.receipt.followers)) == (
                End.COMPLETE,
                {"emitted": 1, "failed again": 1},
                2,
            )
            job, receipt, state = look(session, done.job)
            assert (receipt.counts, state, receipt.followers) == (
                done.receipt.counts,
                JobState.DONE,
                done.receipt.followers,
            )
            assert (job.reason, job.signed_by, job.plan_hash) == ("a test", ("ada",), plan.hash)
            with pytest.raises(DeadLettersChangedError) as refused:
                session.check_unchanged(plan)
        assert [(c.entry_id, c.now) for c in refused.value.changed] == [("0-0", ""), ("0-4", "dead, 2 attempts")]
    assert scene.bills() == [("b", "1.50"), ("a", "1.50"), ("a", "1.50"), ("a", "1.50")]
    assert scene.unresolved() == {"0-4": "dead"}


def test_overlapping_replays_at_once_run_each_entry_once(scene: DlqScene) -> None:
    keys = [f"k{n}" for n in range(40)]
    with scene.failed(*((key, "coffee") for key in keys)):
        scene.products.add("coffee")
        scene.calls.clear()
        with scene.session() as one, scene.session() as two, ThreadPoolExecutor(2) as pool:
            plans = replay(one, *(f"0-{n}" for n in range(30))), replay(two, *(f"0-{n}" for n in range(10, 40)))
            jobs = [
                pool.submit(apply, session, plan, key)
                for session, plan, key in ((one, plans[0], scene.ada), (two, plans[1], scene.grace))
            ]
            first, second = (job.result() for job in jobs)
    assert (first.end, second.end) == (End.COMPLETE, End.COMPLETE)
    assert sorted(scene.calls) == sorted(keys)
    assert first.counts.get("emitted", 0) + second.counts.get("emitted", 0) == 40
    assert first.counts.get("skipped", 0) + second.counts.get("skipped", 0) == 20
    assert scene.unresolved() == {}


def test_a_canary_that_fails_sends_nothing_more(scene: DlqScene) -> None:
    with scene.failed(*((f"k{n}", "coffee") for n in range(6))), scene.session() as session:
        plan, _ = session.plan(session.header(Action.REPLAY), selection([scene.name]), canary=2)
        done = apply(session, plan, scene.ada)
        assert (done.end, done.counts, len(done.receipt.targets)) == (End.CANARY_FAILED, {"failed again": 2}, 2)
        job, _, _ = look(session, done.job)
        assert job.unsent == 1
        scene.products.add("coffee")
        plan, _ = session.plan(session.header(Action.REPLAY), selection([scene.name]), canary=2)
        stages: list[int] = []
        done = apply(session, plan, scene.ada, on_progress=lambda progress: stages.append(progress.sent))
        assert (done.end, done.counts) == (End.COMPLETE, {"emitted": 6})
        assert sorted(set(stages)) == [2, 6]


def test_too_many_failures_over_all_partitions_cancel_the_job(scene: DlqScene) -> None:
    scene.feed(*((f"k{n}", "coffee") for n in range(18)), partition=1)
    with scene.failed(*((f"k{n}", "coffee") for n in range(18))):
        scene.settled(36)
        with scene.session() as session:
            header = session.header(Action.REPLAY, rate_per_s=5.0, max_failed=0.5)
            plan, _ = session.plan(header, selection([scene.name]))
            done = apply(session, plan, scene.ada)
            assert done.end is End.COMPLETE
            assert done.counts["failed again"] < 36
            assert done.counts["failed again"] + done.counts["cancelled"] == 36
            job, _ = look_until(session, done.job, JobState.CANCELLED)
            assert job.cancelled_by == ("ada",)


def test_somebody_cancels_a_slow_job(scene: DlqScene) -> None:
    with scene.failed(*((f"k{n}", "coffee") for n in range(10))), scene.session() as session:
        plan, _ = session.plan(session.header(Action.REPLAY, rate_per_s=0.5), selection([scene.name]))
        command = signed(first_command(plan, "slowly"), scene.ada)
        send_slices(session.broker, session.shelf, command, enumerate(plan.slices))
        look_until(session, command.job, JobState.RUNNING)
        eventually(lambda: bool(look(session, command.job)[1].accounts), "it has begun")
        send_to_all(session.broker, session.shelf, cancellation(command, scene.grace))
        job, receipt = look_until(session, command.job, JobState.CANCELLED)
        assert job.cancelled_by == ("grace",)
        assert receipt.counts[Result.CANCELLED] + receipt.counts[Result.FAILED_AGAIN] == 10


def test_a_job_waits_for_the_approval_of_somebody_else(world: World, tmp_path: Path) -> None:
    scene = DlqScene(world, tmp_path, config={"approvals": {"discard": 2}})
    with scene.failed(("a", "coffee"), ("a", "tea")), scene.session() as session:
        plan, _ = session.plan(session.header(Action.DISCARD), selection(["0-0"]))
        done = apply(session, plan, scene.ada)
        assert done.end is End.WAITS_FOR_APPROVAL
        job, _ = look_until(session, done.job, JobState.WAITING_FOR_APPROVAL)
        with pytest.raises(UsageError, match="ada has signed"):
            approval(job, scene.ada)
        assert scene.unresolved() == {"0-0": "dead", "0-1": "waiting"}
        send_to_all(session.broker, session.shelf, approval(job, scene.grace))
        job, receipt = look_until(session, done.job, JobState.DONE)
        assert (job.signed_by, receipt.counts) == (("ada", "grace"), {Result.DISCARDED: 1})
        with pytest.raises(UsageError, match="needs no approval"):
            approval(job, scene.grace)
        eventually(lambda: scene.unresolved() == {}, "the follower ran")


def test_a_job_of_a_stranger_is_refused_and_one_that_is_too_late_expires(scene: DlqScene, tmp_path: Path) -> None:
    stranger = make_key(tmp_path, "mallory")
    with scene.failed(("a", "coffee")), scene.session() as session:
        plan = replay(session)
        refused = apply(session, plan, stranger)
        assert (refused.end, refused.counts) == (End.COMPLETE, {"refused": 1})
        assert "mallory" in refused.receipt.refusals[0]
        assert look(session, refused.job)[2] is JobState.REFUSED
        late = apply(session, plan, scene.ada, expiry_s=-1)
        assert late.counts == {"expired": 1}
        assert look(session, late.job)[2] is JobState.EXPIRED
    assert scene.unresolved() == {"0-0": "dead"}


def test_without_a_worker_the_job_waits_and_can_be_looked_at_later(
    scene: DlqScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pursuit, "WORKER_CHECK_S", 0.05)
    monkeypatch.setattr(pursuit, "NO_WORKER_AFTER_S", 0.2)
    with scene.failed(("a", "coffee")):
        pass
    scene.products.add("coffee")
    with scene.session() as session:
        eventually(lambda: workers_of(session.admin, session.shelf) == 0, "the worker has left")
        done = apply(session, replay(session), scene.ada)
        assert (done.end, done.receipt.missing) == (End.NO_WORKER, 1)
        assert look(session, done.job)[2] is JobState.WAITING_FOR_A_WORKER
        with running(scene.worker()):
            _, receipt = look_until(session, done.job, JobState.DONE)
    assert receipt.counts == {Result.EMITTED: 1}


def test_whoever_leaves_finds_the_job_done_later(scene: DlqScene) -> None:
    with scene.failed(*((f"k{n}", "coffee") for n in range(10))), scene.session() as session:
        scene.products.add("coffee")
        seen: list[str] = []

        def leave(progress: Progress) -> None:
            seen.append(progress.receipt.job)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            apply(session, replay(session), scene.ada, on_progress=leave)
        _, receipt = look_until(session, seen[0][:6], JobState.DONE)
        assert receipt.counts == {Result.EMITTED: 10}


def test_an_edit_that_runs_ends_with_what_came_of_its_entries(scene: DlqScene) -> None:
    with scene.failed(("a", "coffee"), ("b", "cocoa"), ("b", "tea")), scene.session() as session:
        for entry, change, expected in (
            ("0-0", ["product=tea", "amount=2.00"], {"emitted": 1}),
            ("0-1", ["amount=3.00"], {"failed again": 1}),
        ):
            header = session.header(Action.EDIT, run=True)
            plan, _ = session.plan(header, selection([entry]), change_of=settings_change(change))
            done = apply(session, plan, scene.ada)
            assert (done.end, done.counts) == (End.COMPLETE, expected)
            assert look(session, done.job)[1].counts == done.receipt.counts
        (view,) = (v for v in session.select(selection(["0-1"]))[0])
        assert (view.edit, view.state) == (1, "dead")
        plan, _ = session.plan(
            session.header(Action.EDIT), selection(["0-1"]), change_of=settings_change(["product=tea"])
        )
        assert apply(session, plan, scene.ada).counts == {"edited": 1}
        assert apply(session, replay(session, "0-1"), scene.ada).counts == {"emitted": 1}
    assert scene.bills() == [("a", "2.00"), ("b", "3.00"), ("b", "1.50")]
    assert scene.unresolved() == {}


def test_an_unknown_effect_is_settled_either_way(scene: DlqScene) -> None:
    scene.unsure.update({"rum", "gin"})
    with scene.failed(("a", "rum"), ("b", "gin")), scene.session() as session:
        assert scene.unresolved() == {"0-0": "unknown", "0-1": "unknown"}
        for entry, found_out in (("0-0", "applied"), ("0-1", "not-applied")):
            header = session.header(Action.SETTLE, settle_as=found_out)
            if found_out == "not-applied":
                scene.unsure.clear()
                scene.products.add("gin")
            plan, _ = session.plan(header, selection([entry]))
            assert apply(session, plan, scene.ada).counts == {"settled": 1}
        eventually(lambda: scene.unresolved() == {}, "what was not applied ran again")
    assert scene.bills() == [("b", "1.50")]


def test_the_owner_refuses_a_plan_for_another_handler(scene: DlqScene) -> None:
    with scene.failed(("a", "coffee")), scene.session() as session:
        header = replace(session.header(Action.REPLAY), handler="f" * 64)
        plan, _ = session.plan(header, selection([scene.name]))
        done = apply(session, plan, scene.ada)
        assert done.counts == {"refused": 1}
        assert done.receipt.refusals[0] == "the handler has changed since it was planned"
