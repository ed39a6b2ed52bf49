"""How fast an API may be asked: a token bucket of ours, slowed down by what the API says of its limits."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from heddle.errors import UsageError

LONGEST_WAIT_S = 86_400.0
"""Nobody is believed who asks for more: a quota of a day is the longest that there is."""
UNTOLD_WAIT_S = 1.0
"""After a refusal that does not say for how long; doubled with each that follows."""

_SLOWEST = 1 / 64
_RECOVERY = 1.05
_PREFIXES = ("x-ratelimit-", "ratelimit-", "x-rate-limit-")
_DRAFT = re.compile(r"(?:^|;)\s*([rt])=(\d{1,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Of one endpoint, for one tenant: `burst` requests at once, then `per_s`."""

    per_s: float = 5.0
    burst: int = 5

    def __post_init__(self) -> None:
        if not (self.per_s > 0 and self.burst >= 1):
            raise UsageError("RateLimit: per_s has to be above zero and burst at least one")


class Pace:
    """When the next request may be sent. A refusal halves the rate; each answer after it wins a twentieth back."""

    def __init__(self, limit: RateLimit, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._factor = 1.0
        self._tokens = float(limit.burst)
        self._counted_at = monotonic()
        self._not_before = 0.0
        self._refusals = 0

    @property
    def per_s(self) -> float:
        return self._limit.per_s * self._factor

    def delay_s(self) -> float:
        """Until a request may be sent; 0 for now."""
        now = self._monotonic()
        self._tokens = min(self._limit.burst, self._tokens + (now - self._counted_at) * self.per_s)
        self._counted_at = now
        missing = max(0.0, 1.0 - self._tokens) / self.per_s
        return max(missing, self._not_before - now, 0.0)

    def sent(self) -> None:
        self._tokens -= 1.0

    @property
    def refusals(self) -> int:
        """In a row."""
        return self._refusals

    def answered(self, headers: Mapping[str, str]) -> float:
        """Not a refusal; it may say that it was the last for now. Seconds until the next, if it says so."""
        self._refusals = 0
        self._factor = min(1.0, self._factor * _RECOVERY)
        told = exhausted_for_s(headers)
        return 0.0 if told is None else self.pause(told)

    def refused(self, headers: Mapping[str, str]) -> float:
        """Too many requests. Seconds until the next."""
        told = retry_after_s(headers)
        if told is None:
            told = exhausted_for_s(headers)
        if told is None:
            told = UNTOLD_WAIT_S * 2 ** min(self._refusals, 6)
        self._refusals += 1
        self._factor = max(_SLOWEST, self._factor / 2)
        self._tokens = min(self._tokens, 1.0)
        return self.pause(told)

    def pause(self, seconds: float) -> float:
        """Nothing is sent for so long; at most `LONGEST_WAIT_S`."""
        seconds = min(max(seconds, 0.0), LONGEST_WAIT_S)
        self._not_before = max(self._not_before, self._monotonic() + seconds)
        return seconds


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, compared with the answer's own, so that clocks may differ."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdecimal():
        return float(given[:15])
    moment = http_date(given)
    return None if moment is None else max(0.0, moment.timestamp() - _answered_at_s(headers))


def exhausted_for_s(headers: Mapping[str, str]) -> float | None:
    """How long nothing is left, by the vendors' headers or the draft `RateLimit` field; None while something is."""
    for prefix in _PREFIXES:
        remaining, reset = headers.get(prefix + "remaining", ""), headers.get(prefix + "reset", "")
        if _number(remaining) == 0 and (at := _number(reset)) is not None:
            return _until_reset_s(at, headers)
    draft = dict(_DRAFT.findall(headers.get("ratelimit", "")))
    return float(draft["t"]) if draft.get("r") == "0" and "t" in draft else None


def http_date(text: str | None) -> datetime | None:
    """RFC 9110, section 5.6.7; None for anything else."""
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _until_reset_s(reset: float, headers: Mapping[str, str]) -> float:
    """Vendors write seconds to go, seconds since 1970, or milliseconds since 1970; sizes tell which."""
    if reset < 1e9:
        return reset
    return max(0.0, (reset / 1000 if reset > 1e11 else reset) - _answered_at_s(headers))


def _answered_at_s(headers: Mapping[str, str]) -> float:
    return (http_date(headers.get("date")) or datetime.now(UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        return float(text) if len(text) < 24 else None
    except ValueError:
        return None
