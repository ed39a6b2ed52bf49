"""The open end of a polled API: its resources in turn, one page each, the position behind every page."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence

from heddle.http.auth import Auth
from heddle.integration import Pull
from heddle.sources.rest.client import Client
from heddle.sources.rest.following import Follower, follower
from heddle.sources.rest.listing import Listing
from heddle.sources.rest.position import MAX_SEEN, Standing, pack, unpack
from heddle.sources.rest.resource import Resource


class RestPuller:
    """Implements `heddle.integration.Puller`. An API need not be told what was taken."""

    def __init__(
        self, source: str, base_url: str, auth: Auth | None, headers: Mapping[str, str], resources: Sequence[Resource],
        tenant: str, timeout_s: float,
    ) -> None:  # fmt: skip
        self._source = source
        self._resources = resources
        self._tenant = tenant
        self._client = Client(source, base_url, auth, headers, timeout_s, ssl.create_default_context())
        self._followers: list[Follower] = []
        self._told = b""

    def begin(self, position: bytes | None) -> None:
        standings = {} if position is None else unpack(position)
        most_seen = MAX_SEEN // len(self._resources)
        self._followers = [
            follower(
                Listing(self._source, resource, self._client, self._tenant),
                standings.get(resource.name, Standing()),
                most_seen,
            )
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
        position = self._packed()
        if not rows and position == self._told:
            return None
        self._told = position
        return Pull(rows, position)

    def confirm(self, position: bytes) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self._client.close()

    def _packed(self) -> bytes:
        standings = {each.name: each.standing for each in self._followers}
        return pack({resource.name: standings[resource.name] for resource in self._resources})
