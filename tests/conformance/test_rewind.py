"""`heddle rewind`, on both brokers: what is planned, what is refused, and that it happens whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from broker_world import KafkaWorld, World
from delivery_harness import AUDIT_KEY, Scene, eventually, running
from standing import commit, park

from heddle.broker.log import Broker, Position, Record
from heddle.delivery.envelope import State
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.steps import Budget, NoFence, Result, Run, run_in_order
from heddle.delivery.suspicion import Suspicion
from heddle.errors import AuthError, ContractError, HeddleError, UsageError
from heddle.integration import Applied, Outcome
from heddle.operations.destination import Destination
from heddle.operations.inbox_bounds import InboxBound
from heddle.operations.plan import PlanChangedError
from heddle.operations.rewind import RewindPlan, RewindRefusedError, plan_rewind
from heddle.operations.rewind_apply import Mandate, StillRunningError, apply_rewind, statement_bytes
from heddle.operators import Operators, entry_of, make_key

MakeScene = Callable[..., Scene]
FRESH = PartitionMetadata(partitions=2).pack()


@pytest.fixture
def scene_of(world: World) -> Iterator[MakeScene]:
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(world.broker, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(scene_of: MakeScene) -> Scene:
    return scene_of()


def plan(scene: Scene, to: str, *bounds: InboxBound) -> RewindPlan:
    return plan_rewind(scene.broker, scene.subscription, Destination.parse(to), bounds)


def moves(made: RewindPlan) -> dict[int, tuple[int | None, int]]:
    return {move.partition: (move.now, move.then) for move in made.moves}


def fill(scene: Scene, partition: int, count: int) -> int:
    """Records, each a transaction of its own; the end."""
    for number in range(count):
        scene.feed((f"k{number}", f"v{number}"), partition=partition)
    topic = scene.subscription.topic
    end = 2 * count  # a record and a marker each
    eventually(lambda: scene.ends(topic)[partition] == end, "visible")
    return end


def times(scene: Scene) -> list[int]:
    return [record.timestamp_ms for record in scene.read(scene.subscription.topic)]


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def test_a_plan_says_what_each_partition_would_read_again(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 3)
    fill(scene, 1, 1)
    commit(world, scene, {0: Position(end, FRESH), 1: Position(0, FRESH)})
    park(world, scene, 0, 4)
    park(world, scene, 2, state=State.DISCARDED)
    made = plan(scene, "earliest")
    assert moves(made) == {0: (end, 0)}
    (move,) = made.moves
    assert (move.records, move.unresolved, move.decided, move.gone) == (3, 2, 1, 0)
    assert move.from_ms == times(scene)[0]
    later = plan(scene, "0=2,1=0")
    assert moves(later) == {0: (end, 2)}
    assert (later.moves[0].records, later.moves[0].unresolved, later.moves[0].decided) == (2, 1, 1)
    assert later.hash != made.hash
    assert plan(scene, later.offsets).hash == later.hash
    assert scene.positions()[0].offset == end


def test_a_time_is_the_first_record_of_that_time_or_later_and_never_ahead(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 2)
    ahead = fill(scene, 1, 3)
    commit(world, scene, {0: Position(end, FRESH), 1: Position(2, FRESH)})
    first_ms, second_ms, *_ = times(scene)
    assert moves(plan(scene, moment(first_ms - 1_000))) == {0: (end, 0), 1: (2, 0)}
    if second_ms > first_ms:
        assert plan(scene, moment(second_ms)).moves[0].records == 1
    assert moves(plan(scene, moment(times(scene)[-1] + 3_600_000))) == {}
    assert ahead > 2


@pytest.mark.parametrize(
    ("to", "says"),
    [("0=5", "5 lies ahead of 4"), ("0=1", "the log begins at 2, 1 is gone"), ("2=0", "has no partition 2")],
)
def test_what_would_lose_records_is_refused(world: World, scene: Scene, to: str, says: str) -> None:
    fill(scene, 0, 4)
    commit(world, scene, {0: Position(4, FRESH)})
    world.delete_before(scene.subscription.topic, 0, 2)
    with pytest.raises(HeddleError, match=says) as caught:
        plan(scene, to)
    assert caught.value.hint


@pytest.mark.parametrize("to", ["yesterday", "0=1,0=2", "0=-1", "1h ago", ""])
def test_what_is_no_destination_is_said(to: str) -> None:
    with pytest.raises(UsageError, match="--to"):
        Destination.parse(to)


def test_offsets_that_the_log_has_lost_may_be_left_behind_and_the_plan_says_so(world: World, scene: Scene) -> None:
    fill(scene, 0, 4)
    commit(world, scene, {0: Position(2, FRESH)})
    world.delete_before(scene.subscription.topic, 0, 6)
    made = plan(scene, "earliest")
    assert moves(made) == {0: (2, 6)}
    assert made.moves[0].gone == 4
    assert "4 offsets were deleted by retention" in made.notes[0]
    with pytest.raises(RewindRefusedError, match="7 lies ahead of 6"):
        plan(scene, "0=7")


def test_an_offset_beyond_the_log_goes_back_to_it(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(900, FRESH)})
    assert moves(plan(scene, "earliest")) == {0: (900, 0)}
    assert moves(plan(scene, f"0={end}")) == {0: (900, end)}


def test_a_partition_that_never_began_goes_back_from_where_it_would_begin(scene_of: MakeScene) -> None:
    late = scene_of(start="latest")
    fill(late, 0, 2)
    assert moves(plan(late, "earliest")) == {0: (None, 0)}
    assert moves(plan(late, moment(times(late)[0]))) == {0: (None, 0)}
    early = scene_of()
    fill(early, 0, 2)
    assert moves(plan(early, "earliest")) == {}


def test_going_back_further_than_a_sink_remembers_is_refused(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 2)
    commit(world, scene, {0: Position(end, FRESH)})
    written = datetime.fromtimestamp(times(scene)[0] / 1000, UTC)
    with pytest.raises(RewindRefusedError, match="far-sink has forgotten what it applied before") as caught:
        plan(scene, "earliest", InboxBound("near", None), InboxBound("far-sink", written))
    assert "go back no further: --to" in caught.value.hint
    made = plan(scene, "earliest", InboxBound("far-sink", written - timedelta(hours=1)))
    assert moves(made) == {0: (end, 0)}


def test_the_plan_says_who_may_see_things_twice(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, FRESH)})
    made = plan(scene, "earliest", InboxBound("silent", None, is_told=False))
    assert any(scene.subscription.writes[0] in note for note in made.notes)
    assert any(note.startswith("silent does not tell") for note in made.notes)


def test_beyond_the_rewind_horizon_discards_are_forgotten_and_the_plan_says_so(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, FRESH)})
    written = datetime.fromtimestamp(times(scene)[0] / 1000, UTC)
    for days, is_told in ((6, False), (8, True)):
        made = plan_rewind(scene.broker, scene.subscription, Destination(), now=written + timedelta(days=days))
        assert any("discarded or edited" in note for note in made.notes) == is_told


def test_a_marker_that_cannot_be_read_is_written_anew_even_where_the_offset_stays(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, "9:{}"), 1: Position(0, FRESH)})
    made = plan(scene, f"0={end}")
    assert moves(made) == {0: (end, end)}
    assert made.moves[0].is_unreadable
    assert "cannot be read" in made.notes[0]


def test_running_workers_are_counted(world: World, scene: Scene) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, FRESH)})
    world.owner(scene.subscription.topic, scene.subscription.group)
    assert plan(scene, "earliest").members == 1


# Applying


@pytest.fixture
def ada(tmp_path: Path) -> Mandate:
    key = make_key(tmp_path, "ada")
    (tmp_path / "operators.toml").write_text(entry_of(key))
    return Mandate("a wrong price list", key, Operators.load(tmp_path, local=False), "root")


def rewind(scene: Scene, to: str, order: Mandate, broker: Broker | None = None, join_timeout_s: float = 30.0) -> None:
    broker = broker or scene.broker
    made = plan_rewind(broker, scene.subscription, Destination.parse(to))
    apply_rewind(broker, scene.subscription, made, order, AUDIT_KEY, join_timeout_s)


def stopped(scene: Scene) -> None:
    eventually(lambda: not scene.members(), "the group is empty")


def settled_by_a_worker(scene: Scene, step: NoFence, count: int) -> None:
    with running(scene.worker(step)):
        scene.settled(count)
    stopped(scene)


class Inbox(NoFence):
    """A sink that knows what it has applied."""

    digest = "0" * 64

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        return run_in_order(records, budget, True, lambda _, record: self.one(record))

    def one(self, record: Record) -> Result:
        value = record.value or b""
        if value.startswith(b"bad"):
            raise ContractError("bad value")
        if value in self.applied:
            return Applied(Outcome.DUPLICATE)
        self.applied.append(value)
        return Applied(Outcome.APPLIED)


def test_what_took_effect_before_has_none_again_and_the_audit_trail_tells(scene: Scene, ada: Mandate) -> None:
    scene.feed(("a", "one"), ("b", "bad"), ("b", "behind"), ("c", "two"))
    scene.feed(("d", "three"), partition=1)
    sink = Inbox()
    settled_by_a_worker(scene, sink, 5)
    before = scene.positions()
    rewind(scene, "0=0", ada)
    after = scene.positions()
    assert (after[0].offset, after[1]) == (0, before[1])
    assert scene.metadata().counts == PartitionMetadata.unpack(before[0].metadata).counts
    assert scene.metadata().started == 0
    settled_by_a_worker(scene, sink, 9)
    assert sorted(sink.applied) == [b"one", b"three", b"two"]
    assert scene.counts().by_outcome[Outcome.DUPLICATE] == 4
    assert [state for state, _, _ in scene.unresolved()] == ["dead", "waiting"]
    (told,) = [record for record in scene.audit() if record.kind == "rewind"]
    assert (told.actor, told.partition, told.body["before"], told.body["after"]) == ("ada", 0, before[0].offset, 0)
    assert (told.body["reason"], told.body["os_user"]) == ("a wrong price list", "root")
    assert ada.operators.verify(told.actor, told.body["signature"], statement_bytes(told.body["statement"]))
    assert told.body["statement"]["moves"] == [[0, before[0].offset, 0]]
    assert scene.chain_break() is None
    assert "external-reset" not in [record.kind for record in scene.audit()]


def test_an_event_of_a_key_with_earlier_dead_letters_stays_behind_them_when_it_is_read_again(
    scene: Scene, ada: Mandate
) -> None:
    scene.feed(("a", "one"), ("a", "bad"), ("a", "behind"))
    sink = Inbox()
    settled_by_a_worker(scene, sink, 3)
    rewind(scene, "earliest", ada)
    settled_by_a_worker(scene, sink, 6)
    assert sink.applied == [b"one"]


def test_a_running_worker_refuses_it(scene: Scene, ada: Mandate) -> None:
    scene.feed(("a", "one"))
    with running(scene.worker(scene.step())):
        scene.settled(1)
        before = scene.positions()
        with pytest.raises(StillRunningError, match="run: nothing was changed") as caught:
            rewind(scene, "earliest", ada)
        assert caught.value.exit_code == 3
        assert scene.positions() == before
    assert "rewind" not in [record.kind for record in scene.audit()]


class Racing:
    """A broker on which somebody does something at the worst moment."""

    def __init__(self, broker: Broker, moment: str, act: Callable[[object], None]) -> None:
        self._broker = broker
        self._moment = moment
        self._act = act

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._broker, name)
        if name != self._moment:
            return made

        def racing(*arguments: Any) -> Any:
            client = made(*arguments)
            self._act(client)
            return client

        return racing


def test_a_worker_that_starts_while_we_join_is_left_alone(world: World, scene: Scene, ada: Mandate) -> None:
    end = fill(scene, 0, 2)
    commit(world, scene, {0: Position(end, FRESH), 1: Position(0, FRESH)})
    rival = scene.worker(scene.step())
    with contextlib.ExitStack() as stack:

        def start(_: object) -> None:
            stack.enter_context(running(rival))
            ours = isinstance(world, KafkaWorld)  # a member as soon as it is made; in memory, once it is asked
            eventually(lambda: scene.members() > ours, "joined")

        with pytest.raises(StillRunningError):
            rewind(scene, "earliest", ada, cast(Broker, Racing(scene.broker, "consumer", start)))
        scene.feed(("late", "late"))
        scene.settled(1)
    assert scene.outputs() == ["LATE"]
    assert "rewind" not in [record.kind for record in scene.audit()]


def test_a_group_that_moves_on_before_the_transaction_changes_nothing(world: World, scene: Scene, ada: Mandate) -> None:
    end = fill(scene, 0, 2)
    commit(world, scene, {0: Position(end, FRESH), 1: Position(0, FRESH)})
    before, ours = scene.positions(), []
    noticing = Racing(scene.broker, "consumer", ours.append)
    usurped = Racing(cast(Broker, noticing), "producer", lambda _: world.expire(ours[0]))
    with pytest.raises(StillRunningError):
        rewind(scene, "earliest", ada, cast(Broker, usurped))
    assert scene.positions() == before
    assert scene.audit() == []
    stopped(scene)
    rewind(scene, "earliest", ada)
    assert scene.positions()[0].offset == 0


def test_an_offset_that_moved_since_the_plan_changes_nothing(world: World, scene: Scene, ada: Mandate) -> None:
    end = fill(scene, 0, 2)
    commit(world, scene, {0: Position(end, FRESH)})
    made = plan(scene, "earliest")
    commit(world, scene, {0: Position(2, FRESH)})
    with pytest.raises(PlanChangedError, match="partition 0 has moved"):
        apply_rewind(scene.broker, scene.subscription, made, ada, AUDIT_KEY)
    assert scene.positions()[0].offset == 2


def test_a_key_that_does_not_count_rewinds_nothing(world: World, scene: Scene, ada: Mandate, tmp_path: Path) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, FRESH)})
    with pytest.raises(AuthError, match="does not count"):
        rewind(scene, "earliest", replace(ada, key=make_key(tmp_path, "eve")))
    assert scene.positions()[0].offset == end


def test_what_was_changed_from_outside_before_is_told_first(world: World, scene: Scene, ada: Mandate) -> None:
    scene.feed(("a", "one"), ("b", "two"))
    settled_by_a_worker(scene, scene.step(), 2)
    commit(world, scene, {0: Position(1)})  # as a tool of others does: without a marker
    rewind(scene, "0=0", ada)
    kinds = [record.kind for record in scene.audit() if record.partition == 0]
    assert kinds == ["batch", "external-reset", "rewind"]
    assert scene.chain_break() is None


def test_what_a_crash_left_suspect_is_forgotten_and_what_was_counted_and_commanded_is_not(
    world: World, scene: Scene, ada: Mandate
) -> None:
    end = fill(scene, 0, 2)
    counts = Counts(Counts().by_outcome | {Outcome.EMITTED: 2})
    left = PartitionMetadata(2, started=3, suspicion=Suspicion(1, 2), next_command=7, counts=counts)
    commit(world, scene, {0: Position(end, left.pack())})
    rewind(scene, "earliest", ada)
    found = scene.metadata()
    assert (found.started, found.suspicion) == (0, None)
    assert (found.next_command, found.counts, found.partitions) == (7, counts, 2)


def test_a_marker_that_cannot_be_read_is_replaced(world: World, scene: Scene, ada: Mandate) -> None:
    end = fill(scene, 0, 1)
    commit(world, scene, {0: Position(end, "9:{}"), 1: Position(0, FRESH)})
    rewind(scene, f"0={end}", ada)
    assert (scene.positions()[0].offset, scene.metadata().partitions) == (end, 2)
    scene.feed(("a", "one"))
    settled_by_a_worker(scene, scene.step(), 1)


def test_a_partition_that_never_began_begins_where_it_is_told(scene_of: MakeScene, ada: Mandate) -> None:
    scene = scene_of(start="latest")
    scene.feed(("a", "one"))
    scene.feed(("b", "two"), partition=1)
    eventually(lambda: set(scene.ends().values()) == {2}, "visible")
    rewind(scene, "0=0", ada)
    with running(scene.worker(scene.step())):
        scene.settled(1)
    assert scene.outputs() == ["ONE"]
