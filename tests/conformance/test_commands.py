"""The owner's side of operators' commands, on both brokers: signatures, compare-and-set, accounts of every target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from broker_world import World
from delivery_harness import Driven, Scene, eventually, running
from office import POLICY, Office, lines_of, outcomes, refusals, send, targets, unless

from heddle.broker.log import Broker, Record
from heddle.delivery.command import Action, Foreign, Kind, Slice, Target
from heddle.delivery.envelope import entry_of
from heddle.errors import ContractError, TransientError, UnknownEffectError
from heddle.on_failure import Breaker, Caps
from heddle.operators import make_key


@pytest.fixture
def broker(world: World) -> Broker:
    return world.broker


@pytest.fixture
def office(tmp_path: Path) -> Office:
    ada, grace = make_key(tmp_path, "ada"), make_key(tmp_path, "grace")
    return Office(ada, grace)


@pytest.fixture
def scene_of(broker: Broker, office: Office) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(broker, **{"on_failure": POLICY, "operators": office.operators} | options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(scene_of: Callable[..., Scene]) -> Scene:
    return scene_of()


def test_a_replay_runs_its_targets_and_what_waits_behind_them_in_order(scene: Scene, office: Office) -> None:
    broken = {"bad 1": True}
    step = scene.step()
    step.one = unless(broken, step)  # type: ignore[method-assign]
    scene.feed(("a", "bad 1"), ("a", "two"), ("a", "three"), ("b", "bad 4"))
    with running(scene.worker(step)):
        scene.settled(4)
        broken.clear()
        command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad 1")), handler=step.digest)
        send(scene, command)
        eventually(lambda: len(lines_of(scene, command.job)) == 3, "head and followers ran")
        scene.feed(("a", "after"))
        scene.settled(5)
    assert scene.outputs_of("a") == ["BAD 1", "TWO", "THREE", "AFTER"]
    assert [line.outcome for line in lines_of(scene, command.job)] == ["emitted"] * 3
    assert scene.unresolved() == [("dead", "bad 4", "contract")]
    assert [r.body["job"] for r in scene.audit() if r.kind == "command"] == [command.job]


def test_a_replay_that_fails_again_says_so_and_counts_the_attempt(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"), ("a", "waits"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad")))
        send(scene, command)
        eventually(lambda: outcomes(scene, command) == ["failed-again"], "it ran")
    assert scene.header_of("bad", "heddle-attempts") == "2"
    assert scene.unresolved() == [("dead", "bad", "contract"), ("waiting", "waits", "0-0")]


def test_two_overlapping_replays_run_each_entry_once(scene: Scene, office: Office) -> None:
    """Both were planned before either ran."""
    step = scene.step()
    broken = {f"bad {n}": True for n in range(10, 30)}
    step.one = unless(broken, step)  # type: ignore[method-assign]
    scene.feed(*[(f"k{n}", f"bad {n}") for n in range(10, 30)])
    with running(scene.worker(step)):
        scene.settled(20)
        broken.clear()
        all_of_them = targets(scene, *[f"bad {n}" for n in range(10, 30)])
        first = office.command(scene, Action.REPLAY, Slice(0, all_of_them[:15]))
        second = office.command(scene, Action.REPLAY, Slice(0, all_of_them[5:]))
        send(scene, first, second)
        eventually(lambda: len(outcomes(scene, first)) == len(outcomes(scene, second)) == 15, "both accounted for")
    assert outcomes(scene, first) == ["emitted"] * 15
    assert sorted(outcomes(scene, second)) == ["emitted"] * 5 + ["skipped"] * 10
    assert len(scene.outputs()) == len(set(scene.outputs())) == 20


def test_a_command_that_is_read_again_does_nothing(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad")))
        send(scene, command)
        eventually(lambda: outcomes(scene, command) == ["failed-again"], "it ran")
        send(scene, command)
        eventually(lambda: len(lines_of(scene, command.job)) == 2, "read again")
    assert [line.outcome for line in lines_of(scene, command.job)] == ["failed-again", "skipped"]
    assert scene.header_of("bad", "heddle-attempts") == "2"


def test_a_worker_that_dies_in_the_middle_of_a_replay_is_followed_by_one_that_finishes_it(
    scene: Scene, office: Office
) -> None:
    count = 600
    scene.feed(*[(f"k{n}", f"bad{n}") for n in range(count)])
    with running(scene.worker(scene.step())):
        scene.settled(count)
    command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, *[f"bad{n}" for n in range(count)])))
    send(scene, command)

    def good() -> object:
        step = scene.step()
        step.one = unless({}, step)  # type: ignore[method-assign]
        return step

    dying = Driven(scene.worker(good(), batch_max_records=50))  # type: ignore[arg-type]
    dying.open()
    dying.until(lambda: len(scene.outputs()) > 100)
    dying.abandon()
    assert len(scene.outputs()) < count
    with running(scene.worker(good())):  # type: ignore[arg-type]
        scene.drained()
        eventually(lambda: len(outcomes(scene, command)) == count, "the receipt is complete")
    assert set(outcomes(scene, command)) == {"emitted"}
    assert len(scene.outputs()) == len(set(scene.outputs())) == count


def test_a_discarded_entry_leaves_a_marker_and_frees_its_key(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"), ("a", "waits"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")))
        send(scene, command)
        scene.drained()
    assert outcomes(scene, command) == ["discarded"]
    assert scene.outputs() == ["WAITS"]
    [marker] = scene.newest()
    assert marker.value == b""
    scene.move_offsets({0: 0})
    with running(scene.worker(scene.step())):
        eventually(lambda: len(scene.outputs()) == 2, "read again: only what was not discarded")
    assert scene.unresolved() == []


def test_an_edited_entry_keeps_its_original_and_runs_under_a_revision_of_its_own(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"), ("a", "waits"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        edit = office.command(scene, Action.EDIT, Slice(0, targets(scene, "bad"), (b"still bad?",)))
        send(scene, edit)
        eventually(lambda: scene.header_of("still bad?", "heddle-edit") == "1", "edited")
        assert scene.header_of("still bad?", "heddle-original") == "bad"
        again = office.command(scene, Action.EDIT, Slice(0, targets(scene, "still bad?"), (b"good",)), run=True)
        send(scene, again)
        scene.drained()
    assert scene.outputs_of("a") == ["GOOD", "WAITS"]
    assert outcomes(scene, edit) == ["edited"]
    assert [line.outcome for line in lines_of(scene, again.job)] == ["edited", "emitted", "emitted"]


def test_two_edits_of_one_version_are_not_both_made(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        target = targets(scene, "bad")
        first = office.command(scene, Action.EDIT, Slice(0, target, (b"bad: one",)))
        second = office.command(scene, Action.EDIT, Slice(0, target, (b"bad: two",)))
        send(scene, first, second)
        eventually(lambda: bool(outcomes(scene, second)), "both were seen")
    assert outcomes(scene, first) + outcomes(scene, second) == ["edited", "skipped"]
    assert scene.unresolved() == [("dead", "bad: one", "contract")]


@pytest.mark.parametrize(("settle_as", "outputs"), [("applied", []), ("not-applied", ["MAYBE"])])
def test_an_unknown_effect_is_decided_by_a_person(
    scene: Scene, office: Office, settle_as: str, outputs: list[str]
) -> None:
    step = scene.step()
    unknown = [True]

    def before(_: Record) -> None:
        if unknown:
            raise UnknownEffectError("the answer is lost")

    step.before = before
    scene.feed(("a", "maybe"))
    with running(scene.worker(step)):
        scene.settled(1)
        assert scene.unresolved()[0][0] == "unknown"
        unknown.clear()
        command = office.command(scene, Action.SETTLE, Slice(0, targets(scene, "maybe")), settle_as=settle_as)
        send(scene, command)
        scene.drained()
    assert outcomes(scene, command) == ["settled"]
    assert scene.outputs() == outputs


def test_only_what_is_unknown_can_be_settled(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.SETTLE, Slice(0, targets(scene, "bad")), settle_as="applied")
        send(scene, command)
        eventually(lambda: outcomes(scene, command) == ["skipped"], "refused")
    assert scene.unresolved() == [("dead", "bad", "contract")]


def test_imported_records_become_entries_once_and_gate_nothing(scene: Scene, office: Office) -> None:
    foreign = Foreign("orders-dlt:2", 3, b"a", b"bad import", (("x", b"1"),), 1_000, (("heddle-code", "Boom"),))
    with running(scene.worker(scene.step())):
        first = office.command(scene, Action.IMPORT, Slice(0, foreign=(foreign,)))
        second = office.command(scene, Action.IMPORT, Slice(0, foreign=(foreign,)))
        send(scene, first)
        eventually(lambda: outcomes(scene, first) == ["imported"], "imported")
        send(scene, second)
        eventually(lambda: outcomes(scene, second) == ["skipped"], "not twice")
        scene.feed(("a", "flows on"))
        scene.settled(1)
        assert scene.outputs() == ["FLOWS ON"]
        assert scene.unresolved() == [("dead", "bad import", "Boom")]
        discard = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad import")))
        send(scene, discard)
        scene.drained()
    [line] = lines_of(scene, discard.job)
    assert line.entry == "0-3@orders-dlt:2"


def test_what_is_not_signed_by_an_operator_known_here_is_refused_and_audited(
    scene: Scene, office: Office, tmp_path: Path
) -> None:
    scene.feed(("a", "bad"))
    mallory = make_key(tmp_path / "elsewhere", "ada")
    with running(scene.worker(scene.step())):
        scene.settled(1)
        good = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")))
        unsigned = replace(good, signatures=())
        forged = office.signed(unsigned, mallory)
        altered = replace(good, reason="another reason")
        other = replace(good.header, subscription="somebody-else")
        strangers = office.signed(replace(unsigned, header=other), office.ada)
        send(scene, unsigned, forged, altered, strangers)
        scene.append(scene.subscription.command_topic, Record("", 0, 0, None, b"{not json", [], 0))
        eventually(lambda: len(refusals(scene)) == 5, "all refused")
    assert [state for state, _, _ in scene.unresolved()] == ["dead"]
    assert {"not signed" in record.body["why"] for record in refusals(scene)} == {True, False}


def test_a_plan_of_another_handler_is_refused(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        send(scene, office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad")), handler="older"))
        eventually(lambda: bool(refusals(scene)), "refused")
    assert "handler has changed" in refusals(scene)[0].body["why"]


def test_a_command_expires(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), expires_in_s=-1)
    send(scene, command)
    with running(scene.worker(scene.step())):
        eventually(lambda: outcomes(scene, command) == ["expired"], "accounted for")
    assert [state for state, _, _ in scene.unresolved()] == ["dead"]


def test_where_two_must_sign_nothing_happens_before_the_second_has(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), approvals=2)
        send(scene, command, command)  # the same person twice is one
        eventually(lambda: len([r for r in scene.audit() if r.kind == "command"]) == 2, "both were read")
        assert lines_of(scene, command.job) == []
        bare = replace(command, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
        send(scene, office.signed(bare, office.grace))
        eventually(lambda: bool(lines_of(scene, command.job)), "done")
    assert outcomes(scene, command) == ["discarded"]


def test_the_owner_asks_for_the_projects_signatures_whatever_a_command_says(
    scene_of: Callable[..., Scene], office: Office
) -> None:
    scene = scene_of(approvals={Action.DISCARD: 2})
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), approvals=1)
        send(scene, command)
        eventually(lambda: any(r.kind == "command" for r in scene.audit()), "it was read")
        scene.feed(("b", "fine"))
        scene.settled(2)
        assert lines_of(scene, command.job) == []
        bare = replace(command, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
        send(scene, office.signed(bare, office.grace))
        eventually(lambda: bool(lines_of(scene, command.job)), "done")
    assert outcomes(scene, command) == ["discarded"]


def test_an_approval_still_counts_after_a_restart(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), approvals=2)
        send(scene, command)
        eventually(lambda: any(r.kind == "command" for r in scene.audit()), "waits for approval")
        scene.feed(("b", "fine"))
        scene.settled(2)
    bare = replace(command, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
    send(scene, office.signed(bare, office.grace))
    with running(scene.worker(scene.step())):
        eventually(lambda: outcomes(scene, command) == ["discarded"], "done by the successor")


def test_a_finished_job_is_not_run_again_because_an_earlier_one_is_still_open(scene: Scene, office: Office) -> None:
    """The earlier one waits for a second signature; the later one was cancelled by itself. Its worker restarts."""
    scene.feed(*[(f"k{n}", f"bad{n}") for n in range(60)])
    with running(scene.worker(scene.step(), batch_max_records=10)):
        scene.settled(60)
        waits = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad0")), approvals=2)
        rest = targets(scene, *[f"bad{n}" for n in range(1, 60)])
        stops = office.command(scene, Action.REPLAY, Slice(0, rest), max_failed=0.1)
        send(scene, waits, stops)
        eventually(lambda: len(outcomes(scene, stops)) == 59, "accounted for")
        scene.feed(("z", "fine"))
        scene.settled(61)
    ran = [line for line in lines_of(scene, stops.job) if line.outcome == "failed-again"]
    with running(scene.worker(scene.step(), batch_max_records=10)):
        bare = replace(waits, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
        send(scene, office.signed(bare, office.grace))
        eventually(lambda: outcomes(scene, waits) == ["discarded"], "the earlier one is done")
        scene.feed(("z", "fine too"))
        scene.settled(62)
    assert [line for line in lines_of(scene, stops.job) if line.outcome == "failed-again"] == ran


def test_what_the_dead_letter_topic_would_not_take_is_skipped(scene: Scene, office: Office) -> None:
    scene.admin.alter_topic(scene.subscription.dead_letter_topic, {"max.message.bytes": "1100000"})
    scene.feed(("a", "bad"), ("b", "bad too"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        large = office.command(scene, Action.EDIT, Slice(0, targets(scene, "bad"), (b"x" * 1_200_000,)))
        foreign = Foreign("elsewhere:0", 1, b"a", b"x" * 1_200_000, (), 1_000, ())
        both = [large, office.command(scene, Action.IMPORT, Slice(0, foreign=(foreign,)))]
        scene.admin.alter_topic(scene.subscription.command_topic, {"max.message.bytes": "4000000"})
        send(scene, *both)
        for command in both:
            eventually(lambda: outcomes(scene, command) == ["skipped"], "accounted for")  # noqa: B023
    assert {line.code for command in both for line in lines_of(scene, command.job)} == {"too-large"}


def test_imports_stay_within_the_caps(scene_of: Callable[..., Scene], office: Office) -> None:
    scene = scene_of(on_failure=replace(POLICY, caps=Caps(entries=2)))
    foreign = tuple(Foreign("elsewhere:0", n, b"a", b"bad", (), 1_000, ()) for n in range(3))
    with running(scene.worker(scene.step())):
        for each in foreign:
            command = office.command(scene, Action.IMPORT, Slice(0, foreign=(each,)))
            send(scene, command)
            eventually(lambda: bool(outcomes(scene, command)), "accounted for")  # noqa: B023
    assert len(scene.unresolved()) == 2
    assert [line.code for line in lines_of(scene, command.job)] == ["cap"]


def test_a_job_that_fails_too_often_stops_itself_and_accounts_for_the_rest(scene: Scene, office: Office) -> None:
    scene.feed(*[(f"k{n}", f"bad{n}") for n in range(100)])
    with running(scene.worker(scene.step(), batch_max_records=10)):
        scene.settled(100)
        everything = targets(scene, *[f"bad{n}" for n in range(100)])
        command = office.command(scene, Action.REPLAY, Slice(0, everything), max_failed=0.3)
        send(scene, command)
        eventually(lambda: len(outcomes(scene, command)) == 100, "accounted for")
    found = outcomes(scene, command)
    assert 20 <= found.count("failed-again") <= 40
    assert found.count("cancelled") == 100 - found.count("failed-again")


def test_a_cancelled_job_runs_no_further(scene: Scene, office: Office) -> None:
    scene.feed(*[(f"k{n}", f"bad{n}") for n in range(50)])
    with running(scene.worker(scene.step())):
        scene.settled(50)
        everything = targets(scene, *[f"bad{n}" for n in range(50)])
        command = office.command(scene, Action.REPLAY, Slice(0, everything), rate_per_s=2.0)
        send(scene, command)
        eventually(lambda: bool(outcomes(scene, command)), "it began")
        bare = replace(command, kind=Kind.CANCEL, signatures=(), index=-1, slice=None)
        send(scene, office.signed(bare, office.grace))
        eventually(lambda: len(outcomes(scene, command)) == 50, "accounted for")
    assert outcomes(scene, command).count("cancelled") > 30


def test_a_follower_that_was_ordered_too_is_accounted_for_when_its_head_fails(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"), ("a", "waits"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad", "waits")))
        send(scene, command)
        eventually(lambda: len(outcomes(scene, command)) == 2, "both accounted for")
    assert outcomes(scene, command) == ["failed-again", "skipped"]
    assert lines_of(scene, command.job)[-1].code == "blocked"


def test_retrying_entries_run_before_their_time_when_they_are_told_to(scene: Scene, office: Office) -> None:
    step = scene.step()
    down = [True]

    def before(_: Record) -> None:
        if down:
            raise TransientError("reset")

    step.before = before
    scene.feed(("a", "one"))
    with running(scene.worker(step)):
        scene.settled(1)
        assert scene.unresolved() == [("retrying", "one", "transient")]
        down.clear()
        command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "one")))
        send(scene, command)
        scene.drained()
    assert outcomes(scene, command) == ["emitted"]


def test_a_command_for_another_partition_than_its_slice_is_refused(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        send(scene, office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad"))), partition=1)
        eventually(lambda: bool(refusals(scene)), "refused")
    assert [state for state, _, _ in scene.unresolved()] == ["dead"]


def test_an_approval_counts_for_what_was_signed_and_not_for_another_plan_of_that_job(
    scene_of: Callable[..., Scene], office: Office
) -> None:
    scene = scene_of(approvals={Action.DISCARD: 2})
    scene.feed(("a", "bad"), ("b", "bad too"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
        shown = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")), job="one")
        bare = replace(shown, kind=Kind.APPROVE, signatures=(), index=-1, slice=None)
        other = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad too")), job="one")
        send(scene, office.signed(bare, office.grace), other)
        eventually(lambda: any(r.kind == "command" for r in scene.audit()), "it was read")
        scene.feed(("c", "fine"))
        scene.settled(3)
        assert lines_of(scene, "one") == []
        send(scene, shown)
        eventually(lambda: bool(lines_of(scene, "one")), "what was approved is done")
    assert scene.unresolved() == [("dead", "bad too", "contract")]


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"index":0', b'"index":1e30'),
        (b'"partition":0', b'"partition":1e30'),
        (b'"expires_at_ms":', b'"expires_at_ms":1e30,"was":'),
        (b'"rate_per_s":0.0', b'"rate_per_s":' + 900 * b"[" + 900 * b"]"),
        (b'"max_failed":1.0', b'"max_failed":"all"'),
        (b'"approvals":1', b'"approvals":[]'),
        (b'"job":"', b'"job":"' + 2_000 * b"j"),
        (b'"signatures":[', b'"signatures":[' + 100 * b'["ada",""],'),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_and_ends_no_worker(
    scene: Scene, office: Office, was: bytes, becomes: bytes
) -> None:
    """Nobody has signed it: whoever may write into the topic can send such."""
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        data = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad"))).pack()
        assert was in data
        odd = Record("", 0, 0, None, data.replace(was, becomes, 1), [], 0)
        scene.append(scene.subscription.command_topic, odd)
        eventually(lambda: len(refusals(scene)) == 1, "refused")
    assert [state for state, _, _ in scene.unresolved()] == ["dead"]


def test_commands_that_retention_took_keep_nobody_from_the_later_ones(
    scene: Scene, office: Office, world: World
) -> None:
    for _ in range(3):
        scene.append(scene.subscription.command_topic, Record("", 0, 0, None, b"{}", [], 0))
    world.delete_before(scene.subscription.command_topic, 0, 4)
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        command = office.command(scene, Action.DISCARD, Slice(0, targets(scene, "bad")))
        send(scene, command)
        scene.drained()
    assert outcomes(scene, command) == ["discarded"]


@pytest.mark.parametrize("action", [Action.REPLAY, Action.EDIT])
def test_an_unknown_effect_is_not_tried_again_before_it_is_settled(
    scene: Scene, office: Office, action: Action
) -> None:
    step = scene.step()

    def before(_: Record) -> None:
        raise UnknownEffectError("the answer is lost")

    step.before = before
    scene.feed(("a", "maybe"))
    with running(scene.worker(step)):
        scene.settled(1)
        step.before = lambda _: None
        part = Slice(0, targets(scene, "maybe"), (b"other",) if action is Action.EDIT else ())
        command = office.command(scene, action, part, run=action is Action.EDIT)
        send(scene, command)
        eventually(lambda: bool(outcomes(scene, command)), "seen")
    assert [(line.outcome, line.code) for line in lines_of(scene, command.job)] == [("skipped", "unknown")]
    assert scene.unresolved() == [("unknown", "maybe", "unknown-effect")]
    assert scene.outputs() == []


def test_an_open_breaker_does_not_wait_for_what_waits_for_others(
    scene_of: Callable[..., Scene], office: Office
) -> None:
    """A slow replay opens it; then all that is live belongs to a parked key, and nothing is there to probe with."""
    policy = replace(POLICY, breaker=Breaker(keys=3, first_probe_s=0.05, longest_probe_s=0.1), quick_tries=1)
    scene = scene_of(on_failure=policy)
    step, down = scene.step(), [True]

    def one(record: Record) -> object:
        if record.value == b"parks":
            raise ContractError("bad value")
        if down:
            raise TransientError("503")
        return unless({}, step)(record)

    scene.feed(*[(key, "parks") for key in "abc"])
    step.one = one  # type: ignore[method-assign]
    with running(scene.worker(step)) as [worker]:
        scene.settled(3)
        edits = [entry_of(record) for record in scene.newest()]
        named = tuple(Target(entry.topic_id, entry.offset, entry.version) for entry in edits)
        edited = office.command(scene, Action.EDIT, Slice(0, named, (b"1", b"2", b"3")))
        send(scene, edited)
        eventually(lambda: len(outcomes(scene, edited)) == 3, "edited")
        slow = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "1", "2", "3")), rate_per_s=0.7)
        send(scene, slow)
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker is open")
        scene.feed(("a", "live"))
        scene.settled(4)
        down.clear()
        eventually(lambda: len(outcomes(scene, slow)) == 3 and worker.worker._judge.board.reason is None, "it closes")


def test_a_replayed_entry_that_kills_the_process_is_found_and_live_records_flow(scene: Scene, office: Office) -> None:
    class Killed(BaseException):
        pass

    scene.feed(("a", "bad"), *[(f"k{n}", "bad other") for n in range(5)])
    with running(scene.worker(scene.step())):
        scene.settled(6)
    command = office.command(scene, Action.REPLAY, Slice(0, targets(scene, "bad")))
    send(scene, command)

    def before(record: Record) -> None:
        if record.value == b"bad":
            raise Killed

    def ran() -> bool:
        scene.feed(("live", "x"), ("live too", "x"))
        return bool(outcomes(scene, command))

    crashes = 0
    for _ in range(6):
        step = scene.step()
        step.before = before
        driven = Driven(scene.worker(step))
        driven.open()
        try:
            driven.until(ran)
        except Killed:
            crashes += 1
            driven.abandon()
            continue
        driven.until(lambda: driven.worker._assignment.bound == 2_000)  # noqa: B023
        driven.close()
        break
    assert crashes == 3
    assert ("dead", "bad", "kills-the-process") in scene.unresolved()


def test_the_account_of_a_job_that_stopped_itself_survives_a_crash(scene: Scene, office: Office) -> None:
    """It stops in the middle of a batch, whose next part commits before the desk has its turn."""
    scene.feed(*[(f"k{n}", f"bad{n}") for n in range(60)])
    with running(scene.worker(scene.step(), batch_max_records=10)):
        scene.settled(60)
    everything = targets(scene, *[f"bad{n}" for n in range(60)])
    command = office.command(scene, Action.REPLAY, Slice(0, everything), max_failed=0.3)
    send(scene, command)
    dying = Driven(scene.worker(scene.step(), batch_max_records=20))
    dying.open()
    desk = dying.worker._desk

    def aborted() -> bool:
        return bool(desk._out.lines)

    real = dying.worker._serve_operators
    dying.worker._serve_operators = lambda group: not aborted() and real(group)  # type: ignore[method-assign]
    dying.until(aborted)
    scene.feed(("z", "fine"))
    dying.until(lambda: scene.counts().total == 61)
    dying.abandon()
    with running(scene.worker(scene.step())):
        eventually(lambda: len(outcomes(scene, command)) == 60, "accounted for")


def test_the_marker_of_an_edit_is_as_young_as_the_edit(scene: Scene, office: Office) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())) as [worker]:
        scene.settled(1)
        [index] = [i for i in worker.worker._indexes.values() if len(i)]
        [entry] = index._entries.values()
        entry.appended_ms -= 30 * 86_400_000
        edit = office.command(scene, Action.EDIT, Slice(0, targets(scene, "bad"), (b"good",)), run=True)
        send(scene, edit)
        scene.drained()
        assert index.expired_markers(int(time.time() * 1000), 9) == []
        assert not index.is_empty
