"""The delivery semantics, on both brokers: settlement, parking, the assignment handshake, pauses and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from broker_world import World
from delivery_harness import DEADLINE_S, Running, Scene, eventually, running, values
from structlog.testing import capture_logs

from heddle.broker.log import Broker, Outgoing, Position, Record
from heddle.broker.memory import MemoryBroker
from heddle.delivery.envelope import Envelope, State
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.steps import Budget, Result, Run, listed
from heddle.delivery.subscription import Subscription
from heddle.delivery.worker import Worker
from heddle.errors import (
    AuthError,
    BrokerError,
    DependencyDownError,
    Failure,
    FailureClass,
    FencedError,
    OffsetLostError,
    UsageError,
)
from heddle.integration import Applied, Outcome, PartitionFencedError
from heddle.operators import Operators
from heddle.settings import Settings

MakeScene = Callable[..., Scene]


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
    return scene_of()


def test_every_record_settles_and_the_counts_commit_with_the_offsets(scene: Scene) -> None:
    fed = [("a", "one"), ("b", "two"), ("", "three")]
    scene.feed(*fed)
    scene.feed(("c", "four"), partition=1)
    with running(scene.worker(scene.step())):
        scene.settled(4)
    assert sorted(scene.outputs()) == sorted([*values(fed), "FOUR"])
    assert scene.counts().by_outcome[Outcome.EMITTED] == 4


def test_a_failed_record_is_dead_and_later_ones_of_its_key_wait_behind_it(scene: Scene) -> None:
    scene.feed(("a", "bad1"), ("a", "next"), ("b", "fine"), ("", "bad2"), ("", "free"), ("a", "last"))
    with running(scene.worker(scene.step())):
        scene.settled(6)
        scene.feed(("a", "later batch"))
        scene.settled(7)
    assert sorted(scene.outputs()) == ["FINE", "FREE"]
    assert scene.entries() == [
        ("dead", "bad1", "contract"),
        ("waiting", "next", "0-0"),
        ("dead", "bad2", "contract"),
        ("waiting", "last", "0-0"),
        ("waiting", "later batch", "0-0"),
    ]
    counts = scene.counts().by_outcome
    assert (counts[Outcome.EMITTED], counts[Outcome.PARKED], counts[Outcome.DIVERTED]) == (2, 2, 3)


def test_a_successor_restores_the_gates_before_it_reads(scene: Scene) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    scene.feed(("a", "held"), ("b", "free"))
    with running(scene.worker(scene.step())):
        scene.settled(3)
    assert scene.outputs() == ["FREE"]
    assert scene.entries()[-1] == ("waiting", "held", "0-0")


def test_mode_continue_lets_later_events_of_the_key_pass(scene_of: MakeScene) -> None:
    scene = scene_of(order="continue")
    scene.feed(("a", "bad"), ("a", "next"))
    with running(scene.worker(scene.step())):
        scene.settled(2)
    assert scene.outputs() == ["NEXT"]


def test_a_record_read_again_while_its_entry_is_unresolved_is_a_duplicate(scene: Scene) -> None:
    scene.feed(("a", "bad"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
    _commit(scene, {0: Position(0, scene.metadata().pack())})
    with running(scene.worker(scene.step())):
        scene.settled(2)
    assert scene.counts().by_outcome[Outcome.DUPLICATE] == 1
    assert len(scene.entries()) == 1


def test_a_dependency_that_is_down_pauses_and_nothing_becomes_dead(scene: Scene) -> None:
    step, down = scene.step(), threading.Event()
    down.set()

    def before(record: Record) -> None:
        if down.is_set() and record.value == b"two":
            raise DependencyDownError("the registry does not answer")

    step.before = before
    scene.feed(("a", "one"), ("b", "two"), ("c", "three"))
    with running(scene.worker(step)):
        scene.settled(1)  # what was attempted before it stands
        assert scene.outputs() == ["ONE"]
        down.clear()
        scene.settled(3)
    assert sorted(scene.outputs()) == ["ONE", "THREE", "TWO"]
    assert scene.entries() == []


def test_a_worker_stops_while_its_dependency_is_down_and_loses_nothing(scene: Scene) -> None:
    step = scene.step()
    tried = threading.Event()

    def before(_: Record) -> None:
        tried.set()
        raise DependencyDownError("down")

    step.before = before
    scene.feed(("a", "one"))
    with running(scene.worker(step)):
        assert tried.wait(40)
    with running(scene.worker(scene.step())):
        scene.settled(1)
    assert scene.outputs() == ["ONE"]


def test_refused_credentials_stop_the_worker_after_what_was_attempted_is_settled(scene: Scene) -> None:
    step = scene.step()

    def before(record: Record) -> None:
        if record.value == b"two":
            raise AuthError("401")

    step.before = before
    scene.feed(("a", "one"), ("b", "two"))
    assert isinstance(Running(scene.worker(step)).ended(), AuthError)
    assert scene.outputs() == ["ONE"]
    assert scene.entries() == []
    scene.settled(1)


def test_the_batch_deadline_cuts_the_tail_and_the_tail_is_run_next(scene: Scene) -> None:
    step = scene.step()
    clock = threading.Event()
    step.before = lambda _: (clock.wait(0.2), None)[1]
    scene.feed(*[(str(i), f"v{i}") for i in range(5)])
    with running(scene.worker(step, batch_deadline_s=0.3)):
        scene.settled(5)
        scene.feed(("5", "v5"))  # what was in hand during the cut must not be read again before it
        scene.settled(6)
    assert sorted(scene.outputs()) == [f"V{i}" for i in range(6)]
    assert len(step.attempts) == 6


def test_an_output_over_the_topics_limit_is_that_records_failure(scene: Scene) -> None:
    step = scene.step()
    step.one = lambda r: [Outgoing(step.output, r.key, b"x" * (2_000_000 if r.value == b"big" else 1))]  # type: ignore[method-assign]
    scene.feed(("a", "big"), ("b", "small"))
    with running(scene.worker(step)):
        scene.settled(2)
    assert scene.entries() == [("dead", "big", "too-large")]


def test_workers_create_no_topics(broker: Broker) -> None:
    subscription = Subscription("nosuch", "nosuch.in")
    worker = Worker(subscription, _Nothing(), broker, Settings(), audit_key=b"key", operators=Operators({}))
    with pytest.raises(UsageError, match=r"nosuch\.in, nosuch\.dlq, nosuch\.commands, nosuch\.audit") as caught:
        worker.run(threading.Event())
    assert "heddle apply" in caught.value.hint


def test_a_second_process_of_one_instance_fences_the_first_which_must_not_restart(scene: Scene) -> None:
    first = Running(scene.worker(scene.step()))
    eventually(lambda: scene.metadata().started == 1 and scene.metadata(1).started == 1, "the first owns both")
    usurper = scene.broker.producer(scene.subscription.transactional_id("0"))
    usurper.init(30)
    scene.feed(("a", "one"))
    assert isinstance(first.ended(), FencedError)
    assert scene.outputs() == []
    usurper.close()


def test_started_tells_a_successor_whether_the_owner_gave_the_partition_back(scene: Scene) -> None:
    with running(scene.worker(scene.step())):
        eventually(lambda: scene.metadata().started == 1, "handshake done")
        scene.feed(("a", "one"))
        scene.settled(1)
        assert scene.metadata().started == 1
        eventually(lambda: scene.metadata(1).started == 1, "the idle partition has its mark")
    eventually(lambda: scene.metadata(0).started == scene.metadata(1).started == 0, "a clean release takes it back")
    crashed = scene.metadata(1).taken_over(2).taken_over(2)
    _commit(scene, {1: Position(0, crashed.pack())})
    with running(scene.worker(scene.step())):
        eventually(lambda: scene.metadata(1).started == 3, "a crash is seen by the next owner")


def test_partitions_that_move_idle_leave_no_suspicion_behind(scene: Scene) -> None:
    with running(scene.worker(scene.step(), instance="a")):
        eventually(lambda: scene.metadata(0).started == scene.metadata(1).started == 1, "the first owns both")
        second = _FencedSink()
        with running(scene.worker(second, instance="b")), capture_logs() as logs:  # type: ignore[arg-type]
            eventually(lambda: bool(second.bumps), "one partition moved")
            eventually(lambda: scene.metadata(0).started == scene.metadata(1).started == 1, "each has one owner")
    eventually(lambda: scene.metadata(0).started == scene.metadata(1).started == 0, "both were released")
    assert not any("did not finish" in line["event"] for line in logs)


def test_a_group_that_never_committed_begins_where_it_declares(scene_of: MakeScene) -> None:
    scene = scene_of(start="latest")
    scene.feed(("a", "before"))
    with running(scene.worker(scene.step())):
        eventually(lambda: scene.metadata().started == 1, "handshake done")
        scene.feed(("a", "after"))
        scene.settled(1)
    assert scene.outputs() == ["AFTER"]


def test_a_new_partition_of_a_known_topic_is_read_whole_whatever_the_declared_start(scene_of: MakeScene) -> None:
    scene = scene_of(start="latest")
    scene.feed(("a", "whole"), partition=1)
    _commit(scene, {0: Position(0, PartitionMetadata().taken_over(1).pack())})
    with running(scene.worker(scene.step())):
        scene.settled(1)
    assert scene.outputs() == ["WHOLE"]


def test_an_offset_that_the_log_no_longer_has_stops_the_worker(scene: Scene) -> None:
    scene.feed(("a", "one"))
    _commit(scene, {0: Position(1_000)})
    error = Running(scene.worker(scene.step())).ended()
    assert isinstance(error, OffsetLostError)
    assert error.hint


def test_metadata_of_a_newer_heddle_stops_the_worker(scene: Scene) -> None:
    _commit(scene, {0: Position(0, "9:{}")})
    assert isinstance(Running(scene.worker(scene.step())).ended(), BrokerError)


def test_the_handshake_waits_for_a_former_owners_commit_before_it_restores_gates(scene: Scene) -> None:
    """The former owner's park is still in flight when the successor begins. Were the gates restored first, they would
    miss it, and `held` would overtake."""
    scene.feed(("a", "bad"))
    member = scene.broker.consumer(scene.subscription.group, scene.subscription.topic)
    eventually(lambda: member.consume(1, 0.01) == [] and len(member.assignment()) == 2, "the former owner joined")
    former = scene.broker.producer("former-owner-" + scene.name)
    former.init(30)
    former.begin()
    topic = scene.admin.topics([scene.subscription.topic])[scene.subscription.topic]
    envelope = Envelope(scene.name, scene.subscription.dead_letter_topic, topic.topic_id, "d")
    original = Record(topic.name, 0, 0, b"a", b"bad", [], 0)
    why = Failure(0, FailureClass.CONTRACT, "contract", "", "bad")
    former.produce([envelope.failed(original, why, State.DEAD)])
    former.send_offsets(topic.name, {0: Position(1)}, member.group_metadata())
    member.close()
    scene.feed(("a", "held"))
    step = scene.step()
    successor = Running(scene.worker(step))
    eventually(lambda: scene.members() == 1, "the successor joined")
    assert scene.counts().total == 0
    former.commit(30)
    scene.settled(1)
    successor.stop.set()
    assert successor.ended() is None
    former.close()
    assert step.attempts == []
    assert scene.outputs() == []
    assert scene.entries()[-1] == ("waiting", "held", "0-0")


def test_a_rebalance_in_the_middle_of_a_batch_neither_loses_nor_doubles(scene_of: MakeScene) -> None:
    """Two workers come and go while records flow; whoever held a batch of a partition that moved must not commit it."""
    scene = scene_of(partitions=4)
    slow = threading.Event()
    fed = 0
    first_step, second_step = scene.step(), scene.step()
    first_step.before = second_step.before = lambda _: (slow.wait(0.002), None)[1]
    with running(scene.worker(first_step, instance="a")):
        for _ in range(3):
            with running(scene.worker(second_step, instance="b")):
                deadline = time.monotonic() + DEADLINE_S
                while not second_step.attempts:
                    assert time.monotonic() < deadline, "the second worker gets no work"
                    if fed - scene.counts().total > 400:
                        slow.wait(0.02)
                        continue
                    for partition in range(4):
                        records = [(f"k{partition}", f"p{partition}-{fed + i}") for i in range(10)]
                        scene.feed(*records, partition=partition)
                        fed += 10
            second_step.attempts.clear()
        scene.settled(fed)
    outputs = scene.outputs()
    assert len(outputs) == len(set(outputs)) == fed
    for partition in range(4):
        numbers = [int(o.split("-")[1]) for o in outputs if o.startswith(f"P{partition}-")]
        assert numbers == sorted(numbers), "order within a key"


def test_a_dead_letter_that_cannot_be_written_stops_the_worker(scene: Scene) -> None:
    step = scene.step()
    gone = threading.Event()

    def before(_: Record) -> None:
        if not gone.is_set():
            scene.admin.delete_topics([scene.subscription.dead_letter_topic])
            gone.set()

    step.before = before
    scene.feed(("a", "bad"))
    error = Running(scene.worker(step, transaction_timeout_s=3)).ended()
    assert isinstance(error, BrokerError)
    assert scene.counts().total == 0


class _Nothing:
    digest = ""
    longest_call_s = 60.0

    def bump(self, partitions: Iterable[int]) -> None: ...

    def release(self, partitions: Iterable[int]) -> None: ...

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        return Run([])

    def close(self) -> None: ...


class _FencedSink(_Nothing):
    """A target that sees a later owner once, in the middle of things."""

    def __init__(self) -> None:
        self.bumps: list[list[int]] = []
        self.applied: list[bytes] = []
        self.fence_next = True

    def bump(self, partitions: Iterable[int]) -> None:
        self.bumps.append(sorted(partitions))

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        if self.fence_next:
            self.fence_next = False
            raise PartitionFencedError
        results: list[Result] = [Applied(Outcome.APPLIED) for _ in records]
        self.applied += [record.value or b"" for record in records]
        return Run(results)


def test_a_fence_at_the_target_repeats_the_handshake_and_re_runs_the_batch(scene: Scene) -> None:
    sink = _FencedSink()
    scene.feed(("a", "one"), ("b", "two"))
    with running(scene.worker(sink)):  # type: ignore[arg-type]
        scene.settled(2)
    assert sink.applied == [b"one", b"two"]
    assert [0] in sink.bumps


def test_a_batch_over_the_byte_limit_is_cut_into_several_transactions(scene: Scene) -> None:
    """What is over the limit by itself is a batch by itself."""
    scene.feed(*[(str(i), "x" * (1_500 if i % 4 == 0 else 400)) for i in range(10)])
    step, sizes = scene.step(), []
    run = step.run

    def measured(records: Sequence[Record], budget: Budget) -> Run:
        sizes.append([len(record.value or b"") for record in records])
        return run(records, budget)

    step.run = measured  # type: ignore[method-assign]
    with running(scene.worker(step, batch_max_bytes=1_000)):
        scene.settled(10)
    assert len(scene.outputs()) == 10
    assert all(sum(batch) <= 1_000 or len(batch) == 1 for batch in sizes)
    assert [1_500] in sizes


def _commit(scene: Scene, positions: dict[int, Position]) -> None:
    """As another tool sets a stopped group's offsets."""
    member = scene.broker.consumer(scene.subscription.group, scene.subscription.topic)
    eventually(lambda: member.consume(1, 0.01) == [] and len(member.assignment()) == scene.partitions, "joined")
    producer = scene.broker.producer(scene.name + "-tool")
    producer.init(30)
    producer.begin()
    producer.send_offsets(scene.subscription.topic, positions, member.group_metadata())
    producer.commit(30)
    producer.close()
    member.close()


def test_records_in_hand_are_qualified_anew_before_each_transaction_of_a_cut_batch(scene: Scene) -> None:
    """A fence in the first transaction hands all records back: none of the same batch may be committed from memory,
    or offsets would jump past what is read again."""
    sink = _FencedSink()
    scene.feed(*[("k", f"{i:03}" + "x" * 400) for i in range(6)])
    with running(scene.worker(sink, batch_max_bytes=1_000, batch_max_wait_s=1.0)):  # type: ignore[arg-type]
        scene.settled(6)
    assert [value[:3] for value in sink.applied] == [b"000", b"001", b"002", b"003", b"004", b"005"]


def test_two_copies_that_start_together_begin_where_the_subscription_declares(scene_of: MakeScene) -> None:
    """The second finds that the first has committed: its own partition is no new one for that."""
    scene = scene_of(start="latest")
    for partition in range(2):
        scene.feed(("k", f"history {partition}"), partition=partition)
    _commit(scene, {0: Position(2, PartitionMetadata().taken_over(2).pack())})
    with running(scene.worker(scene.step())):
        eventually(lambda: scene.metadata(1).started == 1, "the other partition is owned")
        scene.feed(("k", "now"), partition=1)
        scene.settled(1)
    assert scene.outputs() == ["NOW"]


def test_sigterm_in_the_middle_of_a_batch_settles_what_ran_and_leaves_the_rest(scene: Scene) -> None:
    step = scene.step()
    begun = threading.Event()
    pace = threading.Event()

    def before(_: Record) -> None:
        begun.set()
        pace.wait(0.05)

    step.before = before
    scene.feed(*[("k", f"{i:03}") for i in range(200)])
    worker = Running(scene.worker(step))
    assert begun.wait(40)
    worker.stop.set()
    assert worker.ended() is None
    assert 0 < len(step.attempts) < 200
    scene.settled(len(step.attempts))
    with running(scene.worker(scene.step())):
        scene.settled(200)
    assert scene.outputs() == [f"{i:03}" for i in range(200)]


class _Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [ValueError("half a pair: \ud83d"), _Unsayable(), SystemExit(2)], ids=repr)
def test_no_exception_of_a_handler_is_too_odd_to_be_parked(scene: Scene, error: BaseException) -> None:
    step = scene.step()

    def before(record: Record) -> None:
        if record.value == b"odd":
            raise error

    step.before = before
    scene.feed(("a", "odd"), ("b", "fine"))
    with running(scene.worker(step)):
        scene.settled(2)
    assert [state for state, _, _ in scene.entries()] == ["retrying"]
    assert scene.outputs() == ["FINE"]


def test_a_handler_that_returns_an_awaitable_stops_the_worker_instead_of_parking_everything(scene: Scene) -> None:
    async def forgotten() -> None: ...

    step = scene.step()

    def one(_: Record) -> Result:
        waiting = forgotten()
        try:
            return listed(waiting, str)
        finally:
            waiting.close()

    step.one = one  # type: ignore[method-assign]
    scene.feed(("a", "one"))
    assert isinstance(Running(scene.worker(step)).ended(), UsageError)
    assert scene.entries() == []


def test_headers_of_others_count_for_the_size_of_an_output(scene: Scene) -> None:
    step = scene.step()
    big = [(f"x-{i}", b"h" * 200_000) for i in range(8)]
    step.one = lambda r: [Outgoing(step.output, r.key, b"v", big if r.value == b"big" else [])]  # type: ignore[method-assign]
    scene.feed(("a", "big"), ("b", "small"))
    with running(scene.worker(step)):
        scene.settled(2)
    assert scene.entries() == [("dead", "big", "too-large")]


def test_a_dead_letter_topic_that_takes_smaller_records_is_refused_at_start(scene: Scene) -> None:
    scene.admin.alter_topic(scene.subscription.dead_letter_topic, {"max.message.bytes": "1000"})
    error = Running(scene.worker(scene.step())).ended()
    assert isinstance(error, UsageError)
    assert "heddle plan" in error.hint


def test_time_limits_that_do_not_fit_together_are_refused(scene: Scene) -> None:
    with pytest.raises(UsageError, match="without a poll"):
        scene.worker(scene.step(), batch_deadline_s=299)


def test_a_fence_at_the_target_counts_no_other_owner(scene: Scene) -> None:
    sink = _FencedSink()
    held = threading.Event()
    markers: list[int] = []

    def apply_later(records: Sequence[Record], budget: Budget) -> Run:
        if len(sink.bumps) > 1:
            markers.append(scene.metadata().started)
            held.set()
        return _FencedSink.run(sink, records, budget)

    sink.run = apply_later  # type: ignore[method-assign]
    scene.feed(("a", "one"))
    with running(scene.worker(sink)):  # type: ignore[arg-type]
        scene.settled(1)
    assert markers == [1]


def test_records_of_partitions_that_were_lost_in_the_middle_of_a_batch_are_dropped(scene: Scene) -> None:
    if not isinstance(scene.broker, MemoryBroker):
        pytest.skip("on Kafka a session ends only with its process: the fault tests freeze one")
    step, broker = scene.step(), scene.broker
    worker = scene.worker(step, instance="a")
    hung, go_on = threading.Event(), threading.Event()

    def before(_: Record) -> None:
        hung.set()
        assert go_on.wait(40)

    step.before = before
    scene.feed(*[("k", f"v{i}") for i in range(4)])
    with running(worker):
        assert hung.wait(40)
        broker.expire(worker._consumer)
        successor = scene.step()
        with running(scene.worker(successor, instance="b")):
            scene.settled(4)
            go_on.set()
            step.before = lambda _: None
            scene.feed(*[("k", f"w{i}") for i in range(4)], partition=0)
            scene.feed(*[("k", f"x{i}") for i in range(4)], partition=1)
            scene.settled(12)
    assert sorted(scene.outputs()) == sorted(f"{p}{i}" for p in "VWX" for i in range(4))
