"""`heddle rewind`, on both brokers: what is planned, what is refused, and that it happens whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from broker_world import World
from delivery_harness import Scene, eventually
from standing import commit, park

from heddle.broker.log import Position
from heddle.delivery.envelope import State
from heddle.delivery.metadata import PartitionMetadata
from heddle.errors import HeddleError, UsageError
from heddle.operations.destination import Destination
from heddle.operations.inbox_bounds import InboxBound
from heddle.operations.rewind import RewindPlan, RewindRefusedError, plan_rewind

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
    eventually(lambda: scene.admin.end_offsets(topic, [partition])[partition] == end, "visible")
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
