"""What a GraphQL answer says beside its data: errors under HTTP 200, and what queries cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.sources.rest.client import ThrottledError
from heddle.sources.rest.paging import at_path

_THROTTLED = frozenset({"THROTTLED", "RATE_LIMITED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_REQUESTS"})
_REFUSED = frozenset({"UNAUTHENTICATED", "FORBIDDEN", "ACCESS_DENIED"})
_COST = "extensions.cost"


def checked(host: str, body: Any, headers: Mapping[str, str]) -> None:
    """Raises what the `errors` of an answer mean; their texts, which may quote data, are not told."""
    errors = body.get("errors") if isinstance(body, dict) else None
    if not errors:
        return
    codes = {code for each in errors if isinstance(code := _code_of(each), str)} if isinstance(errors, list) else set()
    if codes & _THROTTLED:
        wait_s = cost_wait_s(body)
        raise ThrottledError(headers if wait_s is None else {"retry-after": str(int(wait_s) + 1)})
    if codes & _REFUSED:
        raise AuthError(f"{host} refuses a GraphQL query", hint="renew the credentials, or their scope")
    if body.get("data") is None:
        raise UsageError(f"{host} cannot run the GraphQL query", hint="try it in the API's explorer, and correct it")
    raise DependencyDownError(f"{host} answers a GraphQL query in part, with errors")


def cost_wait_s(body: Any) -> float | None:
    """Until the bucket of costs holds the next query, which costs as much as this one; None if it does, or does not
    say."""
    needed = at_path(body, f"{_COST}.requestedQueryCost")
    available = at_path(body, f"{_COST}.throttleStatus.currentlyAvailable")
    restored = at_path(body, f"{_COST}.throttleStatus.restoreRate")
    if not all(isinstance(each, int | float) for each in (needed, available, restored)) or restored <= 0:
        return None
    return (needed - available) / restored if needed > available else None


def _code_of(error: Any) -> Any:
    return at_path(error, "extensions.code") or at_path(error, "type")
