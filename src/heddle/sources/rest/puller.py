"""The open end of a polled API: its resources in turn, one page each, the position behind every page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from heddle.http.auth import Auth
from heddle.http.notices import Notice
from heddle.http.rate import Pace
from heddle.http.tls import Tls
from heddle.integration import Pull
from heddle.sources.rest.announced import Announced
from heddle.sources.rest.client import Client
from heddle.sources.rest.following import FeedFollower, Follower, SweepFollower
from heddle.sources.rest.listing import Listing
from heddle.sources.rest.missing import DiffFollower, KnownIds, owner_of
from heddle.sources.rest.position import MAX_SEEN, Standing, pack, unpack
from heddle.sources.rest.records import PulledRow
from heddle.sources.rest.resource import Feed, IdDiff, Resource


class RestPuller:
    """Implements `heddle.integration.Puller`. An API need not be told what was taken. `paces`: by resource; what the
    API said of its limits holds for who asks next, too."""

    def __init__(
        self, source: str, base_url: str, auth: Auth | None, headers: Mapping[str, str], pinned: Mapping[str, str],
        resources: Sequence[Resource], tenant: str, timeout_s: float, tls: Tls, announced: Announced,
        paces: dict[str, Pace],
    ) -> None:  # fmt: skip
        self._source = source
        self._resources = resources
        self._tenant = tenant
        self._client = Client(base_url, auth, headers, pinned, timeout_s, tls, announced)
        self._announced = announced
        self._paces = paces
        self._followers: list[Follower] = []
        self._told = b""
        self._known: dict[str, KnownIds] = {}

    def begin(self, position: bytes | None) -> None:
        standings = {} if position is None else unpack(position)
        most_seen = MAX_SEEN // len(self._resources)
        self._followers = [
            self._follower(resource, standings.get(resource.name, Standing()), most_seen)
            for resource in self._resources
        ]
        self._told = self._packed()

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:  # noqa: ARG002 - below
        """A page is taken whole: how many rows it has is for the declaration to say."""
        delays = [each.delay_s() for each in self._followers]
        due = next((place for place, delay_s in enumerate(delays) if delay_s <= 0), None)
        if due is None:
            time.sleep(min(max_wait_s, *delays))
            return None
        one = self._followers.pop(due)
        self._followers.append(one)  # the others first, next time
        rows = one.pull()
        kept = self._kept(one, rows)
        position = self._packed()
        if not rows and not kept and position == self._told:
            return None
        self._told = position
        return Pull(rows, position, kept)

    def announcements(self) -> Iterator[tuple[str, Notice, str]]:
        """What the API says of its end, by path, where more is said: asks each resource for a first page. What is told
        of them is forgotten; rates are not those of the process that polls."""
        for each in self._followers:
            each.pull()
        yield from self._announced

    def confirm(self, position: bytes) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self._client.close()

    def _follower(self, resource: Resource, standing: Standing, most_seen: int) -> Follower:
        pace, follow = self._paces.setdefault(resource.name, Pace(resource.limit)), resource.follow
        listing = Listing(self._source, resource, self._client, self._tenant, pace)
        if isinstance(follow, IdDiff):
            known = self._known.get(resource.name) or KnownIds(resource.name, follow.most_ids)
            return DiffFollower(follow, listing, standing, self._tenant, known)
        if isinstance(follow, Feed):
            return FeedFollower(follow, listing, standing, most_seen)
        return SweepFollower(follow, listing, standing, most_seen)

    def _kept(self, one: Follower, rows: Sequence[PulledRow]) -> Sequence[tuple[bytes, bytes | None]]:
        """What changes in the known ids by what `one` has pulled."""
        if isinstance(one, DiffFollower):
            return one.known.take()
        changes: list[tuple[bytes, bytes | None]] = []
        for each in self._followers:
            if isinstance(each, DiffFollower) and each.entity == one.entity:
                each.tell(rows)
                changes += each.known.take()
        return changes

    def _packed(self) -> bytes:
        standings = {each.name: each.standing for each in self._followers}
        return pack({resource.name: standings[resource.name] for resource in self._resources})


class KeepingRestPuller(RestPuller):
    """Of a source that compares ids. Implements `heddle.integration.KeepingPuller`."""

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        self._known = {
            resource.name: KnownIds(resource.name, resource.follow.most_ids)
            for resource in self._resources
            if isinstance(resource.follow, IdDiff)
        }
        for key, value in entries:
            name, row_id = owner_of(key)
            if name in self._known:
                self._known[name].restore(row_id, value)
