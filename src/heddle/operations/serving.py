"""The body of the gateway's process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from heddle.audit import audit_key
from heddle.broker.kafka import KafkaBroker
from heddle.delivery.gateway_audit import GatewayAudit
from heddle.secrets import in_use
from heddle.settings import Settings, need
from heddle.sources.webhook import WebhookSource


def serve(sources: Sequence[WebhookSource], settings: Settings, *, state_dir: Path | None = None) -> None:
    """Blocks until SIGTERM or SIGINT; `state_dir` and errors are those of `run_gateway`, and `UsageError` without an
    audit key."""
    from heddle.sources.gateway import run_gateway  # the HTTP server is for this one process

    need(settings, "bootstrap_servers")
    key = audit_key()
    audit = GatewayAudit(sources, KafkaBroker(settings), settings.instance, key, partial(in_use, key))
    run_gateway(sources, settings, state_dir=state_dir, audit=audit)
