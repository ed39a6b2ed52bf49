"""Deletions of an API that does not tell them: all ids are listed now and then, and compared with those that are known.

A listing takes a while, and rows come and go meanwhile. So every known id has the number of the listing in which it was
seen last: listed by it, or told by another resource since it began. What was seen in none of the last few is gone. Of
a row that appears behind the place where a listing is, nothing is expected until it was listed or told; one that was
told and has gone between two listings is missing in the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from heddle.errors import FormatError, UsageError
from heddle.event import stable_id
from heddle.sources.rest.following import Follower
from heddle.sources.rest.listing import Listing
from heddle.sources.rest.position import Listed, Standing
from heddle.sources.rest.records import PolledRow, PulledRow, key_of
from heddle.sources.rest.resource import IdDiff

FEW_ROWS = 20
"""So many may be gone at once, whatever their share is."""
_CHUNK_ROWS = 500
_FORMAT_VERSION = b"1"
_SEPARATOR = "\0"


class KnownIds:
    """Of one resource: id and listing of the last sight. `changes`: since they were taken last, for the topic that
    keeps them. Some 200 bytes of memory for each."""

    def __init__(self, resource: str, most: int) -> None:
        self._prefix = resource + _SEPARATOR
        self._resource = resource
        self._most = most
        self._seen: dict[str, int] = {}
        self._changes: list[tuple[bytes, bytes | None]] = []

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def newest(self) -> int:
        """Number of the last listing that has seen any; 0 for none."""
        return max(self._seen.values(), default=0)

    def restore(self, row_id: str, value: bytes | None) -> None:
        """Raises `FormatError`."""
        if value is None:
            self._seen.pop(row_id, None)
            return
        version, _, number = value.partition(b":")
        if version != _FORMAT_VERSION or not number.isdigit():
            raise FormatError(
                f"the ids that {self._resource} keeps cannot be read here",
                hint="a newer Heddle wrote them: run that version",
            )
        self._seen[row_id] = int(number)

    def see(self, row_id: str, number: int) -> None:
        """Raises `UsageError` for more than may be held."""
        if self._seen.get(row_id, -1) >= number:
            return
        if len(self._seen) >= self._most and row_id not in self._seen:
            raise UsageError(
                f"{self._resource} lists more than {self._most:,} ids", hint="raise most_ids=, at 200 bytes each"
            )
        self._seen[row_id] = number
        self._changes.append((self._key(row_id), b"%s:%d" % (_FORMAT_VERSION, number)))

    def unseen_since(self, number: int) -> Iterator[str]:
        """Those that were seen in no listing from this one on."""
        return (row_id for row_id, seen in self._seen.items() if seen < number)

    def drop(self, row_ids: Iterable[str]) -> None:
        for row_id in row_ids:
            del self._seen[row_id]
            self._changes.append((self._key(row_id), None))

    def take(self) -> list[tuple[bytes, bytes | None]]:
        changes, self._changes = self._changes, []
        return changes

    def _key(self, row_id: str) -> bytes:
        return (self._prefix + row_id).encode()


def owner_of(key: bytes) -> tuple[str, str]:
    """Resource and id of an entry that was kept."""
    resource, _, row_id = key.decode().partition(_SEPARATOR)
    return resource, row_id


class DiffFollower(Follower):
    """Where a listing was interrupted it goes on; `step` is None between two."""

    def __init__(self, follow: IdDiff, listing: Listing, standing: Standing, tenant: str, known: KnownIds) -> None:
        super().__init__(listing, standing, 0)
        self._follow = follow
        self._tenant = tenant
        self.known = known
        # A position that was kept while this resource was not declared has no number; ids were kept all the same.
        self._first = Listed(known.newest + 1)
        self._stop: UsageError | None = None

    def tell(self, rows: Sequence[PulledRow]) -> None:
        """Another resource has shown these: they were there after the listing under way, if one is, began."""
        listed = self._listed
        is_under_way = listed.is_complete or self.standing.step is not None
        for row in rows:
            if row.row.id:
                self.known.see(row.row.id, listed.number if is_under_way else listed.number - 1)

    def pull(self) -> Sequence[PulledRow]:
        if self._stop is not None:
            raise self._stop
        if self._listed.is_complete:
            return self._gone()
        step = self.standing.step
        fetched = self._listing.fetch(step, {}, None)
        if fetched is None:
            return []
        if fetched.expired:
            self._begin_again(step is None)
            return []
        assert fetched.page is not None, "it was not asked whether it has changed"
        for row in fetched.rows:
            if not row.pulled.row.id:
                raise UsageError(f"{self._resource.path} lists a row without an id", hint="correct id=")
            self.known.see(row.pulled.row.id, self._listed.number)
        following = self._resource.paging.next(step or {}, fetched.page)
        if following is not None and following == step:
            raise UsageError(
                f"{self._resource.path} names the same next page again", hint="correct the paging of this resource"
            )
        at = fetched.server_time_s if step is None else self.standing.at
        self.standing = replace(self.standing, step=following, at=at, listed=self._listed)
        if following is None:
            self._end()
        return []

    @property
    def _listed(self) -> Listed:
        return self.standing.listed or self._first

    def _rest(self) -> None:
        self._due = self._monotonic() + self._follow.every_s

    def _begin_again(self, is_first: bool) -> None:
        """Under the same number: what was seen so far was there, and is taken for gone a listing later at worst."""
        if is_first:
            raise self._unusable()
        self._listing.log.warning("the API has forgotten a page token: ids are listed again")
        self.standing = replace(self.standing, step=None)
        self._due = self._monotonic() + self._resource.every_s

    def _end(self) -> None:
        """What is missing is told from here on, unless it is so much that the listing itself is in doubt."""
        listed, known = self._listed, len(self.known)
        unseen = sum(1 for _ in self.known.unseen_since(listed.number))
        is_doubtful = unseen > self._follow.most_gone * known
        if is_doubtful and (unseen > FEW_ROWS or unseen == known):
            self._stop = UsageError(
                f"{self._resource.path} does not list {unseen} of {known} known ids: nothing is told as deleted",
                hint="see whether our credentials still show all rows; if so many are gone indeed, raise most_gone=",
            )
            return
        self.standing = replace(self.standing, listed=listed._replace(is_complete=True))

    def _gone(self) -> Sequence[PulledRow]:
        listed = self._listed
        bound = listed.number - self._follow.listings + 1
        gone = list(islice(self.known.unseen_since(bound), _CHUNK_ROWS))
        rows = [self._row(row_id, listed.number) for row_id in gone]
        self.known.drop(gone)
        if len(gone) < _CHUNK_ROWS:
            self.standing = replace(self.standing, at=None, listed=Listed(listed.number + 1))
            self._rest()
        return rows

    def _row(self, row_id: str, number: int) -> PulledRow:
        """Its event's id is the same whenever this listing's end is gone through again."""
        resource, at = self._resource, self.standing.at
        moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        row = PolledRow(None, row_id, stable_id(resource.name, row_id, f"gone:{number}"), moment)
        return PulledRow(resource.name, row, key_of(resource.entity, row_id, self._tenant), resource.convert)
