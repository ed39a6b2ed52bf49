"""The webhook gateway: one process that serves every declared webhook source."""

from __future__ import annotations

from heddle.sources.gateway.app import Gateway, gateway_app
from heddle.sources.gateway.keys import Audit
from heddle.sources.gateway.server import run_gateway

__all__ = ["Audit", "Gateway", "gateway_app", "run_gateway"]
