"""What a GraphQL answer says beside its data: errors under HTTP 200, and what queries cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.http.rate import LONGEST_WAIT_S
from heddle.sources.rest.client import Answer, ThrottledError
from heddle.sources.rest.paging import at_path

_THROTTLED = frozenset({"THROTTLED", "RATE_LIMITED", "RATELIMITED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_REQUESTS"})
_PASSING = frozenset({"INTERNAL_SERVER_ERROR", "INTERNAL_ERROR", "INTERNAL", "SERVICE_UNAVAILABLE", "TIMEOUT"})
_REFUSED = frozenset({"UNAUTHENTICATED", "FORBIDDEN", "ACCESS_DENIED"})
_COST = "extensions.cost"


def checked(host: str, body: Any, headers: Mapping[str, str]) -> None:
    """Raises what the `errors` of an answer mean; their texts, which may quote data, are not told."""
    errors = body.get("errors") if isinstance(body, dict) else None
    if not errors:
        return
    codes = _codes_of(errors)
    if codes & _THROTTLED:
        _affordable(host, body)
        wait_s = cost_wait_s(body)
        raise ThrottledError(headers if wait_s is None else {"retry-after": str(int(wait_s) + 1)})
    if codes & _REFUSED:
        raise AuthError(f"{host} refuses a GraphQL query", hint="renew the credentials, or their scope")
    if codes & _PASSING:
        raise DependencyDownError(f"{host} answers a GraphQL query with {', '.join(sorted(codes & _PASSING))}")
    if body.get("data") is None:
        raise UsageError(f"{host} cannot run the GraphQL query", hint="try it in the API's explorer, and correct it")
    raise DependencyDownError(f"{host} answers a GraphQL query in part, with errors")


def heed_status(host: str, answer: Answer) -> None:
    """Of an answer that is not 200: some servers say by a 4xx what others say in its body alone. Raises what passes."""
    try:
        body = orjson.loads(answer.body)
    except ValueError:
        return
    errors = body.get("errors") if isinstance(body, dict) else None
    if _codes_of(errors) & (_THROTTLED | _PASSING):
        checked(host, body, answer.headers)


def _affordable(host: str, body: Any) -> None:
    """Raises `UsageError` for a query that no waiting pays for."""
    needed = at_path(body, f"{_COST}.requestedQueryCost")
    most = at_path(body, f"{_COST}.throttleStatus.maximumAvailable")
    if isinstance(needed, int | float) and isinstance(most, int | float) and needed > most:
        raise UsageError(
            f"a GraphQL query costs {needed:g}, and {host} never has more than {most:g}",
            hint="ask for fewer rows in a page, or for less of each",
        )


def cost_wait_s(body: Any) -> float | None:
    """Until the bucket of costs holds the next query, which costs as much as this one; None if it does, or does not
    say."""
    needed = at_path(body, f"{_COST}.requestedQueryCost")
    available = at_path(body, f"{_COST}.throttleStatus.currentlyAvailable")
    restored = at_path(body, f"{_COST}.throttleStatus.restoreRate")
    if not all(isinstance(each, int | float) for each in (needed, available, restored)) or restored <= 0:
        return None
    return min((needed - available) / restored, LONGEST_WAIT_S) if needed > available else None


def _codes_of(errors: Any) -> set[str]:
    return {code for each in errors if isinstance(code := _code_of(each), str)} if isinstance(errors, list) else set()


def _code_of(error: Any) -> Any:
    return at_path(error, "extensions.code") or at_path(error, "type")
