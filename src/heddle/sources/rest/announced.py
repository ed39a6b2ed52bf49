"""What a polled API has announced of its end: to the log once, to `heddle check`, and as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import structlog

from heddle.http.notices import Notice, notice_of
from heddle.telemetry.catalogue import SERVER, SOURCE, SOURCE_DEPRECATION, SOURCE_SUNSET
from heddle.telemetry.metrics import Reading, observe


class Announced:
    """By one source's API, to one process. The thread that polls writes; who asks for metrics is another."""

    def __init__(self, source: str, host: str) -> None:
        self._log = structlog.get_logger(source=source)
        self._attributes = {SOURCE: source, SERVER: host}
        self._told: dict[tuple[str, tuple[str, str]], tuple[Notice, str]] = {}
        self._newest: dict[str, Notice] = {}

    def observed(self) -> None:
        """Who polls tells it as metrics, from now on."""
        source = self._attributes[SOURCE]
        observe(SOURCE_DEPRECATION, source, lambda: self._earliest([each.deprecated_at for each in self._standing()]))
        observe(SOURCE_SUNSET, source, lambda: self._earliest([each.sunset_at for each in self._standing()]))

    def __iter__(self) -> Iterator[tuple[str, Notice, str]]:
        """Path, announcement, and where more is said of it; in the order in which they came."""
        return ((path, notice, more) for (path, _), (notice, more) in self._told.items())

    def heed(self, path: str, status: int, headers: Mapping[str, str], links: Mapping[str, str]) -> None:
        """An answer. One that succeeds without a word of it takes back what was said before; an error does not come
        from where announcements are made, and a 304 may leave headers out."""
        notice = notice_of(headers)
        if notice is not None:
            self._newest = {**self._newest, path: notice}
            self._tell(path, notice, links.get("deprecation") or links.get("sunset") or "")
        elif path in self._newest and status < 300:
            self._newest = {known: said for known, said in self._newest.items() if known != path}

    def _tell(self, path: str, notice: Notice, more: str) -> None:
        """Once, for each path and its dates."""
        if (path, notice.dates) in self._told:
            return
        self._told[path, notice.dates] = notice, more
        deprecated_at, sunset_at = notice.dates
        self._log.warning(
            "the API announces its end", path=path, deprecated_at=deprecated_at, sunset_at=sunset_at, more=more
        )

    def _standing(self) -> list[Notice]:
        return list(self._newest.values())

    def _earliest(self, moments: list[datetime | None]) -> list[Reading]:
        """Nothing where nothing is announced."""
        times_s = [moment.timestamp() for moment in moments if moment is not None]
        return [(min(times_s), self._attributes)] if times_s else []
