"""Where a batch ends: what counts as a flood and what does not, and what a target asks for."""

from __future__ import annotations

from heddle.broker.log import Record
from heddle.delivery.envelope import Entry, State
from heddle.delivery.judge import Cut, Flood, Judge
from heddle.delivery.settlement import Due, Settlement
from heddle.delivery.steps import Result
from heddle.errors import AuthError, Failure, FailureClass, RateLimitError
from heddle.on_failure import Breaker, FailureBudget, OnFailure
from heddle.testing.clock import ManualClock

BAD = Failure(0, FailureClass.CONTRACT, "bad", "", "bad value")
POLICY = OnFailure(budget=FailureBudget(records=10), breaker=Breaker(keys=3))


def judge() -> Judge:
    return Judge("park", POLICY, ManualClock())


def live(number: int) -> Record:
    return Record("in", 0, number, b"k%d" % number, b"v", [], 0)


def due(number: int) -> Due:
    entry = Entry("here", 0, number, b"k%d" % number, number, State.DEAD, 1, attempts=1)
    return Due(entry, live(number), live(number), True)


def tried(judge: Judge, results: list[Result], entries: int = 0) -> Cut:
    """A batch of which the first `entries` are entries; it commits when nothing interrupts it."""
    dues = [due(number) for number in range(entries)]
    records = [live(number) for number in range(len(results))]
    cut = judge.cut(records, dues, results, None)
    if cut.interruption is None:
        failed = [(record.key, each) for record, each in zip(records, results, strict=True) if each is BAD]
        ran = [(each, results[number] is not BAD) for number, each in enumerate(dues)]
        succeeded = len(results) - len(failed)
        judge.concluded(Settlement(failures=failed, ran=ran, settled=len(results) - entries, succeeded=succeeded))
    return cut


def is_flood(cut: Cut) -> bool:
    return cut.interruption is not None and isinstance(cut.interruption.error, Flood)


def test_a_flood_is_noticed_over_batches_and_before_any_of_the_last_one_is_parked() -> None:
    it = judge()
    assert [tried(it, [BAD] * 3).interruption for _ in range(3)] == [None, None, None]
    flood = tried(it, [[], BAD, BAD])
    assert is_flood(flood)
    assert flood.at == 1


def test_entries_that_fail_again_are_no_flood_however_many() -> None:
    it = judge()
    assert tried(it, [[]] * 8 + [BAD] * 6).interruption is None
    for _ in range(3):
        assert tried(it, [BAD] * 40, entries=40).interruption is None
    assert tried(it, [BAD]).interruption is None


def test_what_is_not_parked_is_no_flood() -> None:
    limited = Failure(0, FailureClass.RATE_LIMIT, "429", "", "slow down", RateLimitError("slow down"))
    cut = judge().cut([live(n) for n in range(50)], [], [limited] * 50, None)
    assert not is_flood(cut)
    assert cut.at == 0
    refused = Failure(0, FailureClass.AUTH, "401", "", "refused", AuthError("refused"))
    cut = judge().cut([live(n) for n in range(50)], [], [refused] * 50, None)
    assert cut.interruption is not None
    assert isinstance(cut.interruption.error, AuthError)


def test_only_a_rate_limit_slows() -> None:
    slows = []
    for kind in (FailureClass.RATE_LIMIT, FailureClass.DEPENDENCY_DOWN):
        interruption = judge().cut([live(0)], [], [Failure(0, kind, "x", "", "")], None).interruption
        assert interruption is not None
        slows.append(interruption.slows)
    assert slows == [True, False]


def test_the_breaker_opens_over_batches_and_parks_nothing_of_the_last_one() -> None:
    it = judge()
    reset = Failure(0, FailureClass.TRANSIENT, "reset", "", "connection reset")
    for number in range(2):
        assert it.cut([live(number)], [], [reset], None).interruption is None
        it.concluded(Settlement(failures=[(live(number).key, reset)], settled=1))
    cut = it.cut([live(2)], [], [reset], None)
    assert cut.at == 0
    assert cut.interruption is not None
    assert cut.interruption.failed_alike == [(b"k2", reset)]
