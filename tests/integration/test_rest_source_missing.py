"""Deletions that show only by what is missing in a listing of all ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rest_harness import CURSOR, World, comparison, deals, pulls, source
from rest_server import START_S, Api, RestServer
from structlog.testing import capture_logs

from heddle.errors import FormatError, UsageError
from heddle.integration import Pull
from heddle.sources.rest import Offset, RestSource
from heddle.sources.rest.puller import KeepingRestPuller


@pytest.fixture
def api() -> Api:
    made = Api()
    for number in range(90):
        made.put(number, f"n{number}", at=START_S - 90 + number)
    return made


@pytest.fixture
def server(api: Api) -> Iterator[RestServer]:
    started = RestServer(api)
    yield started
    started.close()


class Polling:
    """A puller at a time, what it has kept, and what it has told as gone."""

    def __init__(self, declared: RestSource) -> None:
        self.declared = declared
        self.position: bytes | None = None
        self.entries: list[tuple[bytes, bytes | None]] = []
        self.gone: list[tuple[int, str]] = []
        self.restart()

    def restart(self) -> None:
        """As another process begins; of a pull that was not `taken` nothing is left."""
        puller = self.declared.open()
        assert isinstance(puller, KeepingRestPuller)
        self.puller = puller
        puller.restore(list(self.entries))
        self.puller.begin(self.position)

    def once(self) -> Pull | None:
        pull: Pull | None = self.puller.pull(1000, 0.0)
        if pull is not None:
            self.taken(pull)
        return pull

    def taken(self, pull: Pull) -> None:
        self.position = pull.position
        self.entries += pull.kept
        self.gone += gone_of(pull)

    def listing(self, restarts: bool = False) -> None:
        """To the end of the listing under way, or the next."""
        number = self.number
        for _ in range(1000):
            self.once()
            if restarts:
                self.puller.close()
                self.restart()
            if self.number > number:
                return
        raise AssertionError("the listing does not end")

    @property
    def follower(self) -> Any:
        return next(each for each in self.puller._followers if each.name == "deal-ids")

    @property
    def number(self) -> int:
        listed = self.follower.standing.listed
        return 1 if listed is None else int(listed.number)

    def ids(self) -> list[int]:
        return [number for number, _ in self.gone]


def gone_of(pull: Pull) -> list[tuple[int, str]]:
    return [(int(each.row.id), each.id) for each in pull.records if each.row.value is None]  # type: ignore[attr-defined]


@pytest.fixture
def polling(server: RestServer) -> Iterator[Any]:
    made: list[Polling] = []

    def make(*resources: Any) -> Polling:
        made.append(Polling(source(server, *resources)))
        return made[-1]

    yield make
    for each in made:
        each.puller.close()


@pytest.mark.parametrize("restarts", [False, True], ids=["one-process", "many"])
@pytest.mark.parametrize("paging", [CURSOR, Offset(limit=20)], ids=["cursor", "offset"])
def test_what_is_missing_is_told_once(api: Api, polling: Any, restarts: bool, paging: Any) -> None:
    api.paging = "offset" if paging is not CURSOR else "cursor"
    one = polling(comparison(paging=paging))
    one.listing(restarts)
    for number in (3, 44, 89):
        api.delete(number)
    one.listing(restarts)
    assert sorted(one.ids()) == [3, 44, 89]
    one.listing(restarts)
    assert len(one.gone) == 3
    api.put(44, "again", at=START_S)
    one.listing(restarts)
    api.delete(44)
    one.listing(restarts)
    assert one.ids()[3:] == [44]
    assert len({event_id for _, event_id in one.gone}) == 4, "what goes twice is told twice"


def test_an_event_keeps_its_id_when_it_is_told_again_after_a_crash(api: Api, polling: Any) -> None:
    one = polling(comparison())
    one.listing()
    api.delete(7)
    api.delete(8)
    seen = list[list[tuple[int, str]]]()
    while len(seen) < 3:
        pull = one.puller.pull(1000, 0.0)
        if gone_of(pull):
            seen.append(gone_of(pull))  # and the process dies before this is committed
            one.puller.close()
            one.restart()
        else:
            one.taken(pull)
    assert seen[0] == seen[1] == seen[2]
    assert [number for number, _ in seen[0]] == [7, 8]


def test_it_has_to_be_missing_in_as_many_listings_as_declared(api: Api, polling: Any) -> None:
    one = polling(comparison(listings=3))
    one.listing()
    api.delete(7)
    one.listing()
    one.listing()
    assert one.gone == []
    one.listing()
    assert one.ids() == [7]


def test_a_row_that_appears_while_ids_are_listed_is_not_missing(api: Api, polling: Any) -> None:
    """Behind the place where the listing is; told by another resource, or too old for that: it exists either way."""
    one = polling(deals(every_s=3600), comparison(every_s=3600))
    one.listing()
    (other,) = (each for each in one.puller._followers if each is not one.follower)
    while other.delay_s() == 0:
        one.once()
    one.follower._due = 0
    for _ in range(4):
        one.once()  # until ten seconds before the start
    api.put(1000, "told", at=START_S - 45)
    api.put(1001, "too old to be told", at=START_S - 200)
    other._due = 0
    pull = one.once()
    assert pull is not None
    assert [record.row.id for record in pull.records] == ["1000"]
    number = one.number
    one.listing()
    assert one.number == number + 1
    assert one.gone == []
    one.follower._due = 0
    one.listing()
    assert one.gone == []


def test_a_row_that_was_told_and_has_gone_between_two_listings_is_missed(api: Api, polling: Any) -> None:
    one = polling(deals(), comparison(every_s=3600))
    one.listing()
    api.put(700, "short")
    for _ in range(20):
        one.once()
    assert b"deal-ids\x00700" in dict(one.entries)
    api.delete(700)
    one.follower._due = 0
    one.listing()
    assert one.ids() == [700]


def test_a_forgotten_page_token_has_the_ids_listed_again(api: Api, polling: Any) -> None:
    one = polling(comparison())
    one.listing()
    api.delete(2)
    one.once()
    one.once()
    api.forget_cursors()
    with capture_logs() as logs:
        one.listing()
    assert [log["event"] for log in logs] == ["the API has forgotten a page token: ids are listed again"]
    one.listing()
    assert one.ids() == [2]


def test_a_listing_that_lacks_too_much_is_not_believed(api: Api, polling: Any) -> None:
    one = polling(comparison())
    one.listing()
    hidden = {number: api.rows[number] for number in range(50)}
    for number in hidden:
        api.delete(number)
    for _ in range(2):  # it stops as well when it is started again
        with pytest.raises(UsageError, match="does not list 50 of 90 known ids"):
            one.listing()
        one.puller.close()
        one.restart()
    assert one.gone == []
    for number in range(10, 50):
        api.put(number, "seen again", at=START_S)
    one.listing()
    assert one.ids() == list(range(10))


def test_nothing_at_all_is_believed_where_that_is_declared_only(api: Api, server: RestServer, polling: Any) -> None:
    doubting, believing = polling(comparison()), polling(comparison(most_gone=1))
    for number in range(3, 90):
        api.delete(number)
    for each in (doubting, believing):
        each.listing()
    for number in range(3):
        api.delete(number)
    with pytest.raises(UsageError, match="does not list 3 of 3"):
        doubting.listing()
    believing.listing()
    assert believing.ids() == [0, 1, 2]


def test_more_ids_than_are_held_stop_the_source(polling: Any) -> None:
    one = polling(comparison(most_ids=89))
    with pytest.raises(UsageError, match="more than 89 ids"):
        one.listing()


@pytest.mark.parametrize("value", [b"2:1", b"1", b"1:x", b""])
def test_ids_that_another_format_keeps_are_not_guessed(polling: Any, value: bytes) -> None:
    one = polling(comparison())
    with pytest.raises(FormatError, match="deal-ids"):
        one.puller.restore([(b"deal-ids\x00" + b"7", value)])


def test_a_row_without_an_id_stops_the_source(api: Api, polling: Any) -> None:
    api.before = lambda _: (200, {}, {"data": [{"name": "nobody"}]})
    with pytest.raises(UsageError, match="without an id"):
        polling(comparison()).listing()


def test_ids_that_were_kept_before_the_resource_was_away_are_compared_at_once(api: Api, polling: Any) -> None:
    one = polling(deals(every_s=3600), comparison())
    for _ in range(5):
        one.listing()
    api.delete(6)
    position = json.loads(one.position)
    del position["resources"]["deal-ids"]  # as it is written while the resource is not declared
    one.position = json.dumps(position).encode()
    one.puller.close()
    one.restart()
    for _ in range(12):  # one listing, and as many pages of the deals
        one.once()
    assert one.ids() == [6]


def test_ids_are_compared_once_for_each_entity(server: RestServer) -> None:
    again = comparison()
    again.name = "other-ids"
    with pytest.raises(UsageError, match="ids of one entity"):
        source(server, comparison(), again)


def test_a_deletion_is_converted_and_kept_raw_as_other_rows_are(api: Api, server: RestServer) -> None:
    declared = source(server, deals(), comparison())
    world = World(api, declared)
    worker = world.worker()
    while len(world.state()) < 90:
        worker.turn(world.stop)
    api.delete(5)
    while len(world.state()) > 89:
        worker.turn(world.stop)
    assert 5 not in world.state()
    (record,) = [record for record in world.records() if record.value is None]
    assert record.key == b"5"
    one = Polling(declared)
    one.listing()
    api.delete(6)
    packed = next(
        each.pack() for records, _ in pulls(one.puller, until_idle=50) for each in records if not each.row.value
    )
    (draft,) = declared.convert_record(type("Raw", (), {"value": packed})())
    assert draft.value == ("6", None)
    one.puller.close()
    worker.close()
