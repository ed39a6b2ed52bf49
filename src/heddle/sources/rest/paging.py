"""How one listing goes on from page to page. A step is what the next request has that the first has not; it is JSON,
because it stands in the position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from heddle.errors import UsageError

MAX_NUMBERED_ROWS = 200
"""Of a numbered page: the ids of three are in the position."""
_BORDER_ROWS = 10
_ABSENT = object()


class Step(TypedDict, total=False):
    """`url`: the next page whole; it is checked before it is asked for. `anchor`: `Page.ids` of the last rows of
    the page before, one of which the next has to show. Of numbered pages `anchor` is what was told of the last few, and
    `before` what the page that is read `again` has to show, `last` the same of the page behind it; `is_last`: then the
    listing ends, by an offset if the page is empty."""

    params: dict[str, Any]
    url: str
    anchor: list[str]
    before: list[str]
    last: list[str]
    again: bool
    is_last: bool


class Page(NamedTuple):
    """One answer. `ids`: of its rows, in order; a row that changes gets another. `links`: of `Link`, by relation."""

    body: Any
    rows: Sequence[Any]
    ids: Sequence[str]
    links: Mapping[str, str]


class Paging(ABC):
    @property
    def params(self) -> Mapping[str, Any]:
        """Of every request."""
        return {}

    @abstractmethod
    def next(self, step: Step, page: Page) -> Step | None:
        """After this page, which `step` brought; None at the end."""


@dataclass(frozen=True, slots=True)
class Cursor(Paging):
    """A cursor or page token in the body: `Cursor("after", at="paging.next.after")`. `more`: where the body says
    whether anything follows, in every answer; without it the end is a page without a cursor."""

    parameter: str
    at: str
    more: str = ""

    def next(self, step: Step, page: Page) -> Step | None:  # noqa: ARG002 - the page says it all
        token = at_path(page.body, self.at)
        if self.more and not _has_more(page, self.more):
            if token and at_path(page.body, self.more) is None:
                raise UsageError(
                    f"a page has a cursor at {self.at!r}, and null at {self.more!r}: does more come?",
                    hint="correct more=, or leave it away where a page without a cursor is the last",
                )
            return None
        if token is None or token == "":
            if self.more:
                raise UsageError(
                    f"a page says that more is to come, and has no cursor at {self.at!r}", hint="correct at= of Cursor"
                )
            return None
        return {"params": {self.parameter: token}}


@dataclass(frozen=True, slots=True)
class Keyset(Paging):
    """Rows after the last one: `Keyset({"starting_after": "id"})` takes each parameter from a path in the last row.
    Rows have to be sorted by them. `more` as of `Cursor`; without it the end is an empty page."""

    parameters: Mapping[str, str]
    more: str = ""

    def next(self, step: Step, page: Page) -> Step | None:  # noqa: ARG002 - as above
        if not page.rows or (self.more and not _has_more(page, self.more)):
            return None
        after = {name: at_path(page.rows[-1], path) for name, path in self.parameters.items()}
        if None in after.values():
            raise UsageError(
                f"the last row of a page has no {' or '.join(self.parameters.values())}",
                hint="correct the paths of Keyset: they are fields of a row",
            )
        return {"params": after}


@dataclass(frozen=True, slots=True)
class Offset(Paging):
    """`Offset(limit=100)`. A short page says nothing, since servers cap pages, by rows or by bytes. The end is where
    `total`, the path of how many rows there are, says that it is, or else an empty page; that has to be the end by
    `total`, too, where it is declared.

    A row that is deleted, or changed and so sorted elsewhere, moves all after it a place forward, over the border of
    pages. So each page begins `overlap` rows early (fewer, after a page that is not longer than that) and has to show
    one of the rows before: else it goes back."""

    limit: int
    parameter: str = "offset"
    limit_parameter: str = "limit"
    overlap: int = 5
    total: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.limit:
            raise UsageError("Offset: overlap has to be above zero and below limit")

    @property
    def params(self) -> Mapping[str, Any]:
        return {self.limit_parameter: self.limit}

    def next(self, step: Step, page: Page) -> Step | None:
        offset, anchor = int(step.get("params", {}).get(self.parameter, 0)), step.get("anchor", [])
        after, total = offset + len(page.rows), self._total(page)
        if step.get("is_last"):
            return None if self._is_end(page, total, offset) else self._after_end(step, offset, anchor)
        if offset and not set(anchor) & set(page.ids):
            return self._step(max(0, offset - self.limit), anchor)
        if (total is not None and after >= total) or self._is_end(page, total, after):
            return None
        if len(page.rows) == 1 or (anchor and page.ids[-1] == anchor[-1]):
            # Nothing behind it: the end, or a page that holds no more than what it shares with the one before.
            return {**self._step(after, page.ids[-1:]), "is_last": True, "again": bool(step.get("again"))}
        shared = self.overlap if len(page.rows) > self.overlap else max(1, len(page.rows) // 2)
        return self._step(after - shared, page.ids[-shared:])

    def _after_end(self, step: Step, offset: int, anchor: Sequence[str]) -> Step:
        """Rows where none were expected. They are read again with the one before them, which may have left."""
        if step.get("again"):
            raise UsageError(
                f"the API gives single rows at {self.parameter}={offset}: its pages cannot overlap",
                hint="see which limit= it takes, or declare another paging",
            )
        return {**self._step(offset - 1, anchor[-1:]), "again": True}

    def _is_end(self, page: Page, total: int | None, reached: int) -> bool:
        if not page.rows and total is not None and reached < total:
            raise UsageError(
                f"the API tells of {total} rows and gives none from {reached} on: what follows would be missed",
                hint="page by Keyset or Cursor where offsets are limited; leave total= away if it is a guess",
            )
        return not page.rows

    def _step(self, offset: int, anchor: Sequence[str]) -> Step:
        return {"params": {self.parameter: offset}, "anchor": list(anchor)}

    def _total(self, page: Page) -> int | None:
        if not self.total:
            return None
        total = at_path(page.body, self.total)
        if not isinstance(total, int) or isinstance(total, bool):
            raise UsageError(f"a page has no number at {self.total!r}", hint="correct total= of Offset")
        return total


@dataclass(frozen=True, slots=True)
class PageNumber(Paging):
    """Pages numbered 1, 2, 3: `PageNumber(size=100)`. `more` as of `Cursor`; without it the end is an empty page.

    As with `Offset`, a row that leaves moves all after it over the border of pages, and pages cannot overlap. So after
    each page the one before it is read again: what has moved there since is new, and the rest is not told twice. Has
    all of it moved, reading begins again. That is two requests for each page; every other paging is better."""

    size: int
    parameter: str = "page"
    size_parameter: str = "per_page"
    first: int = 1
    more: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.size <= MAX_NUMBERED_ROWS:
            raise UsageError(f"PageNumber: size has to be above zero and at most {MAX_NUMBERED_ROWS}")

    @property
    def params(self) -> Mapping[str, Any]:
        return {self.parameter: self.first, self.size_parameter: self.size}

    def next(self, step: Step, page: Page) -> Step | None:
        number, anchor = int(step.get("params", {}).get(self.parameter, self.first)), step.get("anchor", [])
        last = list(page.ids[-_BORDER_ROWS:])
        if step.get("again"):
            # Where it ended when it was read first is what has to be in it now: else rows have passed it.
            if not set(step["before"]) & set(page.ids):
                return {"params": {self.parameter: self.first}}
            if step["is_last"]:
                return None
            if step["before"] == last == step["last"]:
                raise UsageError(
                    f"the API answers {self.parameter}={number} and {self.parameter}={number + 1} with the same rows",
                    hint="correct parameter=; declare more= for an API with its last page under all further numbers",
                )
            known, after = _joined(anchor, page.ids), step["last"]
            return {"params": {self.parameter: number + 2}, "anchor": known, "before": after}
        is_last = not page.rows or bool(self.more and not _has_more(page, self.more))
        if number == self.first:
            following = {self.parameter: number + 1}
            return None if is_last else {"params": following, "anchor": list(page.ids), "before": last}
        return {
            "params": {self.parameter: number - 1}, "anchor": _joined(anchor, page.ids), "before": step["before"],
            "last": last, "again": True, "is_last": is_last,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkHeader(Paging):
    """RFC 8288: the `Link` header's `next`. Only followed on the API's own host."""

    def next(self, step: Step, page: Page) -> Step | None:  # noqa: ARG002 - as above
        url = page.links.get("next")
        return {"url": url} if url else None


@dataclass(frozen=True, slots=True)
class NextUrl(Paging):
    """The next page's URL in the body: `NextUrl(at="@odata.nextLink")`. Only followed on the API's own host."""

    at: str

    def next(self, step: Step, page: Page) -> Step | None:  # noqa: ARG002 - as above
        url = page.body.get(self.at) if isinstance(page.body, dict) and self.at in page.body else None
        url = url if url is not None else at_path(page.body, self.at)
        return {"url": url} if isinstance(url, str) and url else None


def at_path(value: Any, path: str, otherwise: Any = None) -> Any:
    """What stands at a dotted path of names and, in lists, places, `otherwise` where there is nothing. "" is all of
    it."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        else:
            return otherwise
    return value


def _has_more(page: Page, path: str) -> bool:
    """Raises `UsageError` where nothing is said: a name that is misspelt must not pass for the end."""
    said = at_path(page.body, path, _ABSENT)
    if said is _ABSENT:
        raise UsageError(
            f"a page does not say at {path!r} whether more is to come",
            hint="correct more=, or leave it away where not every answer has it",
        )
    return bool(said)


def _joined(anchor: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Of the last few pages, and of no more: it is a part of the position."""
    return list(dict.fromkeys([*anchor, *ids]))[-3 * MAX_NUMBERED_ROWS :]
