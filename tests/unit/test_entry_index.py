"""The index of unresolved entries: lanes, what is due, caps, and that a restored one equals one that was lived."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.broker.log import Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.delivery import envelope
from heddle.delivery.caps import fit, has_room_again
from heddle.delivery.clock import SystemClock
from heddle.delivery.due import DueEntries
from heddle.delivery.envelope import Entry, Envelope, State, entry_key, entry_of
from heddle.delivery.index import PER_KEY_SHARE, EntryId, Pace, PartitionIndex, Run
from heddle.delivery.steps import parsed_headers
from heddle.errors import BrokerError, Failure, FailureClass, FormatError
from heddle.on_failure import Caps, Order

TOPIC_ID = "here"
ENVELOPE = Envelope("flow", "flow.dlq", TOPIC_ID, "digest")
FAILURE = Failure(0, FailureClass.CONTRACT, "lookup", "", "no such product")


def live(offset: int, key: bytes | None = b"k") -> Record:
    return Record("in", 0, offset, key, b"v", [], 0)


def entry(offset: int, key: bytes | None = b"k", state: State = State.DEAD, **more: object) -> Entry:
    values: dict[str, object] = {"version": offset * 10, "size_bytes": 1} | more
    return Entry(str(values.pop("topic_id", TOPIC_ID)), 0, offset, key, state=state, **values)  # type: ignore[arg-type]


def index_of(*entries: Entry, order: Order = "park", caps: Caps | None = None) -> PartitionIndex:
    index = PartitionIndex(TOPIC_ID, order, caps or Caps())
    for each in entries:
        index.put(each, 0.0)
    return index


def stored(offset: int, version: int, state: State, key: bytes | None = b"k", retry_after_ms: int = 0) -> Record:
    if state is State.WAITING:
        made = ENVELOPE.waiting(live(offset, key), "0-0")
    else:
        made = ENVELOPE.failed(live(offset, key), FAILURE, state, retry_after_ms=retry_after_ms)
    return Record(made.topic, 0, version, made.key, made.value, list(made.headers), 1_000)


def tombstone(offset: int, version: int, key: bytes | None = b"k") -> Record:
    return Record("flow.dlq", 0, version, entry_key(TOPIC_ID, 0, offset, key), None, [], 1_000)


def offsets(entries: list[Entry]) -> list[int]:
    return [each.offset for each in entries]


def test_a_key_waits_behind_its_first_entry_and_nothing_else_does() -> None:
    index = index_of(entry(4), entry(9, state=State.WAITING), entry(6, key=None))
    assert index.blocking(live(20)) == 4
    assert index.blocking(live(20, b"other")) is None
    assert index.blocking(live(20, None)) is None
    assert index.holds(live(9))
    assert index.holds(live(6, None))
    assert not index.holds(live(10))


def test_what_waits_runs_only_after_its_head_and_in_order() -> None:
    index = index_of(entry(4), entry(7, state=State.WAITING), entry(5, state=State.WAITING))
    assert index.due(1.0, 100) == []
    index.order_run(EntryId(TOPIC_ID, 4), Run("job", Pace(0)), 1.0)
    due = index.due(1.0, 100)
    assert offsets(due) == [4, 5, 7]
    assert index.covers(b"k", {EntryId(TOPIC_ID, offset) for offset in (4, 5, 7)})
    assert not index.covers(b"k", {EntryId(TOPIC_ID, offset) for offset in (4, 5)})


def test_a_peek_changes_nothing() -> None:
    index = index_of(entry(4, state=State.RETRYING))
    assert offsets(index.due(1.0, 9)) == offsets(index.due(1.0, 9)) == [4]
    assert index.due(1.0, 0) == []


def test_a_resolved_head_hands_its_place_on() -> None:
    index = index_of(entry(4), entry(5, state=State.WAITING), entry(6, state=State.WAITING))
    index.remove(EntryId(TOPIC_ID, 4), 1.0)
    assert index.blocking(live(20)) == 5
    assert offsets(index.due(1.0, 9)) == [5, 6]
    for offset in (5, 6):
        index.remove(EntryId(TOPIC_ID, offset), 2.0)
    assert index.blocking(live(20)) is None
    assert index.is_empty
    assert index.size_bytes == 0


def test_followers_belong_to_the_job_of_their_head() -> None:
    index = index_of(entry(4), entry(5, state=State.WAITING))
    run = Run("job", Pace(0))
    index.order_run(EntryId(TOPIC_ID, 4), run, 1.0)
    index.remove(EntryId(TOPIC_ID, 4), 1.0)
    assert index.run_of(EntryId(TOPIC_ID, 5)) == run


def test_a_dead_follower_stops_the_lane() -> None:
    index = index_of(entry(4, state=State.RETRYING), entry(5, state=State.DEAD), entry(6, state=State.WAITING))
    assert offsets(index.due(1.0, 9)) == [4]
    assert index.is_held_up(EntryId(TOPIC_ID, 6))
    index.remove(EntryId(TOPIC_ID, 4), 1.0)
    assert index.due(1.0, 9) == []
    assert index.is_held_up(EntryId(TOPIC_ID, 6))
    assert not index.is_held_up(EntryId(TOPIC_ID, 5))


def test_a_retry_has_its_time_also_after_it_became_the_head() -> None:
    index = index_of(entry(4), entry(5, state=State.RETRYING, retry_after_ms=5_000))
    index.remove(EntryId(TOPIC_ID, 4), 1.0)
    assert index.due(4.9, 9) == []
    assert not index.has_due(4.9)
    assert offsets(index.due(5.0, 9)) == [5]


def test_a_follower_that_is_retried_later_does_not_run_with_its_head() -> None:
    index = index_of(
        entry(4, state=State.RETRYING),
        entry(5, state=State.RETRYING, retry_after_ms=5_000),
        entry(6, state=State.WAITING),
    )
    assert offsets(index.due(1.0, 9)) == [4]
    assert offsets(index.due(5.0, 9)) == [4, 5, 6]


def test_a_new_version_replaces_the_old_one_and_ends_its_run() -> None:
    index = index_of(entry(4, state=State.RETRYING))
    index.order_run(EntryId(TOPIC_ID, 4), Run("job", Pace(0)), 0.0)
    index.put(entry(4, version=99), 1.0)
    assert index.run_of(EntryId(TOPIC_ID, 4)) is None
    assert index.due(9.0, 9) == []
    assert len(index) == 1
    assert index.get(EntryId(TOPIC_ID, 4)) == entry(4, version=99)


def test_entries_of_another_topic_gate_nothing_and_run_alone() -> None:
    index = index_of(entry(4, topic_id="elsewhere"), entry(9))
    assert index.blocking(live(20)) == 9
    index.order_run(EntryId("elsewhere", 4), Run("job", Pace(0)), 0.0)
    assert offsets(index.due(0.0, 9)) == [4]
    assert not index.holds(live(4))
    assert index.holds(live(9))
    assert not index.is_ordered(entry(4, topic_id="elsewhere"))
    assert index.is_ordered(entry(9))


def test_what_waited_in_a_topic_that_was_made_again_runs_only_when_it_is_told_to() -> None:
    index = index_of(entry(4, topic_id="gone"), entry(5, topic_id="gone", state=State.WAITING))
    assert index.due(1.0, 9) == []
    index.order_run(EntryId("gone", 5), Run("job", Pace(0)), 1.0)
    assert offsets(index.due(1.0, 9)) == [5]


@pytest.mark.parametrize("order", ["continue", "supersede", "stop"])
def test_only_park_gates(order: Order) -> None:
    index = index_of(entry(4, state=State.RETRYING), entry(5, state=State.RETRYING), order=order)
    assert index.blocking(live(20)) is None
    assert index.holds(live(4))
    assert offsets(index.due(0.0, 9)) == [4, 5]
    assert not index.is_ordered(entry(4))


def test_supersede_knows_what_is_older() -> None:
    index = index_of(entry(4), entry(9), order="supersede")
    assert offsets(index.older(b"k", 9)) == [4]
    assert offsets(index.older(b"k", 10)) == [4, 9]
    assert index.older(b"other", 10) == []


def test_where_newer_events_supersede_the_older_ones_run_first() -> None:
    old, new = entry(4, state=State.RETRYING, retry_after_ms=2_000), entry(9, state=State.RETRYING)
    index = index_of(old, new, order="supersede")
    assert offsets(index.due(2.0, 9)) == [4, 9]


def test_an_ordered_run_does_not_wait_for_the_time_of_a_retry_when_it_becomes_the_head() -> None:
    index = index_of(entry(4), entry(5, state=State.RETRYING, retry_after_ms=5_000))
    index.order_run(EntryId(TOPIC_ID, 5), Run("job", Pace(0)), 0.0)
    index.remove(EntryId(TOPIC_ID, 4), 1.0)
    assert offsets(index.due(1.0, 9)) == [5]


def test_one_key_takes_no_more_than_its_share() -> None:
    many = [entry(offset, state=State.WAITING) for offset in range(PER_KEY_SHARE + 50)]
    index = index_of(*many, entry(9_000, b"other", State.RETRYING))
    due = index.due(0.0, PER_KEY_SHARE + 100)
    assert len(due) == PER_KEY_SHARE + 1
    assert due[-1].key == b"other"


def test_a_job_keeps_its_pace_over_keys_and_lanes() -> None:
    index = index_of(*[entry(offset, b"%d" % offset) for offset in range(100)])
    pace = Pace(10.0, next_s=100.0)
    for offset in range(100):
        index.order_run(EntryId(TOPIC_ID, offset), Run("job", pace), 100.0)
    ran = 0
    for tick in range(31):
        for each in index.due(100.0 + tick / 10, 50):
            index.remove(EntryId(TOPIC_ID, each.offset), 100.0)
            ran += 1
    assert 25 <= ran <= 37


def test_a_discarded_record_is_recognised_by_its_identity() -> None:
    index = PartitionIndex(TOPIC_ID, "park")
    marker = ENVELOPE.marker(stored(4, 1, State.DEAD), State.DISCARDED)
    record = Record(marker.topic, 0, 2, marker.key, marker.value, list(marker.headers), 1_000)
    index.restore([stored(4, 1, State.DEAD), record], 0.0, 2_000)
    assert len(index) == 0
    assert not index.is_empty
    assert index.holds(live(4))
    assert not index.holds(live(5))
    [expired] = index.expired_markers(1_000 + 8 * 86_400_000, 9)
    assert index.expired_markers(2_000, 9) == []
    index.unmark(expired)
    assert index.is_empty


def test_two_decided_entries_of_one_identity_are_two_markers() -> None:
    """A delivery that came twice was parked twice, and discarded twice."""
    index = PartitionIndex(TOPIC_ID, "park")
    first, second = entry(4, state=State.DISCARDED), entry(9, state=State.DISCARDED)
    identity = parsed_headers(live(4)).identity
    index.mark(first, identity)
    index.mark(second, identity)
    index.unmark(first)
    assert index.holds(live(4))
    index.unmark(second)
    assert index.is_empty


def due_of(*entries: Entry, max_bytes: int = 2**20) -> DueEntries:
    """What is due of these, whose bodies stand in a topic at offsets of 0 and more: one waiting entry of each key."""
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec("flow.dlq", 1)])
    producer = broker.producer("p")
    producer.init(1)
    producer.begin()
    producer.produce(ENVELOPE.waiting(live(n, b"%d" % n), "0-0") for n in range(100))
    producer.commit(1)
    return DueEntries(broker.reader(), "flow.dlq", {0: index_of(*entries)}, SystemClock(), max_bytes)


def test_live_records_leave_half_of_a_batch_to_what_is_due() -> None:
    due = due_of(*[entry(n, b"%d" % n, State.WAITING, version=n) for n in range(100)])
    assert due.partitions() == [0]
    assert len(due.take(20, has_live=True)) == 10
    assert len(due.take(20, has_live=False)) == 20
    assert len(due.take(1, has_live=True)) == 1


def test_partitions_take_turns_at_what_is_due() -> None:
    """A long replay in one partition does not hold up the retries of another."""
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec("flow.dlq", 2)])
    producer = broker.producer("p")
    producer.init(1)
    indexes = {}
    for partition in range(2):
        producer.begin()
        records = [live(n, b"%d" % n)._replace(partition=partition) for n in range(50)]
        placed = producer.produce_placed([ENVELOPE.waiting(record, "0-0") for record in records])
        producer.commit(1)
        entries = [entry(n, b"%d" % n, State.WAITING, version=at) for n, at in enumerate(placed)]
        indexes[partition] = index_of(*[each.renewed(partition=partition) for each in entries])
    due = DueEntries(broker.reader(), "flow.dlq", indexes, SystemClock(), max_bytes=2**20)
    firsts = {due.take(10, has_live=False)[0].entry.partition for _ in range(2)}
    assert firsts == {0, 1}


def test_bodies_of_a_batch_stay_within_its_bytes_and_one_may_be_larger() -> None:
    entries = [entry(n, b"%d" % n, State.WAITING, version=n, size_bytes=400) for n in range(100)]
    assert len(due_of(*entries, max_bytes=1_000).take(50, has_live=False)) == 2
    assert len(due_of(*entries, max_bytes=100).take(50, has_live=False)) == 1


def test_a_body_that_is_not_the_entrys_own_is_never_run() -> None:
    due = due_of(entry(2, b"2", State.WAITING, version=3))
    with pytest.raises(BrokerError, match="does not hold an entry"):
        due.take(9, has_live=False)


def test_the_broker_time_of_an_entry_decides_when_it_is_due_again() -> None:
    index = PartitionIndex(TOPIC_ID, "park")
    index.restore([stored(4, 1, State.RETRYING, retry_after_ms=10_000)], monotonic_s=50.0, wall_ms=1_000 + 4_000)
    assert index.due(55.9, 9) == []
    assert offsets(index.due(56.0, 9)) == [4]


def test_a_clock_behind_the_brokers_does_not_lengthen_the_wait() -> None:
    index = PartitionIndex(TOPIC_ID, "park")
    index.restore([stored(4, 1, State.RETRYING, retry_after_ms=10_000)], monotonic_s=0.0, wall_ms=-9_999_999)
    assert offsets(index.due(10.0, 9)) == [4]


def test_an_entry_of_another_format_stops_the_restore() -> None:
    record = stored(4, 1, State.DEAD)
    headers = [(name, b"9" if name == envelope.FORMAT else value) for name, value in record.headers]
    with pytest.raises(FormatError):
        PartitionIndex(TOPIC_ID, "park").restore([record._replace(headers=headers)], 0.0, 0)


steps = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([State.DEAD, State.WAITING, State.RETRYING, None])), max_size=60
)


@given(steps)
def test_a_restored_index_equals_one_that_was_lived(steps: list[tuple[int, State | None]]) -> None:
    """The same history, once by commits and once from the topic."""
    lived, topic = PartitionIndex(TOPIC_ID, "park"), []
    for version, (offset, state) in enumerate(steps):
        key = b"%d" % (offset % 3)
        if state is None:
            lived.remove(EntryId(TOPIC_ID, offset), 0.0)
            topic.append(tombstone(offset, version, key))
            continue
        topic.append(stored(offset, version, state, key))
        lived.put(entry_of(topic[-1]), 0.0)
    restored = PartitionIndex(TOPIC_ID, "park")
    restored.restore(topic, 0.0, 1_000)
    assert len(restored) == len(lived)
    assert restored.size_bytes == lived.size_bytes
    for offset in range(13):
        record = live(100, b"%d" % (offset % 3))
        assert restored.blocking(record) == lived.blocking(record)
        assert restored.get(EntryId(TOPIC_ID, offset)) == lived.get(EntryId(TOPIC_ID, offset))
    assert sorted(offsets(restored.due(1.0, 99))) == sorted(offsets(lived.due(1.0, 99)))


class Careful(PartitionIndex):
    """Never takes the short way to say that there is room."""

    def has_room_for(self, count: int) -> bool:
        return False


ACTS = st.lists(st.tuples(st.sampled_from(["put", "put", "put", "remove", "mark"]), st.integers(0, 12)), max_size=40)


@given(ACTS, st.sampled_from(["park", "continue", "supersede"]), st.integers(0, 15), st.booleans())
def test_a_whole_run_is_told_what_each_of_its_records_would_be(
    acts: list[tuple[str, int]], order: Order, start: int, is_restored: bool
) -> None:
    caps = Caps(entries=12, entries_per_key=4)
    index, careful = PartitionIndex(TOPIC_ID, order, caps), Careful(TOPIC_ID, order, caps)
    stays = [stored(offset, offset, State.DEAD, b"%d" % (offset % 3) if offset % 4 else None) for offset in range(8)]
    for each in (index, careful):
        if is_restored:
            each.restore(stays, 0.0, 0)
        for act, offset in acts:
            key, topic_id = (b"%d" % (offset % 3) if offset % 4 else None), "other" if offset % 5 == 4 else TOPIC_ID
            if act == "put":
                each.put(entry(offset, key, topic_id=topic_id), 0.0)
            elif act == "remove":
                each.remove(EntryId(topic_id, offset), 0.0)
            else:
                each.mark(entry(offset, key), parsed_headers(live(offset)).identity)
    run = [live(offset, b"%d" % (offset % 4) if offset % 5 else None) for offset in range(start, start + 6)]
    assert index.blocked(run) == [index.holds(each) or index.blocking(each) is not None for each in run]
    for count in range(1, 7):
        assert fit(run[:count], {0: index}) == fit(run[:count], {0: careful})


def test_at_the_cap_a_partition_takes_no_more_and_says_why() -> None:
    index = index_of(entry(1, b"a"), caps=Caps(entries=3))
    kept, full = fit([live(10, b"x"), live(11, b"y"), live(12, b"z")], {0: index})
    assert [record.offset for record in kept] == [10, 11]
    assert full[0] == (12, "cap: 3 entries", None)
    assert fit([live(10)], {0: index})[1] == {}


def test_the_cap_of_one_key_and_the_cap_in_bytes() -> None:
    index = index_of(entry(1), entry(2, state=State.WAITING), caps=Caps(entries_per_key=3))
    kept, full = fit([live(10), live(11), live(12, b"other")], {0: index})
    assert [record.offset for record in kept] == [10]
    assert full[0].reason == "cap: 3 entries of one key"
    heavy = index_of(entry(1, size_bytes=10_000), caps=Caps(bytes=5_000))
    assert fit([live(10)], {0: heavy})[1][0] == (10, "cap: 5000 bytes of entries", None)


def test_other_partitions_read_on_when_one_is_full() -> None:
    full, free = index_of(entry(1), caps=Caps(entries=1)), index_of()
    kept, waits = fit([live(10), live(11)._replace(partition=1)], {0: full, 1: free})
    assert [record.partition for record in kept] == [1]
    assert waits.keys() == {0}


def test_a_partition_comes_back_with_some_room_only() -> None:
    index = index_of(*[entry(offset, b"%d" % offset) for offset in range(40)], caps=Caps(entries=40))
    for freed in range(2):
        index.remove(EntryId(TOPIC_ID, freed), 0.0)
        assert not has_room_again(index)
    index.remove(EntryId(TOPIC_ID, 2), 0.0)
    assert has_room_again(index)


def test_a_partition_that_is_closed_by_one_key_stays_closed_until_that_key_has_room() -> None:
    index = index_of(*[entry(offset) for offset in range(40)], caps=Caps(entries_per_key=40))
    assert has_room_again(index)
    for freed in range(3):
        assert not has_room_again(index, b"k")
        index.remove(EntryId(TOPIC_ID, freed), 0.0)
    assert has_room_again(index, b"k")


def test_half_of_a_cap_is_told_once() -> None:
    index = index_of(caps=Caps(entries=4))
    told = []
    for offset in range(4):
        index.put(entry(offset), 0.0)
        told.append(index.passed_half_of_caps())
    assert told == [False, False, True, False]


def test_counts_of_offsets_do_not_matter_to_order() -> None:
    """Entries put out of order (an import of an older one) still stand by their origin."""
    for order in itertools.permutations((4, 5, 7)):
        index = index_of(*[entry(offset, state=State.WAITING) for offset in order])
        assert offsets(index.due(0.0, 9)) == [4, 5, 7]
