"""How one resource is followed over time: a page at a time, each with the standing behind it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from heddle.errors import PositionLostError, UsageError
from heddle.sources.rest.listing import Fetched, Listing, Row
from heddle.sources.rest.paging import Cursor, Keyset, Paging
from heddle.sources.rest.position import Standing, Sweep, newest_of
from heddle.sources.rest.records import PulledRow
from heddle.sources.rest.resource import Feed, HighWater

SLICE_OVERLAP_S = 1.0
"""Ranges of a backfill share so much: whether an API's bounds include their moment is the API's secret."""


class Follower(ABC):
    """Of one resource. `standing` is what the position keeps of it."""

    def __init__(
        self, listing: Listing, standing: Standing, most_seen: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.standing = standing
        self._listing = listing
        self._resource = listing.resource
        self._most_seen = most_seen
        self._monotonic = monotonic
        self._due = 0.0

    @property
    def name(self) -> str:
        return self._resource.name

    @property
    def entity(self) -> str:
        return self._resource.entity

    def delay_s(self) -> float:
        """Until `pull` may be called."""
        return max(self._due - self._monotonic(), self._listing.pace.delay_s())

    @abstractmethod
    def pull(self) -> Sequence[PulledRow]:
        """One request at most; rows that were not told before, as far as that is known."""

    def _rest(self) -> None:
        self._due = self._monotonic() + self._resource.every_s

    def _unusable(self) -> UsageError:
        return UsageError(
            f"{self._resource.path} answers a first page as if its cursor were forgotten",
            hint="correct the path and parameters of this resource, or its expired=",
        )


class SweepFollower(Follower):
    """By a high-water mark. A sweep goes from somewhat before the mark to the server's time at which it began. The mark
    is then the newest change that was seen, and never past that time: while nothing changes it stands still, so that an
    unchanged answer can be told by its ETag, and the position need not be written."""

    _now: tuple[float, float] | None = None
    """The server's time, and ours when it was told."""

    def __init__(self, follow: HighWater, listing: Listing, standing: Standing, most_seen: int) -> None:
        super().__init__(listing, standing, most_seen)
        self._follow = follow

    def pull(self) -> Sequence[PulledRow]:
        sweep = self.standing.sweep or self._begun()
        if sweep is None:
            return []
        is_first = sweep.step is None
        fetched = self._listing.fetch(sweep.step, self._bounds(sweep), self.standing.etag if is_first else None)
        if fetched is None:
            return []
        self._heard(fetched)
        if fetched.expired:
            if is_first:
                raise self._unusable()
            since = self._reached(sweep)
            self._listing.log.warning("the API has forgotten a page token: this range is read again", since_s=since)
            self.standing = replace(self.standing, sweep=replace(sweep, since=since, step=None, pages=0))
            self._rest()
            return []
        if sweep.until is None:
            sweep = replace(sweep, until=fetched.server_time_s)
        if fetched.page is None:
            self._end(sweep, self.standing.etag)
            return []
        times = [row.changed_s for row in fetched.rows if row.changed_s is not None]
        newest = max([*times, sweep.newest] if sweep.newest is not None else times, default=None)
        sweep = replace(sweep, newest=newest)
        new = self._taken(sweep, fetched.rows)
        step = self._resource.paging.next(sweep.step or {}, fetched.page)
        if step is not None and step == sweep.step:
            raise UsageError(
                f"{self._resource.path} names the same next page again", hint="correct the paging of this resource"
            )
        sweep = replace(sweep, step=step, pages=sweep.pages + 1)
        if step is not None:
            self.standing = replace(self.standing, sweep=sweep)
        else:
            # The first page's tag says nothing of a second.
            self._end(sweep, fetched.etag if sweep.pages == 1 else None)
        return new

    def _begun(self) -> Sweep | None:
        follow, mark = self._follow, self.standing.mark
        start_s = None if follow.start is None else follow.start.timestamp()
        since = start_s if mark is None else mark - follow.overlap_s
        if not follow.until:
            return Sweep(since, None)
        if self._now is None:  # whoever sends an end has to know the server's time before
            fetched = self._listing.fetch(None, {}, None)
            if fetched is None:
                return None
            self._heard(fetched)
            if self._now is None:
                raise UsageError(
                    f"{self._resource.path} answers without a Date: an end of the range is not known",
                    hint="leave until= away",
                )
        server_s, at_s = self._now
        until = float(math.floor(server_s + self._monotonic() - at_s))
        if since is not None and follow.slice_s is not None and mark is None:
            return Sweep(since, until, min(since + follow.slice_s, until))
        return Sweep(since, until)

    def _bounds(self, sweep: Sweep) -> dict[str, str | int]:
        follow, bounds = self._follow, dict[str, str | int]()
        if follow.since and sweep.since is not None:
            bounds[follow.since] = follow.written(sweep.since)
        if follow.until and sweep.until is not None:
            bounds[follow.until] = follow.written(sweep.until if sweep.slice_end is None else sweep.slice_end)
        return bounds

    def _reached(self, sweep: Sweep) -> float | None:
        """From when on a range has to be read whose page token is forgotten."""
        if not self._follow.is_sorted or sweep.newest is None:
            return sweep.since
        reached = sweep.newest - self._follow.overlap_s
        return reached if sweep.since is None else max(reached, sweep.since)

    def _heard(self, fetched: Fetched) -> None:
        if fetched.server_time_s is not None:
            self._now = fetched.server_time_s, self._monotonic()

    def _taken(self, sweep: Sweep, rows: Sequence[Row]) -> list[PulledRow]:
        """Rows that come again have the same id; those that are still known are not told twice."""
        mark = self.standing.mark
        # Rows that do not say when they changed are remembered from the end of the sweep on that shows them.
        unsaid_s = time.time() if sweep.until is None else sweep.until
        kept_from = self._kept_from(mark if mark is not None else _mark(None, sweep))
        seen, new = dict(self.standing.seen), []
        anchor = frozenset((sweep.step or {}).get("anchor", ()))
        for row in rows:
            if row.digest in seen or row.pulled.id in anchor:
                if row.changed_s is None and seen.get(row.digest, unsaid_s) < unsaid_s - self._follow.overlap_s:
                    seen[row.digest] = int(unsaid_s)
                continue
            changed_s = unsaid_s if row.changed_s is None else row.changed_s
            if changed_s < kept_from and mark is not None and not self._follow.since:
                continue  # of an API that lists everything each time
            if changed_s >= kept_from:
                seen[row.digest] = int(changed_s)
            new.append(row.pulled)
        self.standing = replace(self.standing, seen=newest_of(seen, self._most_seen))
        return new

    def _end(self, sweep: Sweep, etag: tuple[str, str] | None) -> None:
        """Of a range; of the sweep, if it was the last."""
        if sweep.slice_end is not None and sweep.until is not None and sweep.slice_end < sweep.until:
            slice_s = self._follow.slice_s  # None: not declared any more
            end = sweep.until if slice_s is None else min(sweep.slice_end + slice_s, sweep.until)
            self._progress(sweep)
            following = replace(sweep, since=sweep.slice_end - SLICE_OVERLAP_S, slice_end=end, step=None, pages=0)
            self.standing = replace(self.standing, sweep=following)
            return
        mark = _mark(self.standing.mark, sweep)
        if len(self.standing.seen) >= self._most_seen and sweep.until is not None:
            # More changed within the overlap than is remembered: a mark that stood still would have it told for ever.
            mark = max(mark or 0.0, sweep.until)
        kept_from = self._kept_from(mark)
        seen = {digest: moment for digest, moment in self.standing.seen.items() if moment >= kept_from}
        self.standing = replace(self.standing, mark=mark, sweep=None, seen=seen, etag=etag)
        self._rest()

    def _kept_from(self, mark: float | None) -> float:
        """What changed from then on comes again after a sweep that ended at this mark."""
        return -math.inf if mark is None else math.floor(mark - self._follow.overlap_s)

    def _progress(self, sweep: Sweep) -> None:
        start = self._follow.start
        if start is None:
            return
        assert sweep.until is not None
        assert sweep.slice_end is not None
        whole = max(sweep.until - start.timestamp(), 1.0)
        done = (sweep.slice_end - start.timestamp()) / whole
        self._listing.log.info("backfill", done_percent=round(100 * done, 1))


class FeedFollower(Follower):
    """By a cursor that stays good. `seen` holds what the page at the present cursor has told already."""

    def __init__(self, follow: Feed, listing: Listing, standing: Standing, most_seen: int) -> None:
        super().__init__(listing, standing, most_seen)
        self._follow = follow
        self._paging = _endless(listing.resource.paging)

    def pull(self) -> Sequence[PulledRow]:
        was, follow = self.standing, self._follow
        bounds = {}
        if was.step is None and was.at is not None and follow.since:
            bounds[follow.since] = follow.written(was.at - follow.overlap_s)
        fetched = self._listing.fetch(was.step, bounds, was.etag)
        if fetched is None:
            return []
        if fetched.expired:
            self._restart()
            return []
        if fetched.page is None:
            self._rest()
            return []
        new = [row.pulled for row in fetched.rows if row.digest not in was.seen]
        step = self._paging.next(was.step or {}, fetched.page)
        if step is not None and step != was.step:
            self.standing = Standing(step=step, at=fetched.server_time_s or was.at)
            if not fetched.rows:
                self._rest()
            return new
        moment = int(fetched.server_time_s or 0)
        seen = was.seen if not new else newest_of({row.digest: moment for row in fetched.rows}, self._most_seen)
        at = (fetched.server_time_s or was.at) if new else was.at
        self.standing = replace(was, seen=seen, at=at, etag=fetched.etag)
        self._rest()
        return new

    def _restart(self) -> None:
        if self.standing.step is None:
            raise self._unusable()
        if self._follow.restart == "never":
            raise PositionLostError(
                f"{self._resource.path} has forgotten the cursor of {self._resource.name}: what comes next may be gone",
                hint="declare Feed(restart='full') to have everything listed anew, and look for what was missed",
            )
        self._listing.log.warning(
            "the API has forgotten the cursor: everything is listed anew; deletions in between are not seen",
            since=self._follow.since,
        )
        self.standing = Standing(at=self.standing.at)
        self._rest()


def _mark(before: float | None, sweep: Sweep) -> float | None:
    if sweep.newest is None:
        return before if before is not None else sweep.until
    # Of a server that does not tell its time ours is the bound: too early is read again, too late is missed for ever.
    reached = min(sweep.newest, time.time() if sweep.until is None else sweep.until)
    return reached if before is None else max(before, reached)


def _endless(paging: Paging) -> Paging:
    """The cursor of a last page is where a feed goes on."""
    return replace(paging, more="") if isinstance(paging, Cursor | Keyset) else paging
