"""The routes with the secrets of this moment. Only names are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from heddle.errors import HeddleError
from heddle.secrets import MissingSecretError
from heddle.sources.gateway.routes import Route, Routes, load_routes
from heddle.sources.webhook import WebhookSource

NO_SECRET, NO_AUDIT = "no-secret", "no-audit"

log = structlog.get_logger("heddle.gateway")


class Audit(Protocol):
    """Who is told of the secrets in use."""

    def tell(self, source: WebhookSource) -> None:
        """Returns once it is on record which versions of its secrets `source` uses now; at once if it is already.
        Called in threads, for several sources at once. Raises `HeddleError`."""


class Keys:
    """One event loop. Secrets are asked for in a thread: a store may take its time, and deliveries must not wait.

    With an `audit` nothing is verified by a secret before its version is on record: every source is closed until it was
    told of once, and again while a version that is new cannot be told of."""

    def __init__(self, sources: Iterable[WebhookSource], audit: Audit | None = None) -> None:
        """Raises what `load_routes` raises: a gateway does not start without its secrets."""
        self.routes: Routes = load_routes(sources)
        self._audit = audit
        if audit is not None:
            self.routes = {path: route.closed(NO_AUDIT) for path, route in self.routes.items()}
        self._troubles: dict[str, str] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a source is closed only because its secrets are not on record yet."""
        return any(route.closed_for == NO_AUDIT for route in self.routes.values())

    async def renew(self) -> None:
        """Each source on its own. One whose secret is gone is closed: it answers 503 until there is one again; so is
        one whose secret cannot be put on record. Any other trouble leaves it the secrets that it has. What is wrong is
        told once."""
        fresh: dict[str, Route | MissingSecretError] = {}
        for path, route in self.routes.items():
            try:
                fresh[path] = await asyncio.to_thread(_renewed, route)
            except HeddleError as error:
                self._tell(route.source.name, "gateway.secrets_kept", error)
        untold = dict(zip(fresh, await asyncio.gather(*map(self._untold, fresh.values())), strict=True))
        self.routes = {
            path: self._next(route, fresh.get(path, route), untold.get(path)) for path, route in self.routes.items()
        }

    def _next(self, route: Route, fresh: Route | MissingSecretError, untold: HeddleError | None) -> Route:
        name = route.source.name
        if isinstance(fresh, MissingSecretError):
            self._tell(name, "gateway.source_closed", fresh)
            return route.closed(NO_SECRET)
        if untold is not None:
            self._tell(name, "gateway.source_closed", untold)
            return route.closed(NO_AUDIT)
        if fresh is route:  # kept
            return route
        trouble = self._troubles.pop(name, "")
        if trouble or (fresh != route and route.closed_for != NO_AUDIT):
            log.info("gateway.secrets_renewed", source=name)
        return fresh

    async def _untold(self, fresh: Route | MissingSecretError) -> HeddleError | None:
        """Why it is not on record which secrets are in use; None once it is."""
        if self._audit is None or isinstance(fresh, MissingSecretError):
            return None
        try:
            await asyncio.to_thread(self._audit.tell, fresh.source)
        except HeddleError as error:
            return error
        return None

    def _tell(self, source: str, event: str, error: HeddleError) -> None:
        trouble = f"{event} {error}"
        if self._troubles.get(source) != trouble:
            self._troubles[source] = trouble
            log.error(event, source=source, error=str(error), hint=error.hint)


def _renewed(route: Route) -> Route | MissingSecretError:
    try:
        return Route.load(route.source)
    except MissingSecretError as error:
        return error
