"""What becomes of a batch of mapped records equals what becomes of each by itself, whatever their headers are."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from heddle.broker.log import Outgoing, Record
from heddle.delivery.classify import Classifier
from heddle.delivery.derived import DerivedHeaders, ids_of_each
from heddle.delivery.flow_steps import MappingStep
from heddle.delivery.native_headers import headers_for
from heddle.delivery.steps import Budget, Emitter, parsed_headers
from heddle.errors import Failure
from heddle.event import Identity, Lineage, RawHeaders, event_headers, parse_headers, stable_id
from heddle.wire.engine import Outputs

FLOW = ("project", "flow", "a.b.v1", "topic", "d" * 64)
ONE_BY_ONE = Emitter(*FLOW)
EMITTERS = [Emitter(*FLOW, headers_for(codec)) for codec in ("python", "auto", "both")]
"""By Python, and by the native package where that is built."""
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
    return [ONE_BY_ONE.outputs(r, [] if e is None else [e]) for r, e in zip(records, emissions, strict=True)]


def in_a_batch(records: list[Record], emissions: Sequence[tuple[bytes, bytes] | None]) -> list[list[Outgoing]]:
    """The same by all of them."""
    made, *others = (batched(emitter, records, emissions) for emitter in EMITTERS)
    assert all(other == made for other in others)
    return made


def batched(
    emitter: Emitter, records: list[Record], emissions: Sequence[tuple[bytes, bytes] | None]
) -> list[list[Outgoing]]:
    made, carries = emitter.batch(records, Outputs.of(emissions))
    parents = [each for each, emission in zip(records, emissions, strict=True) if emission is not None]
    assert carries == any(parsed_headers(each).extra for each in parents)
    return [made.at(place) for place in range(len(records))]


@given(st.lists(st.tuples(headers(), st.none() | st.tuples(st.binary(max_size=9), st.binary(max_size=9)))))
def test_a_batch_is_emitted_as_its_records_are_one_by_one(
    batch: list[tuple[RawHeaders, tuple[bytes, bytes] | None]],
) -> None:
    records = [record(offset, found) for offset, (found, _) in enumerate(batch)]
    given_headers = [list(each.headers) for each in records]
    emissions = [emission for _, emission in batch]
    assert in_a_batch(records, emissions) == one_by_one(records, emissions)
    assert [each.headers for each in records] == given_headers  # a record that is parked has to be as it came


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"1;r;root", b"1;r", b"1", b"x;r;s;i", TRACE.upper(), b"01" + TRACE[2:], TRACE + b"0", TRACE[:-1],
        TRACE.replace(b"-", b"0"),
    ],
)  # fmt: skip
def test_one_header_of_ours_with_an_odd_value_is_read_as_it_is_alone(place: int, value: bytes | None) -> None:
    found = [(name, value if at == place else usual) for at, (name, usual) in enumerate(OWN)]
    records, emissions = [record(0, found), record(1, OWN)], [(b"key", b"value")] * 2
    assert in_a_batch(records, emissions) == one_by_one(records, emissions)


@pytest.mark.parametrize(("first", "second"), [(first, second) for first in range(7) for second in range(first)])
def test_our_headers_in_another_order_are_read_by_name(first: int, second: int) -> None:
    found = list(OWN)
    found[first], found[second] = found[second], found[first]
    [[output]] = in_a_batch([record(0, found)], [(b"key", b"value")])
    assert [output] == ONE_BY_ONE.outputs(record(0, OWN), [(b"key", b"value")])


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("name", ["x", "ce_id", "ce_source", "traceparent"])
def test_seven_headers_of_which_one_is_not_ours_or_comes_twice_are_read_by_name(place: int, name: str) -> None:
    found = [(name if at == place else usual, value) for at, (usual, value) in enumerate(OWN)]
    assert in_a_batch([record(0, found)], [(b"key", b"v")]) == one_by_one([record(0, found)], [(b"key", b"v")])


def test_a_derived_id_is_what_it_was_and_changes_with_each_part() -> None:
    def id_of(
        source: bytes = b"/sources/crm", parent: bytes = b"e1", key: bytes = b"default/1", ordinal: int = 0,
        *, flow: str = "f", contract: str = "a.b.v1",
    ) -> str:  # fmt: skip
        return DerivedHeaders("p", flow, contract, "r").id_of(source, parent, key, ordinal).decode()

    assert id_of() == stable_id("/sources/crm", "e1", "f", "a.b.v1", "default/1", "0")
    others = [
        id_of(source=b"/x"), id_of(parent=b"e2"), id_of(key=b"default/2"), id_of(ordinal=1), id_of(flow="g"),
        id_of(contract="a.b.v2"),
    ]  # fmt: skip
    assert len({id_of(), *others}) == 7


def test_an_output_has_an_identity_of_its_own_and_all_else_of_its_parent() -> None:
    extra = [("x-a", b"1"), ("x-a", None)]
    parent = parse_headers([*OWN, *extra], "orders.order.v1", 0, 0, 0)
    derived = DerivedHeaders("project", "flow", "a.b.v1", "r.1")
    identity = Identity("/project/flow", derived.id_of(b"/sources/shop", b"e1", b"key", 2).decode())
    lineage = Lineage("r.1", Identity("/sources/shop", "root;1")).pack()
    assert derived.of(parent, b"key", 2) == event_headers(identity, "a.b.v1", TIME, lineage, TRACE, extra)


@pytest.mark.parametrize("extra", [[], [("x", b"1")]])
def test_a_mappings_run_says_whether_there_are_headers_of_others(extra: RawHeaders) -> None:
    class Fixed:
        def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[Failure]]:
            return Outputs.of([(b"key", b"value")] * len(values)), []

    step = MappingStep(Fixed(), Emitter(*FLOW), "digest", Classifier())
    run = step.run([record(0, OWN), record(1, [*OWN, *extra])], Budget(10.0, threading.Event()))
    assert (run.results, run.carries) == ([0, 1], bool(extra))


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_ids_of_many_digests_are_base32(digests: list[bytes]) -> None:
    assert ids_of_each(digests) == [base64.b32encode(digest)[:26].lower() for digest in digests]


@given(st.lists(st.tuples(st.sampled_from([b"/s", b"/t"]) | st.binary(), st.binary(max_size=300), st.binary())))
def test_ids_of_a_batch_are_those_that_each_would_get(parents: list[tuple[bytes, bytes, bytes]]) -> None:
    records = [record(0, [*OWN[:1], ("ce_id", id), ("ce_source", source), *OWN[3:]]) for source, id, _ in parents]
    emissions = [(key, b"value") for _, _, key in parents]
    assert in_a_batch(records, emissions) == one_by_one(records, emissions)


def test_what_differs_is_said_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        def __init__(self, *_: object) -> None:
            """As the package's: own headers, and what is constant."""

        def of_each(self, parents: list[RawHeaders], keys: list[bytes | None]) -> list[RawHeaders | None]:
            return [None, [("ce_id", b"another")], *([None] * (len(keys) - 2))]

    monkeypatch.setitem(sys.modules, "heddle_native", SimpleNamespace(Headers=Native))
    assert {headers_for(codec) for codec in ("python", "objects")} == {DerivedHeaders}
    records, emissions = [record(offset, OWN) for offset in range(3)], [(b"key", b"value")] * 3
    with capture_logs() as logs:
        assert batched(Emitter(*FLOW, headers_for("both")), records, emissions) == one_by_one(records, emissions)
    assert [(line["log_level"], line["records"], line["first"]) for line in logs] == [("error", 1, 1)]


def test_where_the_package_is_not_there_or_too_old_python_makes_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (None, SimpleNamespace(FORMATS=[1])):
        monkeypatch.setitem(sys.modules, "heddle_native", missing)
        assert {headers_for(codec) for codec in ("auto", "native", "both", "python", "objects")} == {DerivedHeaders}


def test_ids_are_hashed_of_all_that_they_depend_on_however_long_it_is() -> None:
    keys = [b"k" * length for length in range(400)]
    records, emissions = [record(0, OWN)] * len(keys), [(key, b"value") for key in keys]
    assert in_a_batch(records, emissions) == one_by_one(records, emissions)


@pytest.mark.parametrize("codec", ["python", "auto"])
def test_what_we_have_written_ourselves_takes_the_short_way(codec: str) -> None:
    derived = headers_for(codec)("project", "flow", "a.b.v1", "r.0")
    assert derived.of_each([OWN], [b"key"]) == [derived.of(parse_headers(OWN, "", 0, 0, 0), b"key", 0)]


def test_whatever_is_in_the_lists_the_native_package_leaves_alone() -> None:
    native = pytest.importorskip("heddle_native", reason="the native engine is not built: make native")
    made = native.Headers((("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"t")), b"1;r;", b"")
    odd: list[object] = [
        None,
        7,
        "",
        tuple(OWN),
        [*OWN[:6], None],
        [*OWN[:6], ("traceparent",)],
        [*OWN[:6], ("\ud800", TRACE)],
    ]
    odd += [
        [*OWN[:6], (b"traceparent", TRACE)],
        [*OWN[:6], ("traceparent", "text")],
        [*OWN[:6], ("traceparent", TRACE, 1)],
    ]
    assert made.of_each(odd, [b"key"] * len(odd)) == [None] * len(odd)
    assert made.of_each([OWN] * 3, [None, "key", 7]) == [None] * 3
    with pytest.raises(TypeError):
        made.of_each((OWN,), [b"key"])
