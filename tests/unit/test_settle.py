"""What one transaction will hold: lanes that run in part, outputs that are too large, and who is superseded by whom."""

from __future__ import annotations

import threading

import pytest

from heddle.audit import AuditTrail
from heddle.broker.log import Outgoing, Record
from heddle.delivery.envelope import Envelope, State, entry_of, original_of
from heddle.delivery.index import EntryId, PartitionIndex
from heddle.delivery.judge import Judge
from heddle.delivery.revision import as_handled
from heddle.delivery.settle import Settler
from heddle.delivery.settlement import Change, Due, Settlement
from heddle.delivery.steps import Budget, NoFence, Result, Run, parsed_headers, run_in_order
from heddle.errors import ContractError, Failure, FailureClass
from heddle.event import REPLAYED
from heddle.integration import Outcome
from heddle.on_failure import OnFailure, Order, holds_keys
from heddle.testing.clock import ManualClock

TOPIC_ID = "here"
LIMIT_BYTES = 10_000
ENVELOPE = Envelope("flow", "flow.dlq", TOPIC_ID, "digest")
FAILURE = Failure(0, FailureClass.CONTRACT, "lookup", "", "no such product")


class Echo(NoFence):
    """Emits each value. `bad` fails; what begins with `big` comes out larger than the log takes."""

    digest = "digest"

    def __init__(self, order: Order) -> None:
        self._by_key = holds_keys(order)
        self.given: list[Record] = []

    def run(self, records: list[Record], budget: Budget) -> Run:  # type: ignore[override]
        self.given += records
        return run_in_order(records, budget, self._by_key, lambda _, record: self._one(record))

    def _one(self, record: Record) -> Result:
        value = record.value or b""
        if value == b"bad":
            raise ContractError("bad value")
        return [Outgoing("out", record.key, value * (LIMIT_BYTES if value.startswith(b"big") else 1))]


class Bench:
    """One partition, its entries, and a batch of it."""

    def __init__(self, order: Order = "park") -> None:
        clock = ManualClock()
        self.step = Echo(order)
        self.index = PartitionIndex(TOPIC_ID, order)
        trail = AuditTrail("flow", "in", "flow.audit", "worker:0", b"k" * 32)
        judge = Judge(order, OnFailure(), clock)
        self.settler = Settler(self.step, order, {0: self.index}, ENVELOPE, trail, clock, judge, LIMIT_BYTES)

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


def outputs(settlement: Settlement) -> list[bytes | None]:
    return [output.value for output in settlement.outputs]


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


def test_a_record_without_a_key_has_no_order_to_come_out_of() -> None:
    bench = Bench()
    bench.settle([], [bench.parked(0, b"again", key=None)])
    assert [(REPLAYED, b"1") in record.headers for record in bench.step.given] == [True]
