"""Identity, keys and headers: formats that are fixed for ever, so these values may never change."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.event import (
    EVENT_HEADERS,
    Identity,
    Lineage,
    entity_key,
    event_headers,
    event_time,
    parse_headers,
    stable_id,
    valid_traceparent,
)

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_stable_id_is_what_it_was() -> None:
    assert stable_id("a", "bc") == "fzm5cvbh3rvgupckkc7er3fsma"
    assert stable_id("ab", "c") != stable_id("a", "bc")


def test_key_is_escaped_so_that_tenant_and_entity_cannot_run_together() -> None:
    assert entity_key("INV/1 é", "a/b") == b"a%2Fb/INV%2F1%20%C3%A9"
    assert entity_key("7") == b"default/7"


def test_time_is_utc_with_microseconds_and_refuses_a_naive_one() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=2)))
    assert event_time(moment) == "2026-01-02T01:04:05.000006Z"
    with pytest.raises(ValueError, match="zone"):
        event_time(moment.replace(tzinfo=None))


@given(st.text(), st.text(), st.sampled_from(["", "abc.0"]))
def test_lineage_survives_any_root_id(source: str, root_id: str, revision: str) -> None:
    lineage = Lineage(revision, Identity(source.replace(";", ""), root_id))
    assert Lineage.unpack(lineage.pack()) == lineage


def test_lineage_of_a_newer_format_is_refused_not_guessed() -> None:
    with pytest.raises(ValueError, match="version"):
        Lineage.unpack(b"2;x;y;z")


def test_headers_round_trip_and_foreign_ones_travel_along_untouched() -> None:
    extra = [("x-a", b"1"), ("x-a", None), ("x-b", b"")]
    lineage = Lineage("r.0", Identity("/s", "root"))
    time = event_time(datetime(2026, 1, 1, tzinfo=UTC)).encode()
    headers = event_headers(Identity("/s", "1"), "a.b.v1", time, lineage.pack(), TRACE, extra)
    assert {name for name, _ in headers[:7]} == EVENT_HEADERS
    parsed = parse_headers(headers, "a.b.v1", 0, 9, 0)
    assert (parsed.identity, parsed.time, parsed.lineage) == (Identity("/s", "1"), time, lineage)
    assert (parsed.traceparent, parsed.extra) == (TRACE, extra)


@pytest.mark.parametrize("odd", [b"", b"1", b"1;rev", b"1;rev;root", b"2;rev;/s;root", b"\xff"])
def test_a_lineage_that_cannot_be_read_leaves_the_record_its_own_root(odd: bytes) -> None:
    parsed = parse_headers([("ce_id", b"e"), ("ce_source", b"/s"), ("heddle-lineage", odd)], "t", 0, 0, 0)
    assert parsed.lineage == Lineage("", Identity("/s", "e"))


def test_identity_of_bytes_that_are_no_text_is_passed_on_untouched() -> None:
    parsed = parse_headers([("ce_id", b"\xff"), ("ce_source", b"/s")], "t", 0, 0, 0)
    assert parsed.id == b"\xff"
    assert parsed.root == b"/s;\xff"


def test_a_foreign_record_has_an_identity_from_its_coordinates() -> None:
    parsed = parse_headers([("traceparent", b"nonsense")], "t", 3, 9, 1_000)
    assert parsed.identity == Identity("/topics/t", "3-9")
    assert parsed.time == b"1970-01-01T00:00:01.000000Z"
    assert parsed.lineage.root == parsed.identity
    assert parsed.traceparent is None


@pytest.mark.parametrize("bad", [b"", TRACE.upper(), TRACE[:-1], b"01" + TRACE[2:], TRACE + b"-", None])
def test_traceparent_shape(bad: bytes | None) -> None:
    assert valid_traceparent(TRACE)
    assert not valid_traceparent(bad)


def test_different_identities_stay_different_whatever_their_bytes() -> None:
    def identity(source: bytes, event_id: bytes) -> Identity:
        return parse_headers([("ce_source", source), ("ce_id", event_id)], "t", 1, 2, 0).identity

    assert identity(b"/s", b"\xff") != identity(b"/s", b"\xfe")
    assert identity(b"/s", b"") == Identity("/topics/t", "1-2")
    odd = parse_headers([("ce_source", b"urn:a;b"), ("ce_id", b"1;2")], "t", 0, 0, 0)
    assert odd.lineage.root == odd.identity == Identity("urn:a;b", "1;2")
    assert Lineage.unpack(odd.lineage.pack()) == odd.lineage


@pytest.mark.parametrize("timestamp_ms", [-1, 2**62, 1_767_225_600_000_000])
def test_an_append_time_that_is_no_time_breaks_no_reader(timestamp_ms: int) -> None:
    assert parse_headers([], "t", 0, 0, timestamp_ms).time.endswith(b"Z")


def test_reserved_headers_do_not_travel_into_other_events() -> None:
    parsed = parse_headers([("heddle-state", b"dead"), ("x", b"1")], "t", 0, 0, 0)
    assert parsed.extra == [("x", b"1")]
