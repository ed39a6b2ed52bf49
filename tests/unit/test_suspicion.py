"""The attempt marker: three crashes find the record, and a crash while nothing was in hand finds none."""

from __future__ import annotations

from heddle.delivery.suspicion import ALONE, InHand, Suspicion, after_crash

MOST = 2_000


def test_each_crash_divides_the_batch() -> None:
    first = after_crash(None, MOST, pending=5_000)
    assert first == Suspicion(1, MOST)
    assert first is not None
    assert first.bound(MOST) == 62
    second = after_crash(first, MOST, pending=5_000)
    assert second is not None
    assert (second.level, second.bound(MOST), second.bound(100_000)) == (ALONE, 1, 1)
    named = second.naming(InHand("live", 17))
    assert after_crash(named, MOST, pending=5_000) == named


def test_a_crash_with_nothing_to_do_suspects_nothing() -> None:
    assert after_crash(None, MOST, pending=0) is None
    assert after_crash(Suspicion(1, 40), MOST, pending=0) is None


def test_suspicion_ends_with_what_the_dead_owner_can_have_had() -> None:
    suspicion: Suspicion | None = after_crash(None, MOST, pending=100)
    assert suspicion is not None
    suspicion = suspicion.after(62)
    assert suspicion == Suspicion(1, 38)
    assert suspicion is not None
    assert suspicion.after(38) is None


def test_what_ran_through_is_no_longer_named() -> None:
    named = Suspicion(ALONE, 5, InHand("entry", 3))
    assert named.after(1) == Suspicion(ALONE, 4)


def test_what_commands_may_have_ordered_is_suspected_whatever_else_runs() -> None:
    assert Suspicion(1, 40).after(39, least=5) == Suspicion(1, 5)
    assert Suspicion(1, 5).after(100, least=5) == Suspicion(1, 5)
