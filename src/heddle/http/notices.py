"""What an API announces of its own end: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from heddle.http.rate import http_date


class Notice(NamedTuple):
    """`is_deprecated`: also without a date, which the header's draft did not have. `sunset_at`: when it answers no
    more."""

    is_deprecated: bool
    deprecated_at: datetime | None
    sunset_at: datetime | None

    @property
    def dates(self) -> tuple[str, str]:
        """Days in UTC: since when deprecated, "yes" without a date; from when on gone. "" for what is not said."""
        return _day(self.deprecated_at) or ("yes" if self.is_deprecated else ""), _day(self.sunset_at)

    def told_of(self, what: str) -> str:
        """In a sentence."""
        since = f" since {_day(self.deprecated_at)}" if self.deprecated_at else ""
        parts = [f"is deprecated{since}"] if self.is_deprecated else []
        if self.sunset_at:
            parts.append(f"answers no more from {_day(self.sunset_at)} on")
        return f"{what} {' and '.join(parts)}"


def notice_of(headers: Mapping[str, str]) -> Notice | None:
    """None where nothing, or nothing legible, is announced."""
    given = headers.get("deprecation", "").strip()
    deprecated_at = _deprecated_at(given)
    is_deprecated = deprecated_at is not None or given.lower() in ("true", "?1")
    notice = Notice(is_deprecated, deprecated_at, http_date(headers.get("sunset")))
    return notice if any(notice) else None


def _deprecated_at(given: str) -> datetime | None:
    if not given.startswith("@"):
        return http_date(given)
    try:
        return datetime.fromtimestamp(int(given[1:16]), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).date().isoformat()
