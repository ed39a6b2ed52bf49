"""What one transaction will hold: lanes that run in part, outputs that are too large, and who is superseded by whom."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heddle.audit import AuditTrail
from heddle.broker.log import Outgoing, OutgoingBatch, Record, one_by_one
from heddle.delivery.envelope import Envelope, State, entry_of, original_of
from heddle.delivery.index import EntryId, PartitionIndex
from heddle.delivery.judge import Judge
from heddle.delivery.revision import as_handled
from heddle.delivery.settle import OWN_HEADERS, Settler
from heddle.delivery.settlement import Change, Due, Settlement
from heddle.delivery.steps import SKIPPED, Budget, NoFence, Recovered, Result, Run, parsed_headers, run_in_order
from heddle.errors import BrokerError, ContractError, Failure, FailureClass
from heddle.event import REPLAYED, RawHeaders
from heddle.integration import Applied, Outcome
from heddle.on_failure import OnFailure, Order, holds_keys
from heddle.testing.clock import ManualClock

TOPIC_ID = "here"
LIMIT_BYTES = 10_000
ENVELOPE = Envelope("flow", "flow.dlq", TOPIC_ID, "digest", lambda: 1_000)
BAD = ContractError("bad value")
FAILURE = Failure(0, FailureClass.CONTRACT, "lookup", "", "no such product")


class Echo(NoFence):
    """Emits each value. `bad` fails; what begins with `big` comes out larger than the log takes. `most`: where the
    batch is cut. `in_batch`: single outputs come as a mapping's do."""

    digest = "digest"
    in_batch = False

    def __init__(self, order: Order) -> None:
        self._by_key = holds_keys(order)
        self.given: list[Record] = []
        self.most = sys.maxsize

    def run(self, records: Sequence[Record], budget: Budget) -> Run:
        self.given += records
        run = run_in_order(records[: self.most], budget, self._by_key, lambda _, record: self._one(record))
        return batched(run) if self.in_batch else run

    def _one(self, record: Record) -> Result:
        value = record.value or b""
        if value == b"bad":
            raise BAD.with_traceback(None)
        if value == b"odd":
            return Applied(Outcome.DUPLICATE)
        if value == b"again":
            return Recovered([Outgoing("out", record.key, value)])
        if value in (b"none", b"two"):
            return [Outgoing("out", record.key, value)] * (0 if value == b"none" else 2)
        return [Outgoing("out", record.key, value * (LIMIT_BYTES if value.startswith(b"big") else 1))]


def batched(run: Run) -> Run:
    keys, values, headers, results = [], [], list[RawHeaders | None](), list[Result]()
    for place, result in enumerate(run.results):
        outputs = result if type(result) is list else []
        one = outputs[0] if len(outputs) == 1 else None
        keys.append(one and one.key)
        values.append(one and one.value)
        headers.append(None if one is None else list(one.headers))
        results.append(place if type(result) is list and len(result) < 2 else result)
    return Run(results, run.interrupted, OutgoingBatch("out", keys, values, headers), carries=any(headers))


@pytest.fixture(autouse=True, scope="module", params=[False, True], ids=["in lists", "in a batch"])
def _each_way(request: pytest.FixtureRequest) -> None:
    Echo.in_batch = request.param


class Bench:
    """Two partitions, entries of the first, and a batch."""

    def __init__(self, order: Order = "park", *, regulated: bool = False) -> None:
        clock = ManualClock()
        self.step = Echo(order)
        self.index = PartitionIndex(TOPIC_ID, order)
        indexes = {0: self.index, 1: PartitionIndex(TOPIC_ID, order)}
        trail = AuditTrail("flow", "in", "flow.audit", "worker:0", b"k" * 32, regulated=regulated)
        judge = Judge(order, OnFailure(), clock)
        self.settler = Settler(self.step, order, indexes, ENVELOPE, trail, clock, judge, LIMIT_BYTES)

    def parked(
        self,
        offset: int,
        value: bytes,
        state: State = State.DEAD,
        *,
        key: bytes | None = b"k",
        edit: bytes | None = None,
    ) -> Due:
        """An entry in the index, as it runs."""
        record = live(offset, value, key)
        if state is State.WAITING:
            stored = appended(ENVELOPE.waiting(record, "0-0"), offset)
        else:
            stored = appended(ENVELOPE.failed(record, FAILURE, state), offset)
        if edit is not None:
            stored = appended(ENVELOPE.edited(stored, edit), offset)
        entry = entry_of(stored)
        self.index.put(entry, 0.0)
        is_ordered = self.index.is_ordered(entry)
        return Due(entry, stored, as_handled(original_of(stored), entry.edit, is_ordered=is_ordered), is_ordered)

    def settle(self, live: list[Record], due: list[Due]) -> Settlement:
        return self.settler.settle(live, due, Budget(60.0, threading.Event()))


def live(offset: int, value: bytes = b"live", key: bytes | None = b"k") -> Record:
    return Record("in", 0, offset, key, value, [], 0)


def appended(made: Outgoing, version: int) -> Record:
    return Record(made.topic, 0, version, made.key, made.value, list(made.headers), 0)


def sent(settlement: Settlement) -> list[Outgoing]:
    return [output._replace(headers=[*output.headers]) for output in one_by_one(settlement.outputs)]


def outputs(settlement: Settlement) -> list[bytes | None]:
    return [output.value for output in sent(settlement)]


def change_of(settlement: Settlement, offset: int) -> Change:
    return settlement.changes[0, EntryId(TOPIC_ID, offset)]


def test_a_live_record_follows_a_lane_that_runs_whole_and_waits_behind_one_that_runs_in_part() -> None:
    whole = Bench()
    due = [whole.parked(0, b"head"), whole.parked(1, b"second", State.WAITING)]
    assert outputs(whole.settle([live(9)], due)) == [b"head", b"second", b"live"]
    part = Bench()
    due = [part.parked(0, b"head"), part.parked(1, b"second", State.WAITING)]
    part.parked(2, b"third", State.WAITING)
    settlement = part.settle([live(9)], due)
    assert outputs(settlement) == [b"head", b"second"]
    assert change_of(settlement, 9).entry.state is State.WAITING
    assert settlement.tally == {(0, Outcome.DIVERTED): 1}


def test_what_runs_of_one_key_releases_no_other() -> None:
    bench = Bench()
    due = [bench.parked(0, b"head")]
    bench.parked(1, b"other", key=b"other")
    assert outputs(bench.settle([live(9, key=b"other")], due)) == [b"head"]


def test_later_events_wait_behind_one_whose_output_is_too_large() -> None:
    """They have run already when that shows: what they made is not sent."""
    settlement = Bench().settle([live(0, b"big"), live(1), live(2, key=b"free")], [])
    assert outputs(settlement) == [b"live"]
    assert (change_of(settlement, 0).entry.state, change_of(settlement, 1).entry.state) == (State.DEAD, State.WAITING)
    assert settlement.tally == {(0, Outcome.PARKED): 1, (0, Outcome.DIVERTED): 1, (0, Outcome.EMITTED): 1}


@pytest.mark.parametrize(
    ("value", "headers", "is_too_large"),
    [
        (b"v" * (LIMIT_BYTES - 101), [], False),
        (b"v" * (LIMIT_BYTES - 100), [], True),
        (b"v", [("x", b"1")] * OWN_HEADERS + [("y", b"v" * LIMIT_BYTES)], True),
        (b"v", [("x", b"1")] * (OWN_HEADERS - 1) + [("y", b"v" * LIMIT_BYTES)], True),
        (b"v", [("x", b"1")] * 20, False),
    ],
)
def test_the_frame_and_the_headers_of_others_count_when_an_output_is_measured(
    value: bytes, headers: RawHeaders, is_too_large: bool
) -> None:
    class Fixed(Echo):
        def _one(self, record: Record) -> Result:
            return [Outgoing("out", b"k", value, headers)]

    bench = Bench()
    bench.settler.step = Fixed("park")
    assert [code for _, (_, _, code, *_) in bench.settle([live(0)], []).failures] == ["too-large"] * is_too_large


def test_a_batch_ends_before_a_record_that_was_left_out_for_no_reason_of_its_own() -> None:
    class Forgetful(Echo):
        def _one(self, record: Record) -> Result:
            return SKIPPED if record.value == b"left out" else super()._one(record)

    bench = Bench()
    bench.settler.step = Forgetful("park")
    settlement = bench.settle([live(0), live(1, b"left out"), live(2)], [])
    assert (settlement.settled, settlement.next_offsets) == (1, {0: 1})
    with pytest.raises(BrokerError, match="offset 1"):
        bench.settle([live(1, b"left out"), live(2)], [])


def test_what_waits_stays_behind_a_head_whose_output_is_too_large() -> None:
    bench = Bench()
    due = [bench.parked(0, b"big"), bench.parked(1, b"second", State.WAITING)]
    settlement = bench.settle([live(9)], due)
    assert outputs(settlement) == []
    assert settlement.ran == [(due[0], False)]
    assert settlement.changes.keys() == {(0, EntryId(TOPIC_ID, 0)), (0, EntryId(TOPIC_ID, 9))}


def test_an_older_event_supersedes_no_newer_one_that_fails_in_the_same_batch() -> None:
    bench = Bench("supersede")
    settlement = bench.settle([], [bench.parked(5, b"bad"), bench.parked(3, b"good")])
    assert outputs(settlement) == [b"good"]
    assert change_of(settlement, 5).put
    assert not change_of(settlement, 3).put


def test_a_newer_event_does_not_overwrite_the_marker_of_an_edit() -> None:
    """Read again, the record as it was before the edit must not come back."""
    bench = Bench("supersede")
    settlement = bench.settle([live(8)], [bench.parked(3, b"bad", edit=b"good")])
    assert outputs(settlement) == [b"good", b"live"]
    assert change_of(settlement, 3).entry.state is State.REVISED
    assert change_of(settlement, 3).outgoing.value == b""


@pytest.mark.parametrize(("order", "says"), [("park", False), ("continue", True), ("supersede", True)])
def test_a_handler_is_told_of_what_comes_out_of_its_keys_order(order: Order, says: bool) -> None:
    bench = Bench(order)
    bench.settle([live(9, key=b"free")], [bench.parked(0, b"again")])
    assert [(REPLAYED, b"1") in record.headers for record in bench.step.given] == [says, False]


def test_an_edited_record_says_so_in_its_lineage_and_in_that_of_what_it_makes() -> None:
    bench = Bench()
    bench.settle([], [bench.parked(0, b"bad", edit=b"good")])
    [given] = bench.step.given
    assert parsed_headers(given).revision == b"-.1"
    assert parsed_headers(given).identity == parsed_headers(live(0)).identity


def test_an_answer_that_is_emitted_counts_as_recovered_where_an_earlier_try_had_made_its_effect() -> None:
    bench = Bench()
    settlement = bench.settle([live(8), live(9, b"again", b"free")], [bench.parked(0, b"again", key=b"other")])
    assert outputs(settlement) == [b"again", b"live", b"again"]
    assert settlement.tally == settlement.entry_tally + Counter({(0, Outcome.EMITTED): 1})
    assert (settlement.recovered, settlement.entry_recovered) == ({0: 1}, {0: 1})
    assert "recovered" in [line.outcome for line in settlement.lines[0]]


VALUES = st.sampled_from([b"good"] * 6 + [b"bad", b"big", b"none", b"two", b"odd", b"again"])


@given(
    st.lists(st.tuples(VALUES, st.integers(0, 1), st.sampled_from([None, b"a", b"b", b"c"]))), st.booleans(),
    st.sampled_from(["park", "continue", "supersede"]), st.integers(0, 30),
)  # fmt: skip
@example([(b"good", 0, b"a")], True, "supersede", 9)
def test_the_short_way_settles_what_the_long_way_does(
    batch: list[tuple[bytes, int, bytes | None]], is_parked: bool, order: Order, cut: int
) -> None:
    """The long way is that of a subscription of which every event gets an audit line."""
    short, long = Bench(order), Bench(order, regulated=True)
    live_records = [live(offset, value, key)._replace(partition=p) for offset, (value, p, key) in enumerate(batch, 5)]
    settlements = []
    for bench in (short, long):
        if is_parked:
            bench.parked(0, b"bad", key=b"a")
        bench.step.most = cut
        settlements.append(bench.settle(live_records, []))
    of_short, of_long = settlements
    assert sent(of_short) == sent(of_long)
    for name in ("recovered", "failures", "changes", "tally", "first_offsets", "next_offsets", "values"):
        assert getattr(of_short, name) == getattr(of_long, name), name
    assert (of_short.settled, of_short.succeeded) == (of_long.settled, of_long.succeeded)
    settled = live_records[: of_short.settled]
    assert sum(of_short.tally.values()) == len(settled)
    assert of_short.values == {
        p: [r.value for r in settled if r.partition == p] for p in {r.partition for r in settled}
    }
    assert of_short.next_offsets == {record.partition: record.offset + 1 for record in settled}
    assert of_short.first_offsets == {record.partition: record.offset for record in reversed(settled)}
    for partition in of_short.values:
        told = [line.outcome for line in of_long.lines[partition] if not line.entry]
        assert {str(o): n for (p, o), n in of_short.tally.items() if p == partition} == Counter(told)


def test_a_record_without_a_key_has_no_order_to_come_out_of() -> None:
    bench = Bench()
    bench.settle([], [bench.parked(0, b"again", key=None)])
    assert [(REPLAYED, b"1") in record.headers for record in bench.step.given] == [True]
