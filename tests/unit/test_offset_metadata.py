"""The marker beside every offset: what the next owner learns from it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.delivery.metadata import FORMAT_VERSION, MAX_BYTES, Counts, PartitionMetadata
from heddle.delivery.suspicion import InHand, Suspicion
from heddle.errors import BrokerError, FormatError
from heddle.integration import Outcome

EMPTY = '"m":null,"a":"","n":[0,0,0,0,0,0,0]}'
BAD_SUSPICION = '2:{"p":1,"s":0,"x":[1],' + EMPTY
NUMBERS = '2:{"s":0,"x":null,"m":null,"a":"","n":[1]}'
BAD_IN_HAND = '2:{"p":1,"s":0,"x":[1,1,"else",3],' + EMPTY
BAD_STARTED = '2:{"p":1,"s":"a","x":null,' + EMPTY

counts = st.builds(
    Counts, st.fixed_dictionaries({outcome: st.integers(0, 2**47) for outcome in Outcome}), st.integers(0, 2**47)
)
in_hand = st.builds(InHand, st.sampled_from(["live", "entry"]), st.integers(0, 2**62))
suspicions = st.none() | st.builds(Suspicion, st.integers(1, 9), st.integers(1, 10**6), st.none() | in_hand)


metadata = st.builds(
    PartitionMetadata,
    st.integers(0, 9999),
    st.integers(0, 99),
    suspicions,
    st.lists(in_hand, max_size=2).map(tuple),
    st.text("0123456789abcdef", max_size=64),
    st.integers(0, 2**50),
    st.just(()),
    counts,
    counts,
)


@given(metadata, st.lists(st.integers(1, 9_999), max_size=12))
def test_commands_beyond_the_next_fit_too(metadata: PartitionMetadata, distances: list[int]) -> None:
    done = tuple(metadata.next_command + distance for distance in distances)
    packed = replace(metadata, done_commands=done).pack()
    assert len(packed) <= MAX_BYTES
    assert PartitionMetadata.unpack(packed).done_commands == done


@given(metadata)
def test_round_trip_within_the_limit(metadata: PartitionMetadata) -> None:
    packed = metadata.pack()
    assert len(packed) <= MAX_BYTES
    assert PartitionMetadata.unpack(packed) == metadata


def test_takeover_settlement_and_release() -> None:
    taken = PartitionMetadata().taken_over(6)
    assert not taken.follows_crash
    one = Counts({**Counts().by_outcome, Outcome.EMITTED: 3})
    settled = taken.settled(one, Counts()).settled(one, one)
    assert (settled.counts.total, settled.entry_counts.total) == (6, 3)
    assert settled.taken_over(6).follows_crash  # its owner was at work, and has not given it back
    assert not settled.released().taken_over(6).follows_crash
    crashed = settled.taken_over(6)
    assert (crashed.started, crashed.settled(one, one).started) == (2, 1)


def test_what_is_in_hand_stays_named_for_a_successor_and_not_after_a_release() -> None:
    named = PartitionMetadata(suspicion=Suspicion(2, 9, InHand("live", 5)))
    assert named.taken_over(1).suspicion == named.suspicion
    assert named.released().suspicion == Suspicion(2, 9)
    one = Counts({**Counts().by_outcome, Outcome.EMITTED: 1})
    assert named.settled(one, Counts()).suspicion == Suspicion(2, 8)


def test_the_marker_of_the_first_release_is_still_read() -> None:
    old = PartitionMetadata.unpack('1:{"p":6,"s":1,"x":null,"m":null,"a":"","n":[5,0,0,0,0,0,0]}')
    assert (old.partitions, old.counts.total, old.next_command) == (6, 5, 0)


@pytest.mark.parametrize(
    "text", ["3:{}", "2:{", "2:{}", "2:[]", "own", NUMBERS, BAD_SUSPICION, BAD_IN_HAND, BAD_STARTED]
)
def test_what_cannot_be_read_is_refused_not_guessed(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        PartitionMetadata.unpack(text)
    assert caught.value.hint


def test_a_newer_format_is_refused_however_familiar_it_looks() -> None:
    present = PartitionMetadata().pack()
    newer = str(int(FORMAT_VERSION) + 1) + present.removeprefix(FORMAT_VERSION)
    assert PartitionMetadata.unpack(present) == PartitionMetadata()
    with pytest.raises(FormatError, match="format version"):
        PartitionMetadata.unpack(newer)


def test_what_would_be_too_large_for_the_broker_is_not_written() -> None:
    with pytest.raises(BrokerError, match="over 512"):
        PartitionMetadata(audit_head="f" * MAX_BYTES).pack()


def test_an_offset_set_by_another_tool_is_a_fresh_start() -> None:
    assert PartitionMetadata.unpack("") == PartitionMetadata()
