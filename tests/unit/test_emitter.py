"""What becomes of a batch of mapped records equals what becomes of each by itself, whatever their headers are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.broker.log import Outgoing, Record
from heddle.delivery.steps import Emitter
from heddle.event import DerivedIds, Identity, Lineage, RawHeaders, event_headers

EMITTER = Emitter("project", "flow", "a.b.v1", "topic", "d" * 64)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TIME = b"2026-01-01T00:00:00.000000Z"
LINEAGE = Lineage("rev.0", Identity("/sources/shop", "root;1")).pack()
OWN = event_headers(Identity("/sources/shop", "e1"), "orders.order.v1", TIME, LINEAGE, TRACE, [])

ODD = st.sampled_from([None, b"", b"x", b"1;", b"1;r", b"1;r;root", b"1;;s;i", b"2;r;s;i", b"1", b";;;", TRACE.upper()])
VALUES = st.sampled_from([TIME, LINEAGE, TRACE, b"00" + TRACE[2:-1] + b"g"]) | ODD | st.binary(max_size=60)
NAMES = st.sampled_from([name for name, _ in OWN] + ["x", "heddle-state", "ce_other"])


@st.composite
def headers(draw: st.DrawFn) -> RawHeaders:
    """Nearly ours: with some values that are odd, some headers more, fewer, twice or in another place."""
    found = [(name, draw(VALUES) if draw(st.integers(0, 9)) == 0 else value) for name, value in OWN]
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(found)))
        found[place : place + draw(st.integers(0, 1))] = draw(st.lists(st.tuples(NAMES, VALUES), max_size=1))
    return found


def record(offset: int, found: RawHeaders) -> Record:
    return Record("orders.order.v1", 3, offset, b"k", b"v", found, 1_790_000_000_000 + offset)


def one_by_one(records: list[Record], emissions: Sequence[tuple[bytes, bytes] | None]) -> list[list[Outgoing]]:
    return [EMITTER.outputs(r, [] if e is None else [e]) for r, e in zip(records, emissions, strict=True)]


@given(st.lists(st.tuples(headers(), st.none() | st.tuples(st.binary(max_size=9), st.binary(max_size=9)))))
def test_a_batch_is_emitted_as_its_records_are_one_by_one(
    batch: list[tuple[RawHeaders, tuple[bytes, bytes] | None]],
) -> None:
    records = [record(offset, found) for offset, (found, _) in enumerate(batch)]
    given_headers = [list(each.headers) for each in records]
    emissions = [emission for _, emission in batch]
    assert EMITTER.only(records, emissions) == one_by_one(records, emissions)
    assert [each.headers for each in records] == given_headers  # a record that is parked has to be as it came


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", [None, b"", b"1;r;root", b"1;r", b"1", b"x;r;s;i", TRACE.upper(), b"01" + TRACE[2:]])
def test_one_header_of_ours_with_an_odd_value_is_read_as_it_is_alone(place: int, value: bytes | None) -> None:
    found = [(name, value if at == place else usual) for at, (name, usual) in enumerate(OWN)]
    records, emissions = [record(0, found), record(1, OWN)], [(b"key", b"value")] * 2
    assert EMITTER.only(records, emissions) == one_by_one(records, emissions)


@pytest.mark.parametrize(("first", "second"), [(first, second) for first in range(7) for second in range(first)])
def test_our_headers_in_another_order_are_read_by_name(first: int, second: int) -> None:
    found = list(OWN)
    found[first], found[second] = found[second], found[first]
    [[output]] = EMITTER.only([record(0, found)], [(b"key", b"value")])
    assert [output] == EMITTER.outputs(record(0, OWN), [(b"key", b"value")])


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("name", ["x", "ce_id", "ce_source", "traceparent"])
def test_seven_headers_of_which_one_is_not_ours_or_comes_twice_are_read_by_name(place: int, name: str) -> None:
    found = [(name if at == place else usual, value) for at, (usual, value) in enumerate(OWN)]
    assert EMITTER.only([record(0, found)], [(b"key", b"v")]) == one_by_one([record(0, found)], [(b"key", b"v")])


@given(st.lists(st.tuples(st.sampled_from([b"/s", b"/t"]) | st.binary(), st.binary(max_size=300), st.binary())))
def test_ids_of_a_batch_are_those_that_each_would_get(parents: list[tuple[bytes, bytes, bytes]]) -> None:
    ids = DerivedIds("flow", "a.b.v1")
    assert ids.of_each(parents) == [ids.of(source, parent_id, key, 0) for source, parent_id, key in parents]
