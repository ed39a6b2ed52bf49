"""What an API announces of its own end: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from heddle.http.rate import http_date


class Notice(NamedTuple):
    """`deprecated_at`: a date, or "yes" of the draft, which had none. `sunset_at`: when it answers no more."""

    deprecated_at: str
    sunset_at: str

    def told_of(self, what: str) -> str:
        """In a sentence."""
        since = "" if self.deprecated_at in ("", "yes") else f" since {self.deprecated_at}"
        parts = [f"is deprecated{since}"] if self.deprecated_at else []
        if self.sunset_at:
            parts.append(f"answers no more from {self.sunset_at} on")
        return f"{what} {' and '.join(parts)}"


def notice_of(headers: Mapping[str, str]) -> Notice | None:
    """None where nothing, or nothing legible, is announced."""
    notice = Notice(_deprecated_at(headers.get("deprecation", "").strip()), _text(http_date(headers.get("sunset"))))
    return notice if any(notice) else None


def _deprecated_at(given: str) -> str:
    if given.startswith("@"):
        try:
            return _text(datetime.fromtimestamp(int(given[1:16]), UTC))
        except (ValueError, OverflowError, OSError):
            return ""
    if given.lower() in ("true", "?1"):
        return "yes"
    return _text(http_date(given))


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).date().isoformat()
