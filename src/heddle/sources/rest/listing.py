"""Pages of one resource: what is asked, and what of an answer is taken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import structlog

from heddle.errors import DependencyDownError, UsageError
from heddle.event import stable_id
from heddle.http.rate import Pace
from heddle.sources.delivery import Delivery, MalformedJsonError
from heddle.sources.rest import graphql
from heddle.sources.rest.client import Answer, Client, ThrottledError
from heddle.sources.rest.paging import Page, Step, at_path
from heddle.sources.rest.position import digest_of
from heddle.sources.rest.records import PolledRow, PulledRow, event_id, key_of, moment_s, text_id
from heddle.sources.rest.resource import HighWater, Resource

TELL_FROM_S = 30.0
"""Waits of a rate limit that are worth a line in the log."""
TELL_EVERY_REFUSALS = 10
"""So many in a row are worth one, too, however short the waits: nothing comes in."""


class Row(NamedTuple):
    """`changed_s`: None where it does not say. `digest`: of its event's id."""

    pulled: PulledRow
    digest: bytes
    changed_s: float | None


class Fetched(NamedTuple):
    """`page` is None for what has not changed, and where the step is `expired`. `etag`: of the request, packed with its
    digest; None where there is none."""

    page: Page | None
    rows: list[Row]
    server_time_s: float | None
    etag: tuple[str, str] | None
    expired: bool = False


class Listing:
    """Raises what `Client.ask` raises, but for `ThrottledError`: that slows this listing down, and it says None."""

    def __init__(self, source: str, resource: Resource, client: Client, tenant: str, pace: Pace) -> None:
        self.resource = resource
        self.log = structlog.get_logger(source=source, resource=resource.name)
        self.pace = pace
        self._client = client
        self._tenant = tenant
        self._url = client.url_of(resource.path)

    def fetch(self, step: Step | None, bounds: Mapping[str, Any], etag: tuple[str, str] | None) -> Fetched | None:
        """One page. `bounds`: parameters of time."""
        resource, step = self.resource, step or {}
        url = self._client.checked(self._url, step["url"]) if "url" in step else self._url
        params: dict[str, Any] = {}
        if "url" not in step:
            params = {**resource.params, **resource.paging.params, **bounds, **step.get("params", {})}
        query = None
        if resource.graphql is not None:
            query = {"query": resource.graphql.query, "variables": {**resource.graphql.variables, **params}}
            params = {}
        asked = stable_id(str(url), orjson.dumps([params, query], option=orjson.OPT_SORT_KEYS).decode())
        known = etag[1] if etag is not None and etag[0] == asked else ""
        self.pace.sent()
        try:
            answer = self._client.ask(url, params, etag=known, query=query)
            if answer.status == 304 and not known:  # what follows would be passed over
                raise UsageError(f"{resource.path} answers HTTP 304 to who did not ask whether it has changed")
            return self._taken(answer, asked)
        except ThrottledError as refusal:
            self._tell_wait(self.pace.refused(refusal.headers))
            return None

    def _tell_wait(self, wait_s: float) -> None:
        refusals = self.pace.refusals
        if wait_s > 0 or refusals:
            is_worth_telling = wait_s >= TELL_FROM_S or (refusals and refusals % TELL_EVERY_REFUSALS == 0)
            tell = self.log.warning if is_worth_telling else self.log.debug
            tell(
                "slowed down by the API", wait_s=round(wait_s, 1), per_s=round(self.pace.per_s, 3), refusals=refusals
            )  # fmt: skip

    def _taken(self, answer: Answer, asked: str) -> Fetched:
        resource, time_s = self.resource, answer.server_time_s
        if answer.status == 304:
            self.pace.answered(answer.headers)
            return Fetched(None, [], time_s, None)
        if resource.graphql is not None and answer.status != 200:
            graphql.heed_status(self._url.host, answer)
        if answer.status in resource.expired:
            return Fetched(None, [], time_s, None, expired=True)
        if answer.status != 200:
            raise UsageError(
                f"{resource.path} answers HTTP {answer.status}",
                hint="correct the path and the parameters of this resource; "
                "if the status says that a cursor is forgotten, add it to expired=",
            )
        body = self._json(answer)
        if resource.graphql is not None:
            graphql.checked(self._url.host, body, answer.headers)
        wait_s = self.pace.answered(answer.headers)
        if resource.graphql is not None:
            wait_s = max(wait_s, self.pace.pause(graphql.cost_wait_s(body) or 0.0))
        self._tell_wait(wait_s)
        found = at_path(body, resource.rows)
        if not isinstance(found, list):
            raise UsageError(f"{resource.path} answers without a list at rows={resource.rows!r}", hint="correct rows=")
        values = [at_path(each, resource.row) for each in found]
        rows = [self._row(value, time_s) for value in values]
        etag = answer.headers.get("etag")
        page = Page(body, values, [each.pulled.id for each in rows], answer.links)
        return Fetched(page, rows, time_s, (asked, etag) if etag else None)

    def _json(self, answer: Answer) -> Any:
        """Not JSON is what stands between us and the API, mostly, and passes."""
        try:
            return Delivery(answer.body, {}, datetime.now(UTC), self.resource.name, "").json()
        except MalformedJsonError as error:
            raise DependencyDownError(f"{self.resource.path}: {error}") from None

    def _row(self, value: Any, server_time_s: float | None) -> Row:
        resource, follow = self.resource, self.resource.follow
        row_id = text_id(at_path(value, resource.id))
        changed_s = moment_s(at_path(value, follow.changed)) if isinstance(follow, HighWater) else None
        version = at_path(value, resource.version) if resource.version else None
        identity = event_id(resource.name, row_id, version, value)
        told_s = changed_s if changed_s is not None else server_time_s
        moment = datetime.now(UTC) if told_s is None else datetime.fromtimestamp(told_s, UTC)
        row = PolledRow(value, row_id, identity, moment)
        key = key_of(resource.entity, row_id, self._tenant)
        return Row(PulledRow(resource.name, row, key, resource.convert), digest_of(identity), changed_s)
