"""`Resource`: one listing of an API, and how its changes are followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from heddle.errors import UsageError
from heddle.http.rate import RateLimit
from heddle.sources.rest.paging import Cursor, Keyset, Paging
from heddle.sources.rest.records import Convert

TimeFormat = Literal["iso", "seconds", "milliseconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWater:
    """Ask for what changed since the last sweep, and somewhat earlier: rows become visible after their time.

    `changed`: where a row says when it changed. `since`, `until`: the parameters; without `since` each sweep lists
    everything. `overlap_s`: a row that becomes visible later than that after its time is missed. `slice_s`: the first
    sweep, from `start` on, goes range by range; with `until`. `is_sorted`: rows come in the order of `changed`, the
    oldest first; a forgotten page token then has what was not read yet read, and not the whole range again. Bounds are
    of the server's clock."""

    changed: str
    since: str = ""
    until: str = ""
    overlap_s: float = 60.0
    start: datetime | None = None
    slice_s: float | None = None
    is_sorted: bool = False
    format: TimeFormat = "iso"

    def __post_init__(self) -> None:
        if self.overlap_s < 1:
            raise UsageError("HighWater: overlap_s is below one second, the granularity of HTTP's clock")
        if self.start is not None and self.start.tzinfo is None:
            raise UsageError("HighWater: start has no zone", hint="use an aware datetime")
        if (self.start is not None or self.until) and not self.since:
            raise UsageError("HighWater: start and until have no meaning without since")
        if self.is_sorted and not self.since:
            raise UsageError("HighWater: is_sorted has no meaning without since")
        if self.slice_s is not None and not (self.slice_s > 1 and self.until and self.start is not None):
            raise UsageError("HighWater: slice_s has to be above one second, and needs until and start")

    def written(self, moment_s: float) -> str | int:
        """A bound, rounded down to what the format can say."""
        if self.format == "milliseconds":
            return int(moment_s * 1000)
        if self.format == "seconds":
            return int(moment_s)
        moment = datetime.fromtimestamp(moment_s, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Changes behind a cursor that stays good over time: after its last page it is asked again.

    `restart`: what to do when the API has forgotten the cursor. "never": stop, loudly; what came in between may be
    gone. "full": begin anew without a cursor, where that lists everything there is; with `since`, the parameter of a
    time, from `overlap_s` before the cursor was given. Deletions in between are then not seen."""

    restart: Literal["never", "full"] = "never"
    since: str = ""
    overlap_s: float = 60.0
    format: TimeFormat = "iso"

    def written(self, moment_s: float) -> str | int:
        return HighWater(changed="", format=self.format).written(moment_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdDiff:
    """Deletions that show only by what is missing: all ids are listed every `every_s`, and rows that are there no more
    are given to `convert`, with `value` None. What the other resources of the same `entity` tell counts as there.

    `listings`: in how many in a row an id has to be missing. `most_gone`: the share of all ids above which a listing is
    not believed, and the source stops. `most_ids`: that are held, at some 200 bytes of memory each; more stop it."""

    every_s: float = 3600.0
    listings: int = 2
    most_gone: float = 0.5
    most_ids: int = 200_000

    def __post_init__(self) -> None:
        if self.every_s < 0 or self.listings < 1 or not 0 < self.most_gone <= 1 or self.most_ids < 1:
            raise UsageError("IdDiff: listings and most_ids have to be above zero, and most_gone a share of at most 1")


@dataclass(frozen=True, slots=True)
class GraphQL:
    """A query that is posted in place of GET. Parameters of paging and following become its variables. An answer with
    `errors` is never taken, also not the half that came: what is missing in it is not known."""

    query: str
    variables: Mapping[str, Any] = field(default_factory=dict)


class Resource:
    """One listing.

    `path`: below the source's `base_url`. `rows`: where the body holds them (""; it is the list itself); `row`: where
    in each of them the row itself is, as in GraphQL's edges. `id`: of the entity, in a row. `version`: where a row has
    a number or text that is another after each change; without it the whole row tells. `params`: of every request,
    among them the sort order that paging needs. `entity`: of which things these rows are, the resource's name where it
    is not given; resources of one entity keep its order, as that of deletions does. `convert`: 0..n drafts of a
    `PolledRow`; what it raises parks the row. `expired`: statuses that say that a cursor or page token is forgotten."""

    def __init__(
        self,
        name: str,
        *,
        path: str,
        paging: Paging,
        follow: HighWater | Feed | IdDiff,
        convert: Convert,
        rows: str = "",
        row: str = "",
        id: str = "id",
        version: str = "",
        entity: str = "",
        params: Mapping[str, str | int] | None = None,
        every_s: float = 10.0,
        limit: RateLimit | None = None,
        expired: tuple[int, ...] = (410,),
        graphql: GraphQL | None = None,
    ) -> None:
        if not name:
            raise UsageError("a resource has no name")
        if "?" in path or "#" in path or "://" in path:
            raise UsageError(f"resource {name}: path= is not a path below base_url", hint="parameters go into params=")
        if isinstance(follow, Feed) and not isinstance(paging, Cursor | Keyset):
            raise UsageError(f"resource {name}: a Feed needs Cursor or Keyset paging, which stay good over time")
        if not set(expired) <= {400, 404, 409, 410, 422}:
            raise UsageError(f"resource {name}: expired= is for 400, 404, 409, 410 and 422")
        self.name = name
        self.path = path
        self.paging = paging
        self.follow = follow
        self.convert = convert
        self.rows = rows
        self.row = row
        self.id = id
        self.version = version
        self.entity = entity or name
        self.params = dict(params or {})
        self.every_s = every_s
        self.limit = limit or RateLimit()
        self.expired = expired
        self.graphql = graphql
