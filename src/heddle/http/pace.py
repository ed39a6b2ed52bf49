"""How long a server asks its clients to wait."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime

import httpx2


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, compared with the answer's own, so that clocks may differ. None
    where it does not say, or not in a form that can be read."""
    given = headers.get("retry-after", "").strip()
    if given.isdecimal() and given.isascii():
        return float(given[:12])
    moment = _http_date(given)
    if moment is None:
        return None
    return max(0.0, (moment - (_http_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
