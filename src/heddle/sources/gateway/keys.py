"""The routes with the secrets of this moment. Only names are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from heddle.errors import HeddleError
from heddle.secrets import MissingSecretError
from heddle.sources.gateway.routes import Route, Routes, load_routes
from heddle.sources.webhook import WebhookSource

log = structlog.get_logger("heddle.gateway")


class Keys:
    """One event loop. Secrets are asked for in a thread: a store may take its time, and deliveries must not wait."""

    def __init__(self, sources: Iterable[WebhookSource]) -> None:
        """Raises what `load_routes` raises: a gateway does not start without its secrets."""
        self.routes: Routes = load_routes(sources)
        self._troubles: dict[str, str] = {}

    async def renew(self) -> None:
        """Each source on its own. One whose secret is gone is closed: it answers 503 until there is one again. Any
        other trouble leaves it the secrets that it has, and is told once."""
        for path, route in list(self.routes.items()):
            name = route.source.name
            try:
                fresh = await asyncio.to_thread(_renewed, route)
            except HeddleError as error:
                self._tell(name, "gateway.secrets_kept", error)
                continue
            if not isinstance(fresh, Route):
                self._tell(name, "gateway.source_closed", fresh)
                fresh = route.closed()
            elif self._troubles.pop(name, None) or fresh != route:
                log.info("gateway.secrets_renewed", source=name)
            self.routes = {**self.routes, path: fresh}

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
