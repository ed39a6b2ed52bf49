"""The step that gives events to another one and deals with tombstones itself: places stay what they are."""

from __future__ import annotations

from typing import Any

from heddle.contracts import contract_of
from heddle.delivery.steps import Run
from heddle.delivery.tombstones import TombstoneStep
from heddle.errors import Failure, FailureClass
from schemas.ledger import Entry


class Events:
    """A step that answers what it is told to."""

    digest, longest_call_s = b"", 1.0

    def __init__(self, results: list[Any]) -> None:
        self._results = results

    def run(self, records: Any, _: Any) -> Any:
        assert all(record.value is not None for record in records)
        return Run(self._results)


class At:
    def __init__(self, value: bytes | None) -> None:
        self.value = value


def results_of(values: list[bytes | None], answers: list[Any]) -> list[Any]:
    contract = contract_of(Entry)
    events: Any = Events(answers)
    records: Any = [At(value) for value in values]
    unused: Any = None
    step = TombstoneStep(events, contract, contract, None, unused, unused)
    return list(step.run(records, unused).results)


def test_a_failure_is_at_the_place_of_its_record_among_tombstones() -> None:
    failed = Failure(0, FailureClass.POISON, "code", "", "told")
    assert [each.index for each in results_of([None, None, b"a"], [failed])[2:]] == [2]


def test_no_tombstone_passes_an_event_that_was_not_begun() -> None:
    made: Any = [["first"]]
    assert results_of([b"a", None, b"b", None], made) == [["first"], []]
