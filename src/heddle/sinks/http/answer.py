"""What a target's answer means for the record that was sent."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple

import httpx2

from heddle.errors import AuthError, Failure, HeddleError, Park, RateLimitError, TransientError
from heddle.http.rate import retry_after_s
from heddle.integration import Applied, Outcome
from heddle.secrets import redact

APPLIED = Applied(Outcome.APPLIED)
RECOVERED = Applied(Outcome.APPLIED, recovered=True)

MAX_BODY_BYTES = 65_536
"""Of an answer's body so much is read."""
MAX_EXCERPT_CHARS = 600
"""Of it so much comes into a dead letter: what an API says of a request that it refuses."""
REPLAYED = "idempotent-replayed"
"""What Stripe, and others after it, send with the answer to a key that they know."""

LONGEST_PAUSE_S = 7 * 86_400.0
"""A target that asks for more is asked again before."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_LATER = (408, 425)


class Answer(NamedTuple):
    """`body`: at most its first `MAX_BODY_BYTES`, and less where the connection broke behind the status, or the rest
    came too late: then it is not whole."""

    request: httpx2.Request
    response: httpx2.Response
    body: bytes
    is_whole: bool = True

    @property
    def status(self) -> int:
        return self.response.status_code


def meaning(index: int, answer: Answer, already: Collection[int]) -> Applied | Failure:
    """`already`: statuses by which this API says that the effect is there."""
    status = answer.status
    if 200 <= status < 300:
        return RECOVERED if answer.response.headers.get(REPLAYED, "").lower() == "true" else APPLIED
    if status in already:
        return RECOVERED
    return failed(index, _error(answer), f"http-{status}", cause=_status_error(answer))


def _error(answer: Answer) -> HeddleError:
    """A redirect is a refusal: the declared address is not the right one, and another is not gone to."""
    status, told = answer.status, _told(answer)
    if status in (401, 403):
        return AuthError(told, hint="renew the credentials, then start the worker again")
    after_s = retry_after_s(answer.response.headers)
    if status == 429 or (status == 503 and after_s is not None):
        after = None if after_s is None else timedelta(seconds=min(after_s, LONGEST_PAUSE_S))
        return RateLimitError(told, after=after, hint="the target asked us to slow down")
    if status in _LATER or status >= 500:
        return TransientError(told)
    return Park(told)


def failed(index: int, error: HeddleError, code: str = "", *, cause: BaseException | None = None) -> Failure:
    """`cause` tells the breaker which target it was, and how long that asks us to wait."""
    if cause is not None:
        error.__cause__ = cause
    return Failure(index, error.failure_class, code or error.code, "", str(error), error)


def _told(answer: Answer) -> str:
    phrase = _PHRASES.get(answer.status, "")
    told = f"HTTP {answer.status} {phrase}".rstrip() + f" from {answer.request.url.host}, to {answer.request.method}"
    said = excerpt(answer.body)
    return f"{told}: {said}" if said else told


def excerpt(body: bytes) -> str:
    """As a person may read it on a terminal: on one line, without secrets, cut."""
    text = redact(_UNPRINTABLE.sub(" ", body.decode("utf-8", errors="replace"))).strip()
    return text if len(text) <= MAX_EXCERPT_CHARS else text[:MAX_EXCERPT_CHARS] + "…"


def _status_error(answer: Answer) -> httpx2.HTTPStatusError:
    return httpx2.HTTPStatusError(f"HTTP {answer.status}", request=answer.request, response=answer.response)
