"""Polling a real HTTP API: every way to page, everything that an API does while it is read, and nothing missed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rest_harness import CURSOR, World, deals, deletions, names, pulls, source, told
from rest_server import START_S, Api, Asked, Reply, RestServer
from structlog.testing import capture_logs

from heddle.errors import AuthError, DependencyDownError, FormatError, PositionLostError, UsageError
from heddle.http.auth import ApiKey, Basic, Bearer, ClientCredentials
from heddle.secrets import secret
from heddle.sources.rest import (
    ApiVersion,
    Cursor,
    Feed,
    GraphQL,
    HighWater,
    Keyset,
    LinkHeader,
    NextUrl,
    Offset,
    PageNumber,
    Resource,
    RestSource,
)

PAGINGS = {
    "cursor": CURSOR,
    "offset": Offset(limit=50),
    "page": PageNumber(size=50),
    "link": LinkHeader(),
    "url": NextUrl(at="@odata.nextLink"),
    "keyset": Keyset({"after_time": "updatedAt", "after_id": "id"}, more="has_more"),
}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[RestServer]:
    started = RestServer(api)
    yield started
    started.close()


def filled(api: Api, rows: int) -> Api:
    for number in range(rows):
        api.put(number, f"n{number}", at=START_S - rows + number)
    return api


def opened(declared: RestSource, position: bytes | None = None) -> Any:
    puller = declared.open()
    puller.begin(position)
    return puller


# Paging


@pytest.mark.parametrize("kind", PAGINGS)
def test_every_paging_reads_all_rows_in_order_and_once(api: Api, server: RestServer, kind: str) -> None:
    filled(api, 93).paging = kind
    puller = opened(source(server, deals(paging=PAGINGS[kind])))
    assert names(puller) == [f"n{number}" for number in range(93)]
    api.now += 10
    api.put(200, "later")
    assert names(puller, until_idle=12) == ["later"]
    puller.close()


@pytest.mark.parametrize("kind", PAGINGS)
def test_every_page_is_a_place_to_go_on_from(api: Api, server: RestServer, kind: str) -> None:
    filled(api, 93).paging = kind
    declared = source(server, deals(paging=PAGINGS[kind]))
    position, seen = None, list[str]()
    while len(seen) < 93:
        puller = opened(declared, position)
        pull = puller.pull(1000, 0.0)
        puller.close()
        assert pull is not None
        seen += [record.row.value["name"] for record in pull.records]
        position = pull.position
    assert seen == [f"n{number}" for number in range(93)]


@pytest.mark.parametrize("left", [1, 9, 25])
@pytest.mark.parametrize("paging", [Offset(limit=20), PageNumber(size=20)], ids=["offset", "page"])
def test_rows_that_leave_while_pages_are_read_hide_none(api: Api, server: RestServer, paging: Any, left: int) -> None:
    """By some, by more than offsets overlap, and by more than a page has."""
    filled(api, 400).paging = "offset" if isinstance(paging, Offset) else "page"
    reads = 0

    def shift(_: Asked) -> None:
        nonlocal reads
        reads += 1
        if reads < 8:
            for number in range((reads - 1) * left, reads * left):
                api.delete(number)

    api.before = shift
    puller = opened(source(server, deals(paging=paging)))
    assert set(names(puller, until_idle=12)) >= {row["name"] for row in api.rows.values()}
    puller.close()


@pytest.mark.parametrize("paging", [Offset(limit=20), PageNumber(size=20)], ids=["offset", "page"])
def test_what_overlapping_pages_share_is_told_once_however_old_it_is(api: Api, server: RestServer, paging: Any) -> None:
    """Of rows from before the overlap of sweeps nothing is remembered."""
    for number in range(50):
        api.put(number, f"n{number}", at=START_S - 1000 * (50 - number))
    api.paging = "page" if isinstance(paging, PageNumber) else "offset"
    puller = opened(source(server, deals(paging=paging)))
    assert names(puller, until_idle=6) == [f"n{number}" for number in range(50)]
    puller.close()


def test_a_numbered_page_that_says_that_it_is_the_last_is_read_once(api: Api, server: RestServer) -> None:
    filled(api, 12)
    api.before = lambda _: (200, {}, {"data": list(api.rows.values()), "meta": {"more": False}})
    puller = opened(source(server, deals(paging=PageNumber(size=50, first=0, more="meta.more"))))
    puller.pull(1000, 0.0)
    assert puller._followers[0].standing.sweep is None
    assert [(asked.params["page"], asked.params["per_page"]) for asked in api.asked] == [("0", "50")]
    puller.close()
    with pytest.raises(UsageError, match="at most 200"):
        PageNumber(size=201)


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 23])
@pytest.mark.parametrize("cap", [2, 3, 5, 6, 20])
def test_an_offset_reads_on_behind_short_pages(api: Api, server: RestServer, cap: int, rows: int) -> None:
    """Servers cap pages; also to no more rows than pages share."""
    filled(api, rows).paging, api.page_rows = "offset", cap
    puller = opened(source(server, deals(paging=Offset(limit=100))))
    assert names(puller) == [f"n{number}" for number in range(rows)]
    puller.close()


def test_an_offset_reads_on_behind_a_page_of_nothing_new(api: Api, server: RestServer) -> None:
    """As servers answer that cap pages by their bytes: what is shared, and not the big row behind it."""
    filled(api, 40).paging = "offset"

    def cut_before_the_big_row(asked: Asked) -> Reply | None:
        first = int(asked.params.get("offset", 0))
        numbers = range(first, min(first + 20, 40))
        kept = [api.rows[number] for number in numbers if number < 20 or first > 18]
        return 200, {}, {"data": kept}

    api.before = cut_before_the_big_row
    puller = opened(source(server, deals(paging=Offset(limit=20))))
    assert set(names(puller)) == {f"n{number}" for number in range(40)}
    puller.close()
    api.before = lambda asked: (200, {}, {"data": [api.rows[int(asked.params.get("offset", 0))]]})
    puller = opened(source(server, deals(paging=Offset(limit=20))))
    with pytest.raises(UsageError, match="pages cannot overlap"):
        names(puller)
    puller.close()


def test_an_offset_ends_where_the_total_says_and_not_before(api: Api, server: RestServer) -> None:
    filled(api, 30)
    most = 1000

    def counted(asked: Asked) -> Reply:
        first = int(asked.params.get("offset", 0))
        rows = [api.rows[number] for number in range(first, min(first + 20, 30, most))]
        return 200, {}, {"data": rows, "meta": {"total": 30}}

    api.before = counted
    paging = Offset(limit=20, total="meta.total")
    puller = opened(source(server, deals(paging=paging, every_s=3600)))
    assert len(names(puller)) == 30
    assert [int(asked.params.get("offset", 0)) for asked in api.asked] == [0, 15]
    puller.close()
    most = 25  # as APIs have a last offset
    puller = opened(source(server, deals(paging=paging)))
    with pytest.raises(UsageError, match="30 rows and gives none from 25 on"):
        names(puller)
    puller.close()
    puller = opened(source(server, deals(paging=Offset(limit=20, total="meta.count"))))
    with pytest.raises(UsageError, match="has no number at"):
        names(puller)
    puller.close()


@pytest.mark.parametrize(
    "paging",
    [PageNumber(size=20, more="meta.mroe"), Keyset({"after_id": "id"}, more="meta.mroe"),
     Cursor("cursor", at="next", more="meta.mroe")],
    ids=["page", "keyset", "cursor"],
)  # fmt: skip
def test_a_page_that_does_not_say_whether_more_is_to_come_stops_the_source(
    api: Api, server: RestServer, paging: Any
) -> None:
    """A misspelt `more` would pass for the end."""
    filled(api, 45)
    body = {"data": list(api.rows.values())[:20], "next": "c", "meta": {"more": True}}
    api.before = lambda _: (200, {}, body)
    puller = opened(source(server, deals(paging=paging)))
    with pytest.raises(UsageError, match="does not say at"):
        names(puller)
    puller.close()


@pytest.mark.parametrize("shown", [1, 3], ids=["ignored", "last-again"])
def test_numbers_that_show_the_same_page_stop_the_source(api: Api, server: RestServer, shown: int) -> None:
    filled(api, 50).paging = "page"

    def clamp(asked: Asked) -> None:
        asked.params["page"] = str(min(int(asked.params["page"]), shown))

    api.before = clamp
    puller = opened(source(server, deals(paging=PageNumber(size=20))))
    with pytest.raises(UsageError, match=f"page={shown} and page={shown + 1} with the same rows"):
        names(puller)
    puller.close()


def test_numbers_that_show_the_same_rows_since_others_have_left_are_no_reason_to_stop(
    api: Api, server: RestServer
) -> None:
    filled(api, 32).paging = "page"

    def many_leave(_: Asked) -> None:
        if len(api.asked) == 3:  # both pages were read: the first, read again, ends as the second did
            for number in range(12):
                api.delete(number)

    api.before = many_leave
    puller = opened(source(server, deals(paging=PageNumber(size=20))))
    assert names(puller) == [f"n{number}" for number in range(32)]
    puller.close()


def test_null_is_no_word_for_the_end_beside_a_cursor(api: Api, server: RestServer) -> None:
    api.before = lambda _: (200, {}, {"data": [], "next": "x", "has_more": None})
    puller = opened(source(server, deals()))
    with pytest.raises(UsageError, match="null at 'has_more'"):
        puller.pull(1000, 0.0)
    api.before = lambda _: (200, {}, {"data": [], "next": None, "has_more": None})
    puller.pull(1000, 0.0)
    puller.close()


def test_credentials_do_not_follow_a_link_to_another_host(api: Api, server: RestServer) -> None:
    filled(api, 5)
    other = Api()
    elsewhere = RestServer(other)
    for url in (f"{elsewhere.url}/v1/deals", "https://127.0.0.1/v1/deals", "http://169.254.169.254/latest"):
        api.before = lambda _, url=url: (200, {"Link": f'<{url}>; rel="next"'}, {"data": list(api.rows.values())})
        puller = opened(source(server, deals(paging=LinkHeader())))
        with pytest.raises(UsageError, match="next page is not at"):
            names(puller)
        puller.close()
    assert other.asked == []
    elsewhere.close()


def test_a_page_that_is_not_the_last_and_has_no_cursor_stops_the_source(api: Api, server: RestServer) -> None:
    """Taken for the end, it would hide all that follows."""
    filled(api, 45)
    puller = opened(source(server, deals(paging=Cursor("cursor", at="nxt", more="has_more"))))
    with pytest.raises(UsageError, match="more is to come, and has no cursor"):
        names(puller)
    puller.close()


def test_a_cursor_that_stands_still_stops_the_source(api: Api, server: RestServer) -> None:
    filled(api, 5)
    api.before = lambda _: (200, {}, {"data": list(api.rows.values()), "next": "same", "has_more": True})
    puller = opened(source(server, deals()))
    with pytest.raises(UsageError, match="same next page"):
        names(puller)
    puller.close()


# High water


def test_a_row_that_becomes_visible_late_is_told_and_no_other_twice(api: Api, server: RestServer) -> None:
    filled(api, 30)
    puller = opened(source(server, deals()))
    names(puller)
    api.now += 100
    api.put(100, "first")
    assert names(puller) == ["first"]
    api.put(101, "late", at=api.now - 59)
    api.put(5, "changed", at=api.now - 1)
    assert sorted(names(puller)) == ["changed", "late"]
    puller.close()


def test_more_rows_than_are_remembered_come_again_only_until_the_overlap_has_passed(
    api: Api, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.sources.rest.puller.MAX_SEEN", 10)
    for number in range(30):
        api.put(number, f"n{number}")
    puller = opened(source(server, deals()))
    first = [record.row.event_id for records, _ in (next(pulls(puller)), next(pulls(puller))) for record in records]
    api.now += 61
    again = [record.row.event_id for records, _ in pulls(puller) for record in records]
    assert len(first) == 30
    assert set(again) <= set(first)
    assert names(puller) == []
    puller.close()


def test_the_server_clock_bounds_the_mark(api: Api, server: RestServer) -> None:
    """A row from the future must not carry the mark along: others would be missed until then."""
    api.put(1, "future", at=START_S + 86_400)
    puller = opened(source(server, deals()))
    names(puller)
    api.now += 30
    api.put(2, "present")
    assert names(puller) == ["present"]
    puller.close()


def test_a_row_from_the_future_hides_nothing_where_the_server_does_not_tell_its_time(
    api: Api, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rest_server._Handler.date_time_string", lambda *_: "")
    filled(api, 3).put(9, "future", at=time.time() + 86_400)
    puller = opened(source(server, deals()))
    assert names(puller) == ["n0", "n1", "n2", "future"]
    api.put(10, "present", at=time.time())
    assert names(puller) == ["present"]
    puller.close()


def test_a_backfill_goes_range_by_range_to_a_fixed_end(api: Api, server: RestServer) -> None:
    filled(api, 300)
    start = datetime.fromtimestamp(START_S - 250, UTC)
    follow = HighWater(
        changed="updatedAt", since="updated_since", until="updated_until", start=start, slice_s=100, overlap_s=20
    )
    declared = source(server, deals(follow=follow))
    puller = opened(declared)
    told_names, position = list[str](), b""
    with capture_logs() as logs:
        for records, position in pulls(puller):
            told_names += [record.row.value["name"] for record in records]
            if len(told_names) == 100:  # in the midst of it the API gets rows, and the source another process
                api.now += 5
                api.put(500, "new")
                puller.close()
                puller = opened(declared, position)
                break
        told_names += names(puller)
        api.now += 1
        told_names += names(puller)
    assert set(told_names) == {f"n{number}" for number in range(50, 300)} | {"new"}
    ends = {asked.params["updated_until"] for asked in api.asked if "updated_until" in asked.params}
    assert len(ends) >= 3
    assert [log["done_percent"] for log in logs if log["event"] == "backfill"] == [40.0, 80.0]
    puller.close()


@pytest.mark.parametrize("kept", [("until", "start"), ("start",), ()], ids=["no-slices", "no-end", "nothing"])
def test_a_backfill_goes_on_when_its_ranges_are_not_declared_any_more(
    api: Api, server: RestServer, kept: tuple[str, ...]
) -> None:
    filled(api, 300)
    ranges: dict[str, Any] = {"until": "updated_until", "start": datetime.fromtimestamp(START_S - 300, UTC)}

    def follow(**declared: Any) -> HighWater:
        return HighWater(changed="updatedAt", since="updated_since", **declared)

    puller = opened(source(server, deals(follow=follow(**ranges, slice_s=50))))
    found, position = set[str](), b""
    for _ in range(5):
        pull = puller.pull(1000, 0.0)
        found |= {record.row.id for record in pull.records}
        position = pull.position
    puller.close()
    puller = opened(source(server, deals(follow=follow(**{name: ranges[name] for name in kept}))), position)
    found |= {record.row.id for records, _ in pulls(puller) for record in records}
    assert len(found) == 300
    puller.close()


def test_rows_that_do_not_say_when_they_changed_are_told_once(api: Api, server: RestServer) -> None:
    filled(api, 30).rows[2]["updatedAt"] = None
    puller = opened(source(server, deals(follow=HighWater(changed="updatedAt", overlap_s=10))))
    assert sorted(names(puller)) == sorted(f"n{number}" for number in range(30))
    for number in range(100, 130):
        api.now += 5
        api.put(number, f"n{number}")
        assert names(puller) == [f"n{number}"], "the mark has passed what does not say, which is still known"
    puller.close()


def test_rows_on_the_border_of_two_ranges_are_read_whether_bounds_include_their_moment_or_not(
    api: Api, server: RestServer
) -> None:
    filled(api, 300).is_since_exclusive = True
    follow = HighWater(
        changed="updatedAt", since="updated_since", until="updated_until", overlap_s=20, slice_s=100,
        start=datetime.fromtimestamp(START_S - 301, UTC),
    )  # fmt: skip
    puller = opened(source(server, deals(follow=follow)))
    assert sorted(names(puller)) == sorted(f"n{number}" for number in range(300))
    puller.close()


def test_a_page_token_that_is_forgotten_has_its_range_read_again(api: Api, server: RestServer) -> None:
    filled(api, 90)
    api.before = lambda asked: api.forget_cursors() if len(api.asked) == 3 else None
    puller = opened(source(server, deals()))
    assert names(puller, until_idle=6) == [f"n{number}" for number in range(90)]
    puller.close()


def test_of_sorted_rows_only_what_was_not_read_is_read_again(api: Api, server: RestServer) -> None:
    filled(api, 900)
    api.before = lambda asked: api.forget_cursors() if len(api.asked) == 21 else None
    follow = HighWater(changed="updatedAt", since="updated_since", overlap_s=60, is_sorted=True)
    declared = source(server, deals(follow=follow))
    puller = opened(declared)
    found = names(puller, until_idle=6)
    assert list(dict.fromkeys(found)) == [f"n{number}" for number in range(900)]
    assert len(found) <= 960, "twenty pages were read, and of them only the overlap is told again"
    puller.close()
    with pytest.raises(UsageError, match="is_sorted"):
        HighWater(changed="updatedAt", is_sorted=True)


def test_an_answer_that_has_not_changed_is_not_read_again(api: Api, server: RestServer) -> None:
    filled(api, 10).etags = True
    puller = opened(source(server, deals()))
    names(puller)
    positions = [position for _, position in pulls(puller, until_idle=5)]
    assert positions == []  # nothing changed: nothing is to be written either
    assert api.asked[-1].headers.get("if-none-match")
    api.put(3, "changed")
    assert names(puller) == ["changed"]
    puller.close()


# Feeds


def test_that_nothing_has_changed_is_not_believed_unless_it_was_asked(api: Api, server: RestServer) -> None:
    """In the middle of a listing it would be taken for its end."""
    filled(api, 45)
    api.before = lambda asked: (304, {}, b"") if asked.params.get("cursor") else None
    puller = opened(source(server, deals()))
    with pytest.raises(UsageError, match="answers HTTP 304 to who did not ask"):
        names(puller)
    puller.close()


def test_a_feed_goes_on_behind_its_cursor_and_tells_nothing_twice(api: Api, server: RestServer) -> None:
    filled(api, 45)
    feed = deals(path="changes", paging=Cursor("cursor", at="cursor"), follow=Feed())
    puller = opened(source(server, feed))
    assert names(puller) == [f"n{number}" for number in range(45)]
    api.put(1, "again")
    assert names(puller) == ["again"]
    assert names(puller) == []
    puller.close()


def test_a_forgotten_cursor_of_a_feed_stops_loudly_or_lists_all_anew(api: Api, server: RestServer) -> None:
    filled(api, 45)
    paging = Cursor("cursor", at="cursor")
    stops = opened(source(server, deals(path="changes", paging=paging, follow=Feed())))
    anew = opened(source(server, deals(path="changes", paging=paging, follow=Feed(restart="full"))))
    bounded = opened(
        source(server, deals(path="changes", paging=paging, follow=Feed(restart="full", since="since", overlap_s=5)))
    )
    for puller in (stops, anew, bounded):
        names(puller)
    api.forget_cursors()
    api.put(50, "after")
    with pytest.raises(PositionLostError, match="forgotten the cursor"):
        names(stops)
    assert names(anew) == [*(f"n{number}" for number in range(45)), "after"]
    assert names(bounded, until_idle=8) == [*(f"n{number}" for number in range(40, 45)), "after"]
    for puller in (stops, anew, bounded):
        puller.close()


def test_a_first_page_of_a_feed_that_cannot_be_had_says_so(api: Api, server: RestServer) -> None:
    """No cursor was given yet that could have been forgotten."""
    api.before = lambda _: (410, {}, {})
    feed = deals(path="changes", paging=Cursor("cursor", at="cursor"), follow=Feed(restart="full"))
    puller = opened(source(server, feed))
    with pytest.raises(UsageError, match="answers a first page as if"):
        puller.pull(1000, 0.0)
    puller.close()


# Credentials


def test_each_kind_of_credentials_is_sent(api: Api, server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(api, 3)
    monkeypatch.setenv("HEDDLE_SECRET_CRM_KEY", "a-key-of-the-crm")
    key = secret("crm/key")
    for auth, header, value in (
        (ApiKey(key), "x-api-key", "a-key-of-the-crm"),
        (Bearer(key), "authorization", "Bearer a-key-of-the-crm"),
        (Basic("heddle", key), "authorization", "Basic aGVkZGxlOmEta2V5LW9mLXRoZS1jcm0="),
    ):
        puller = opened(source(server, deals(), auth=auth))
        names(puller)
        assert api.asked[-1].headers[header] == value
        puller.close()


def test_a_token_is_fetched_renewed_and_in_the_end_refused(
    api: Api, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(api, 30)
    monkeypatch.setenv("HEDDLE_SECRET_CRM_KEY", "a-key-of-the-crm")
    auth = ClientCredentials(f"{server.url}/token", "heddle", secret("crm/key"))
    puller = opened(source(server, deals(), auth=auth))
    names(puller)
    api.rotate()
    api.put(77, "under the next token")
    assert names(puller) == ["under the next token"]
    api.before = lambda _: (403, {}, {})
    with pytest.raises(AuthError, match="HTTP 403"):
        names(puller)
    puller.close()


def test_the_version_is_pinned(api: Api, server: RestServer) -> None:
    filled(api, 3)
    for version in (
        ApiVersion("2026-01", header="X-Api-Version"),
        ApiVersion("2026-01", parameter="api-version"),
        ApiVersion("v1"),
    ):
        puller = opened(source(server, deals(), version=version))
        puller.pull(1000, 0.0)
        puller.close()
    by_header, by_parameter, _ = api.asked
    assert by_header.headers["x-api-version"] == by_parameter.params["api-version"] == "2026-01"
    with pytest.raises(UsageError, match="no part of base_url"):
        source(server, deals(), version=ApiVersion("v2"))


@pytest.mark.parametrize("named", ["", "&api-version=2026-01-01"])
def test_the_version_is_pinned_on_next_links_that_leave_it_out(api: Api, server: RestServer, named: str) -> None:
    filled(api, 3)
    raw = "/v1/deals?cursor=a%2Bb%7c" + named
    api.before = lambda asked: (
        200, {} if "cursor" in asked.params else {"Link": f'<{raw}>; rel="next"'}, {"data": list(api.rows.values())}
    )  # fmt: skip
    puller = opened(source(server, deals(paging=LinkHeader()), version=ApiVersion("2026-01", parameter="api-version")))
    names(puller)
    puller.close()
    following = next(asked.params for asked in api.asked if "cursor" in asked.params)
    assert following["cursor"] == "a+b|"
    assert following["api-version"] == ("2026-01-01" if named else "2026-01")


# Limits and moods


def test_a_refusal_is_waited_out_and_nothing_is_missed(api: Api, server: RestServer) -> None:
    filled(api, 90)
    refusals: list[Reply] = [
        (429, {"Retry-After": "0"}, {}),
        (503, {"Retry-After": "Tue, 14 Nov 2023 22:13:20 GMT"}, {}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(START_S)}, {}),
    ]
    api.before = lambda _: refusals.pop() if refusals and len(api.asked) % 2 == 0 else None
    puller = opened(source(server, deals()))
    assert names(puller, until_idle=8) == [f"n{number}" for number in range(90)]
    assert refusals == []
    puller.close()


def test_refusals_without_end_and_long_waits_are_told(api: Api, server: RestServer) -> None:
    puller = opened(source(server, deals()))
    api.before = lambda _: (429, {"Retry-After": "0"}, {})
    with capture_logs() as logs:
        while len(api.asked) < 20:
            puller.pull(1000, 0.01)
    assert [log["refusals"] for log in logs if log["log_level"] == "warning"] == [10, 20]
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7200"}
    api.before = lambda _: (200, limit, {"data": [], "has_more": False})
    with capture_logs() as logs:
        while len(api.asked) < 21:
            puller.pull(1000, 0.01)
    assert [log["wait_s"] for log in logs if log["log_level"] == "warning"] == [7200.0]
    puller.close()


def test_it_does_not_ask_before_it_may(api: Api, server: RestServer) -> None:
    filled(api, 90)
    api.before = lambda _: (429, {"Retry-After": "600"}, {})
    puller = opened(source(server, deals()))
    for _ in range(20):
        assert puller.pull(1000, 0.0) is None
    assert len(api.asked) == 1
    puller.close()


def test_what_an_api_said_of_its_limit_holds_for_the_next_connection_too(api: Api, server: RestServer) -> None:
    """A worker opens its source anew after every pause."""
    api.before = lambda _: (429, {"Retry-After": "600"}, {})
    declared = source(server, deals())
    for _ in range(2):
        puller = opened(declared)
        assert puller.pull(1000, 0.0) is None
        puller.close()
    assert len(api.asked) == 1


def test_a_token_endpoint_is_not_asked_before_it_may_be(
    api: Api, server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(api, 3)
    monkeypatch.setenv("HEDDLE_SECRET_CRM_KEY", "a-key-of-the-crm")
    auth = ClientCredentials(f"{server.url}/v1/token", "heddle", secret("crm/key"))
    api.before = lambda _: (429, {"Retry-After": "600"}, {})
    puller = opened(source(server, deals(), deletions(), auth=auth))
    for _ in range(20):
        assert puller.pull(1000, 0.0) is None
    assert [asked.path for asked in api.asked] == ["/v1/token"]
    puller.close()


@pytest.mark.parametrize(
    "answer",
    [(500, {}, {}), (503, {}, {}), (200, {}, b"<html>"), (200, {}, b"[" * 100 + b"]" * 100)],
    ids=["500", "503", "html", "deep"],
)
def test_an_api_that_does_not_answer_is_waited_for(api: Api, server: RestServer, answer: Reply) -> None:
    filled(api, 3)
    api.before = lambda _: answer
    puller = opened(source(server, deals()))
    with pytest.raises(DependencyDownError):
        puller.pull(1000, 0.0)
    api.before = lambda _: None
    assert names(puller) == ["n0", "n1", "n2"]
    puller.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, {}), "HTTP 404"),
        ((302, {"Location": "http://169.254.169.254/"}, {}), "redirects"),
        ((200, {}, {"results": []}), "without a list"),
        ((200, {}, b" " * (9 * 2**20)), "more than"),
    ],
    ids=["404", "redirect", "shape", "size"],
)
def test_what_waiting_does_not_mend_stops_the_source(api: Api, server: RestServer, answer: Reply, message: str) -> None:
    api.before = lambda _: answer
    puller = opened(source(server, deals()))
    with pytest.raises(UsageError, match=message):
        puller.pull(1000, 0.0)
    puller.close()


def test_an_announced_end_is_told_once_with_its_dates(api: Api, server: RestServer) -> None:
    filled(api, 50)
    api.headers = {
        "Deprecation": "@1767225600",
        "Sunset": "Wed, 01 Jul 2026 00:00:00 GMT",
        "Link": '<https://crm.example/v2>; rel="deprecation"',
    }
    puller = opened(source(server, deals()))
    with capture_logs() as logs:
        names(puller)
    announced = [log for log in logs if log["event"] == "the API announces its end"]
    assert [(log["deprecated_at"], log["sunset_at"], log["more"]) for log in announced] == [
        ("2026-01-01", "2026-07-01", "https://crm.example/v2")
    ]
    puller.close()


# GraphQL


def connection() -> Resource:
    return deals(
        path="graphql", graphql=GraphQL("query { deals }"), rows="data.deals.edges", row="node",
        paging=Cursor("after", at="data.deals.pageInfo.endCursor", more="data.deals.pageInfo.hasNextPage"),
        follow=HighWater(changed="updatedAt"),
    )  # fmt: skip


def test_a_graphql_connection_is_read_to_its_end(api: Api, server: RestServer) -> None:
    filled(api, 50)
    puller = opened(source(server, connection()))
    assert names(puller, until_idle=5) == [f"n{number}" for number in range(50)]
    api.now += 5
    api.put(3, "changed")
    assert names(puller, until_idle=5) == ["changed"]
    puller.close()


def test_graphql_errors_under_http_200_are_errors(api: Api, server: RestServer) -> None:
    filled(api, 50)
    node: dict[str, Any] = {"data": {"deals": {"edges": [], "pageInfo": {}}}}
    puller = opened(source(server, connection()))

    def answer(errors: list[Any], **more: Any) -> None:
        api.before = lambda _: (200, {}, {"errors": errors, **more})

    answer([{"message": "half of it failed"}], **node)
    with pytest.raises(DependencyDownError, match="in part"):
        puller.pull(1000, 0.0)
    answer([{"message": "no such field"}], data=None)
    with pytest.raises(UsageError, match="cannot run"):
        puller.pull(1000, 0.0)
    answer([{"extensions": {"code": "UNAUTHENTICATED"}}])
    with pytest.raises(AuthError):
        puller.pull(1000, 0.0)
    cost = {"requestedQueryCost": 100, "throttleStatus": {"currentlyAvailable": 40, "restoreRate": 0.5}}
    answer([{"extensions": {"code": "THROTTLED"}}], extensions={"cost": cost})
    asked = len(api.asked)
    for _ in range(5):
        assert puller.pull(1000, 0.0) is None
    assert len(api.asked) == asked + 1
    puller.close()


def test_a_graphql_query_waits_until_its_cost_is_there(api: Api, server: RestServer) -> None:
    cost = {"requestedQueryCost": 100, "throttleStatus": {"currentlyAvailable": 40, "restoreRate": 0.5}}
    info = {"hasNextPage": True, "endCursor": "x"}
    answer = {"data": {"deals": {"edges": [], "pageInfo": info}}, "extensions": {"cost": cost}}
    api.before = lambda _: (200, {}, answer)
    puller = opened(source(server, connection()))
    for _ in range(5):
        puller.pull(1000, 0.0)
    assert len(api.asked) == 1
    puller.close()


def test_a_graphql_query_too_many_is_waited_out_as_the_headers_say(api: Api, server: RestServer) -> None:
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(START_S + 600)}
    api.before = lambda _: (200, limit, {"errors": [{"type": "RATE_LIMITED"}]})
    with capture_logs() as logs:
        puller = opened(source(server, connection()))
        assert puller.pull(1000, 0.0) is None
    assert [log["wait_s"] for log in logs if log["event"] == "slowed down by the API"] == [600.0]
    puller.close()


@pytest.mark.parametrize("code", ["THROTTLED", "RATELIMITED"])
@pytest.mark.parametrize("status", [200, 400])
def test_a_graphql_query_too_many_is_known_under_each_status(
    api: Api, server: RestServer, code: str, status: int
) -> None:
    api.before = lambda _: (status, {"Retry-After": "600"}, {"errors": [{"extensions": {"code": code}}]})
    puller = opened(source(server, connection()))
    assert puller.pull(1000, 0.0) is None
    assert puller._followers[0].delay_s() > 500
    puller.close()


def test_a_graphql_fault_of_the_server_is_waited_out_and_one_of_ours_is_not(api: Api, server: RestServer) -> None:
    puller = opened(source(server, connection()))
    for status in (200, 400):
        errors = [{"extensions": {"code": "INTERNAL_SERVER_ERROR"}}]
        api.before = lambda _, status=status, errors=errors: (status, {}, {"data": None, "errors": errors})  # type: ignore[misc]
        with pytest.raises(DependencyDownError, match="INTERNAL_SERVER_ERROR"):
            puller.pull(1000, 0.0)
    api.before = lambda _: (400, {}, {"errors": [{"extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]})
    with pytest.raises(UsageError, match="HTTP 400"):
        puller.pull(1000, 0.0)
    puller.close()


def test_a_graphql_query_that_costs_more_than_there_ever_is_stops_the_source(api: Api, server: RestServer) -> None:
    bucket = {"currentlyAvailable": 1000, "restoreRate": 1000, "maximumAvailable": 1000}
    cost = {"requestedQueryCost": 2000, "throttleStatus": bucket}
    api.before = lambda _: (200, {}, {"errors": [{"extensions": {"code": "THROTTLED"}}], "extensions": {"cost": cost}})
    puller = opened(source(server, connection()))
    with pytest.raises(UsageError, match="costs 2000, and "):
        puller.pull(1000, 0.0)
    del bucket["maximumAvailable"]
    cost["requestedQueryCost"], bucket["restoreRate"] = 1e300, 1e-300
    assert puller.pull(1000, 0.0) is None
    assert puller._followers[0].delay_s() > 86_000
    puller.close()


# What does not convert


def test_a_row_is_converted_again_from_what_the_raw_topic_keeps(api: Api, server: RestServer) -> None:
    filled(api, 1)
    declared = source(server, deals())
    puller = opened(declared)
    ((records, _), *_) = list(pulls(puller))
    world = World(api, declared)
    worker = world.worker()
    raw = worker._raw(records[0])
    record = type("Raw", (), {"value": raw.value})()
    assert list(declared.convert_record(record)) == list(told(records[0].row))
    assert raw.key == b"default/deals%3A0"
    worker.close()
    puller.close()


def test_a_position_of_another_format_is_not_guessed(api: Api, server: RestServer) -> None:
    filled(api, 1)
    puller = source(server, deals()).open()
    for position in (b'{"v":2,"resources":{}}', b"[]", b'{"v":1,"resources":{"deals":{"mark":1}}}'):
        with pytest.raises(FormatError):
            puller.begin(position)
    puller.close()
