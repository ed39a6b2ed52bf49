"""What becomes of failures, on both brokers: retries, lanes, breaker, budget, modes, caps, the attempt marker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from broker_world import World
from delivery_harness import Driven, Running, Scene, eventually, running

from heddle.broker.log import Broker, Record
from heddle.delivery.clock import SystemClock
from heddle.errors import (
    DependencyDownError,
    Park,
    RateLimitError,
    RetryLater,
    Stop,
    TransientError,
    UnknownEffectError,
)
from heddle.integration import Outcome
from heddle.on_failure import Breaker, Caps, FailureBudget, OnFailure, Retry

MakeScene = Callable[..., Scene]
SOON = Retry(tries=3, first_delay_s=0.05, longest_delay_s=0.1)
QUICK = OnFailure(transient=SOON, unknown=SOON, breaker=Breaker(keys=1_000), budget=FailureBudget(ratio=1))


@pytest.fixture
def broker(world: World) -> Broker:
    return world.broker


@pytest.fixture
def scene_of(broker: Broker) -> Iterator[MakeScene]:
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(broker, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(scene_of: MakeScene) -> Scene:
    return scene_of(on_failure=QUICK)


def fails(times: int, *values: bytes, error: Callable[[], Exception]) -> Callable[[Record], None]:
    """A handler that fails so often on each of these values."""
    left = dict.fromkeys(values, times)

    def before(record: Record) -> None:
        if left.get(record.value or b"", 0):
            left[record.value or b""] -= 1
            raise error()

    return before


def test_a_transient_failure_is_retried_in_order_and_leaves_nothing_behind(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(2, b"one", error=lambda: TransientError("reset"))
    scene.feed(("a", "one"), ("a", "two"), ("b", "free"))
    with running(scene.worker(step)):
        scene.settled(3)
        scene.drained()
    assert scene.outputs_of("a") == ["ONE", "TWO"]
    assert scene.entry_counts()[Outcome.EMITTED] == 2
    assert scene.entry_counts()[Outcome.PARKED] == 1
    assert scene.unresolved() == []


def test_a_live_record_never_overtakes_what_waits(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(2, b"0", error=lambda: TransientError("reset"))
    with running(scene.worker(step)):
        for number in range(30):
            scene.feed(("a", str(number)))
        scene.settled(30)
        scene.drained()
    assert scene.outputs_of("a") == [str(number) for number in range(30)]


def test_after_its_last_try_a_record_is_dead_and_its_attempts_are_counted(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(99, b"one", error=lambda: TransientError("reset"))
    scene.feed(("a", "one"), ("a", "two"))
    with running(scene.worker(step)):
        eventually(lambda: ("dead", "one", "transient") in scene.unresolved(), "dead at last")
    assert scene.unresolved() == [("dead", "one", "transient"), ("waiting", "two", "0-0")]
    assert scene.header_of("one", "heddle-attempts") == "3"
    assert scene.outputs() == []


def test_attempts_survive_a_restart(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(99, b"one", error=lambda: TransientError("reset"))
    scene.feed(("a", "one"))
    for attempts in ("1", "2", "3"):
        with running(scene.worker(step)):
            eventually(lambda: scene.header_of("one", "heddle-attempts") >= attempts, "one more")  # noqa: B023
    assert len(step.attempts) == 0
    assert scene.unresolved() == [("dead", "one", "transient")]


def test_a_handler_says_when_it_wants_to_be_tried_again_and_when_never(scene: Scene) -> None:
    step = scene.step()

    def before(record: Record) -> None:
        if record.value == b"later":
            raise RetryLater("not yet", after=timedelta(hours=1))
        if record.value == b"never":
            raise Park("closed books")
        if record.value == b"who knows":
            raise UnknownEffectError("the answer is lost")

    step.before = before
    scene.feed(("a", "later"), ("b", "never"), ("c", "who knows"))
    with running(scene.worker(step)):
        scene.settled(3)
    assert [state for state, _, _ in scene.unresolved()] == ["retrying", "dead", "unknown"]
    assert int(scene.header_of("later", "heddle-retry-after-ms")) == 3_600_000


def test_a_handler_that_stops_is_stopped_before_the_record(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(1, b"two", error=lambda: Stop("the ledger is closed"))
    scene.feed(("a", "one"), ("b", "two"), ("c", "three"))
    assert isinstance(Running(scene.worker(step)).ended(), Stop)
    assert scene.outputs() == ["ONE"]
    scene.settled(1)
    with running(scene.worker(scene.step())):
        scene.settled(3)


def test_a_rate_limit_waits_as_told_and_burns_no_attempt(scene: Scene) -> None:
    step = scene.step()
    step.before = fails(2, b"two", error=lambda: RateLimitError("429", after=timedelta(seconds=0.3)))
    scene.feed(("a", "one"), ("b", "two"), ("c", "three"))
    with running(scene.worker(step)):
        scene.settled(3)
    assert sorted(scene.outputs()) == ["ONE", "THREE", "TWO"]
    assert scene.entries() == []


def test_many_keys_failing_alike_open_the_breaker_and_nothing_is_parked(scene_of: MakeScene) -> None:
    breaker = Breaker(keys=5, first_probe_s=0.1, longest_probe_s=0.2)
    scene = scene_of(on_failure=OnFailure(transient=SOON, breaker=breaker))
    step, down = scene.step(), threading.Event()
    down.set()
    tried = threading.Event()

    def before(record: Record) -> None:
        if down.is_set() and record.value != b"first":
            tried.set()
            raise TransientError("503")

    step.before = before
    scene.feed(("x", "first"), *[(f"k{i}", f"v{i}") for i in range(40)])
    with running(scene.worker(step)) as [worker]:
        scene.settled(1)
        assert tried.wait(20)
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker is open")
        eventually(lambda: any(r.kind == "paused" for r in scene.audit()), "the pause is told")
        assert scene.counts().total == 1
        down.clear()
        scene.settled(41)
    assert scene.entries() == []
    assert len(scene.outputs()) == 41


def test_an_open_breaker_probes_with_one_record(scene_of: MakeScene) -> None:
    scene = scene_of(on_failure=OnFailure(breaker=Breaker(keys=3, first_probe_s=0.05, longest_probe_s=0.05)))
    step = scene.step()
    calls: list[bytes] = []

    def before(record: Record) -> None:
        calls.append(record.value or b"")
        raise TransientError("503")

    step.before = before
    scene.feed(*[(f"k{i}", f"v{i}") for i in range(10)])
    with running(scene.worker(step)):
        eventually(lambda: len(calls) >= 20, "probes")
    assert len(set(calls[10:20])) == 10
    assert scene.entries() == []


def test_a_key_with_its_own_trouble_does_not_keep_the_breaker_open_for_others(scene_of: MakeScene) -> None:
    """What is due fails on; a live record is the one that is asked whether the target answers."""
    breaker = Breaker(keys=3, ratio=0.5, first_probe_s=0.05, longest_probe_s=0.1)
    long = Retry(tries=99, first_delay_s=0.05, longest_delay_s=0.05)
    scene = scene_of(on_failure=OnFailure(transient=long, breaker=breaker))
    step = scene.step()
    step.before = fails(10_000, b"bad a", b"bad b", b"bad c", error=lambda: TransientError("503"))
    with running(scene.worker(step)) as [worker]:
        for key in "abc":
            scene.feed((key, f"bad {key}"))
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker is open")
        for number in range(20):
            scene.feed((f"k{number}", f"v{number}"))
        eventually(lambda: len(scene.outputs()) == 20, "the others flow")


@pytest.mark.parametrize(("error", "state"), [(Park, "dead"), (UnknownEffectError, "unknown")])
def test_what_says_nothing_of_the_target_does_not_keep_the_breaker_open(
    scene_of: MakeScene, error: type[Exception], state: str
) -> None:
    """The target is back, and all that is left has troubles of its own; nothing else comes."""
    scene = scene_of(on_failure=OnFailure(breaker=Breaker(keys=3, first_probe_s=0.05, longest_probe_s=0.1)))
    step, down = scene.step(), threading.Event()
    down.set()

    def before(_: Record) -> None:
        raise TransientError("503") if down.is_set() else error("no")

    step.before = before
    scene.feed(*[(f"k{i}", f"v{i}") for i in range(5)])
    with running(scene.worker(step)) as [worker]:
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker is open")
        assert scene.entries() == []
        down.clear()
        scene.settled(5)
    assert [each[0] for each in scene.unresolved()] == [state] * 5


def test_followers_of_failed_keys_do_not_speak_for_the_target(scene_of: MakeScene) -> None:
    """Few keys with many records each: what was skipped behind a failure did not succeed."""
    breaker = Breaker(keys=5, first_probe_s=0.05, longest_probe_s=0.1)
    scene = scene_of(on_failure=OnFailure(transient=SOON, breaker=breaker))
    step, down = scene.step(), threading.Event()
    down.set()

    def before(_: Record) -> None:
        if down.is_set():
            raise TransientError("503")

    step.before = before
    scene.feed(*[(f"k{i}", f"v{i}.{n}") for i in range(8) for n in range(20)])
    with running(scene.worker(step)) as [worker]:
        eventually(lambda: worker.worker._judge.board.reason is not None, "the breaker is open")
        down.clear()
        scene.settled(160)
    assert scene.entries() == []


def test_a_flood_of_failures_stops_before_it_is_parked(scene_of: MakeScene) -> None:
    scene = scene_of(on_failure=OnFailure(budget=FailureBudget(records=50)))
    scene.feed(*[(f"k{i}", f"v{i}") for i in range(30)])
    with running(scene.worker(scene.step())):
        scene.settled(30)
    scene.feed(*[(f"k{i}", f"bad{i}") for i in range(100)])
    error = Running(scene.worker(scene.step())).ended()
    assert isinstance(error, Stop)
    assert error.code == "failure-budget"
    assert error.exit_code == 6
    assert scene.entries() == []
    scene.settled(30)


def test_a_few_failures_among_many_are_within_the_budget(scene_of: MakeScene) -> None:
    scene = scene_of(on_failure=OnFailure(budget=FailureBudget(records=50)))
    scene.feed(*[(f"k{i}", f"{'bad' if i % 3 == 0 else 'v'}{i}") for i in range(300)])
    with running(scene.worker(scene.step())):
        scene.settled(300)
    assert len(scene.entries()) == 100


def test_mode_stop_tries_again_in_place_and_then_stops_with_nothing_parked(scene_of: MakeScene) -> None:
    scene = scene_of(order="stop", on_failure=QUICK)
    step = scene.step()
    step.before = fails(2, b"two", error=lambda: TransientError("reset"))
    scene.feed(("a", "one"), ("a", "two"), ("a", "bad"), ("a", "three"))
    error = Running(scene.worker(step)).ended()
    assert isinstance(error, Stop)
    assert "offset 2" in str(error)
    assert scene.outputs() == ["ONE", "TWO"]
    assert scene.entries() == []
    scene.settled(2)


def test_mode_stop_gives_up_after_the_last_try(scene_of: MakeScene) -> None:
    scene = scene_of(order="stop", on_failure=QUICK)
    step = scene.step()
    calls = []

    def before(_: Record) -> None:
        calls.append(1)
        raise TransientError("reset")

    step.before = before
    scene.feed(("a", "one"))
    assert isinstance(Running(scene.worker(step)).ended(), Stop)
    assert len(calls) == SOON.tries


def test_mode_stop_counts_the_tries_of_a_record_whatever_settles_before_it(scene_of: MakeScene) -> None:
    scene = scene_of(order="stop", on_failure=QUICK)
    step = scene.step()
    calls = []

    def before(record: Record) -> None:
        if record.value == b"two":
            calls.append(1)
            raise TransientError("reset")

    step.before = before
    scene.feed(("a", "one"), ("a", "two"))
    assert isinstance(Running(scene.worker(step)).ended(), Stop)
    assert len(calls) == SOON.tries


def test_mode_continue_retries_without_holding_anything_back(scene_of: MakeScene) -> None:
    scene = scene_of(order="continue", on_failure=QUICK)
    step = scene.step()
    step.before = fails(1, b"one", error=lambda: TransientError("reset"))
    scene.feed(("a", "one"), ("a", "two"))
    with running(scene.worker(step)):
        scene.settled(2)
        scene.drained()
    assert scene.outputs() == ["TWO", "ONE"]


def test_mode_supersede_resolves_what_a_newer_event_has_overtaken(scene_of: MakeScene) -> None:
    scene = scene_of(order="supersede", on_failure=QUICK)
    scene.feed(("a", "bad1"), ("a", "bad2"), ("b", "bad3"), ("a", "good"), ("a", "bad4"))
    with running(scene.worker(scene.step())):
        scene.settled(5)
    assert scene.outputs() == ["GOOD"]
    assert [value for _, value, _ in scene.unresolved()] == ["bad3", "bad4"]
    superseded = [line for record in scene.audit() for line in record.lines if line.outcome == "superseded"]
    assert [line.entry for line in superseded] == [] or {line.entry for line in superseded} <= {"0-0", "0-1"}


def test_mode_supersede_resolves_older_entries_of_earlier_batches_too(scene_of: MakeScene) -> None:
    scene = scene_of(order="supersede", on_failure=QUICK)
    scene.feed(("a", "bad1"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        scene.feed(("a", "good"))
        scene.settled(2)
        assert scene.unresolved() == []
    lines = [line for record in scene.audit() for line in record.lines]
    assert ("superseded", "0-0") in [(line.outcome, line.entry) for line in lines]


def test_at_its_cap_a_partition_reads_nothing_new_and_goes_on_when_there_is_room(scene_of: MakeScene) -> None:
    caps = OnFailure(caps=Caps(entries=5), transient=SOON, budget=FailureBudget(ratio=1), breaker=Breaker(keys=1_000))
    scene = scene_of(on_failure=caps)
    step, down = scene.step(), threading.Event()
    down.set()

    def before(record: Record) -> None:
        if down.is_set() and (record.value or b"").startswith(b"r"):
            raise RetryLater("later", after=timedelta(seconds=0.2))

    step.before = before
    scene.feed(*[(f"k{i}", f"r{i}") for i in range(12)])
    scene.feed(("z", "elsewhere"), partition=1)
    with running(scene.worker(step)):
        scene.settled(6)  # five parked, and the other partition's one
        eventually(lambda: any(r.kind == "paused" for r in scene.audit()), "the audit trail says why")
        assert scene.counts().total == 6
        assert len(scene.unresolved()) == 5
        down.clear()
        scene.settled(13)
        scene.drained()
    assert len(scene.outputs()) == 13
    assert {record.body["why"] for record in scene.audit() if record.kind == "paused"} == {"cap: 5 entries"}


def test_a_key_at_its_cap_closes_its_partition_and_says_so_once(scene_of: MakeScene) -> None:
    policy = OnFailure(caps=Caps(entries_per_key=2), transient=SOON, breaker=Breaker(keys=1_000))
    scene = scene_of(on_failure=policy)
    scene.feed(("a", "bad"), ("a", "one"), ("a", "two"), ("b", "behind it"))
    scene.feed(("z", "elsewhere"), partition=1)
    with running(scene.worker(scene.step())):
        scene.settled(3)
        for number in range(3):
            scene.feed(("z", f"more {number}"), partition=1)
            scene.settled(4 + number)
    told = [record.body["why"] for record in scene.audit() if record.kind == "paused"]
    assert told == ["cap: 2 entries of one key"]


def test_a_read_back_dead_letter_topic_that_was_tampered_with_stops_the_worker(scene: Scene) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    [entry] = scene.read(scene.subscription.dead_letter_topic)
    headers = [(n, b"7" if n == "heddle-format" else v) for n, v in entry.headers]
    scene.append(scene.subscription.dead_letter_topic, entry._replace(headers=headers))
    assert "format version" in str(Running(scene.worker(scene.step())).ended())


class Killed(BaseException):
    """The process dies."""


def test_a_record_that_kills_the_process_is_dead_after_its_third_crash_and_its_neighbours_are_not(scene: Scene) -> None:
    """A crash is played by leaving the worker where it is; the fault tests kill real processes."""
    scene.feed(*[(f"k{i}", "kill" if i == 70 else f"v{i}") for i in range(150)])
    crashes = 0

    def before(record: Record) -> None:
        if record.value == b"kill":
            raise Killed

    sizes = []
    for _ in range(10):
        step = scene.step()
        step.before = before
        driven = Driven(scene.worker(step))
        driven.open()
        try:
            driven.until(lambda: scene.counts().total == 150)
        except Killed:
            crashes += 1
            sizes.append(len(step.attempts))
            driven.abandon()
            continue
        driven.close()
        break
    assert crashes == 3
    assert scene.unresolved() == [("dead", "kill", "kills-the-process")]
    assert len(scene.outputs()) == 149


def test_crashes_while_nothing_is_in_hand_suspect_nothing(scene: Scene) -> None:
    for _ in range(4):
        driven = Driven(scene.worker(scene.step()))
        driven.open()
        driven.until(lambda: scene.metadata(0).started > 0 and scene.metadata(1).started > 0)
        driven.abandon()
    scene.feed(("a", "one"), ("a", "two"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
    assert scene.outputs() == ["ONE", "TWO"]
    assert scene.entries() == []


def test_a_suspicion_does_not_outlast_the_records_that_it_is_about(scene: Scene) -> None:
    """The last offset of a topic that is written in transactions is no record."""
    scene.feed(("a", "one"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    for _ in range(4):
        driven = Driven(scene.worker(scene.step()))
        driven.open()
        driven.until(lambda: len(driven.worker._assignment.owned) == 2)  # noqa: B023
        assert driven.worker._assignment.bound == 2_000
        driven.abandon()


def test_nobody_is_condemned_for_having_waited_when_the_process_died(scene: Scene) -> None:
    """Twice the process dies of it, then the target is down, and the waiting worker is killed."""

    class Dying(SystemClock):
        def wait(self, _stop: threading.Event, _seconds: float) -> bool:
            raise Killed

    scene.feed(("a", "one"))
    for error in (Killed(), Killed(), DependencyDownError("down"), None):
        step = scene.step()
        step.before = fails(1, b"one", error=lambda: error) if error else step.before  # type: ignore[arg-type, return-value]  # noqa: B023
        driven = Driven(scene.worker(step))
        driven.worker._clock = Dying()
        driven.open()
        try:
            driven.until(lambda: scene.counts().total == 1)
        except Killed:
            driven.abandon()
        else:
            driven.close()
    assert scene.outputs() == ["ONE"]
    assert scene.entries() == []


def test_offsets_moved_from_outside_are_a_reset_in_the_audit_trail(scene: Scene) -> None:
    scene.feed(("a", "one"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    scene.move_offsets({0: 0})
    with running(scene.worker(scene.step())):
        eventually(lambda: len(scene.outputs()) == 2, "read again")
    kinds = [record.kind for record in scene.audit()]
    assert kinds == ["batch", "external-reset", "batch"]


def test_a_regulated_subscription_has_a_line_for_every_event(scene_of: MakeScene) -> None:
    scene = scene_of(regulated=True)
    scene.feed(("a", "one"), ("b", "bad"), ("b", "after"), ("c", "two"))
    with running(scene.worker(scene.step())):
        scene.settled(4)
    lines = sorted((line.offset, line.outcome) for record in scene.audit() for line in record.lines)
    assert lines == [(0, "emitted"), (1, "parked"), (2, "diverted"), (3, "emitted")]
    assert all(line.hash and line.identity for record in scene.audit() for line in record.lines)


def test_every_batch_is_in_the_audit_trail_with_its_counts_and_the_chain_holds(scene: Scene) -> None:
    scene.feed(("a", "one"), ("b", "bad"), ("b", "after"))
    with running(scene.worker(scene.step())):
        scene.settled(3)
        scene.feed(("c", "two"))
        scene.settled(4)
    records = scene.audit()
    assert [record.kind for record in records] == ["batch"] * len(records)
    assert {record.body["code"] for record in records} == {scene.step().digest}
    assert sum(sum(record.body["counts"].values()) for record in records) == 4
    lines = [(line.outcome, line.offset) for record in records for line in record.lines]
    assert lines == [("parked", 1), ("diverted", 2)]
    assert scene.metadata().audit_head == records[-1].hash
    assert scene.chain_break() is None
