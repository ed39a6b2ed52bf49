"""The marker beside every offset: what the next owner learns from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.delivery.metadata import MAX_BYTES, Counts, PartitionMetadata
from heddle.errors import FormatError
from heddle.integration import Outcome

BAD_RANGE = '1:{"p":1,"s":0,"x":[1],"m":null,"a":"","n":[0,0,0,0,0,0,0]}'
BAD_STARTED = '1:{"p":1,"s":"a","x":null,"m":null,"a":"","n":[0,0,0,0,0,0,0]}'

ranges = st.none() | st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))
counts = st.builds(
    Counts, st.fixed_dictionaries({outcome: st.integers(0, 2**52) for outcome in Outcome}), st.integers(0, 2**52)
)


metadata = st.builds(
    PartitionMetadata,
    st.integers(0, 9999),
    st.integers(0, 99),
    ranges,
    ranges,
    st.text("0123456789abcdef", max_size=64),
    counts,
)


@given(metadata)
def test_round_trip_within_the_limit(metadata: PartitionMetadata) -> None:
    packed = metadata.pack()
    assert len(packed) <= MAX_BYTES
    assert PartitionMetadata.unpack(packed) == metadata


def test_takeover_settlement_and_release() -> None:
    taken = PartitionMetadata().taken_over(6).taken_over(6)
    assert (taken.started, taken.partitions) == (2, 6)
    one = Counts({**Counts().by_outcome, Outcome.EMITTED: 3})
    settled = taken.settled(one).settled(one)
    assert (settled.started, settled.counts.total) == (0, 6)
    assert taken.released().started == 0


NUMBERS = '1:{"s":0,"x":null,"m":null,"a":"","n":[1]}'


@pytest.mark.parametrize("text", ["2:{}", "1:{", "1:{}", "1:[]", "own", NUMBERS, BAD_RANGE, BAD_STARTED])
def test_what_cannot_be_read_is_refused_not_guessed(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        PartitionMetadata.unpack(text)
    assert caught.value.hint


def test_an_offset_set_by_another_tool_is_a_fresh_start() -> None:
    assert PartitionMetadata.unpack("") == PartitionMetadata()
