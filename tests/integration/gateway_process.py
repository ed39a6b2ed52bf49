"""A real gateway for the tests: `python gateway_process.py PREFIX STATE_DIR [audited]`, settings and secrets by
environment; audited: as `heddle run` starts it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from heddle.errors import HeddleError
from heddle.local import die_with_parent
from heddle.operations.serving import serve
from heddle.secrets import secret
from heddle.settings import load_settings
from heddle.sources.delivery import Delivery
from heddle.sources.gateway import run_gateway
from heddle.sources.handshakes import EchoQuery
from heddle.sources.signatures import GitHub, HubSpotV3, Slack, StandardWebhooks, Xero
from heddle.sources.webhook import WebhookSource
from heddle.telemetry.logs import configure_logs

DEALS, SLACK, XERO, HUBSPOT, META = "deals", "slack", "xero", "hubspot", "meta"
TOKEN = "test/token"


def broken(delivery: Delivery) -> str:
    """An integrator's mistake in an entity function: it shall cost a 500, not the gateway."""
    return str(delivery.json()["no"]["such"]["field"])


def sources(prefix: str) -> list[WebhookSource]:
    common: dict[str, Any] = {"emits": dict, "convert": lambda _: (), "owner": "tests"}
    key = secret("test/text")
    return [
        WebhookSource(
            f"{prefix}-{DEALS}",
            path="/hooks/deals",
            signature=StandardWebhooks(secret("test/standard")),
            entity="deal.id",
            keep_headers=("X-Shop",),
            **common,
        ),
        WebhookSource(f"{prefix}-{SLACK}", path="/hooks/slack", signature=Slack(key), **common),
        WebhookSource(
            f"{prefix}-{XERO}", path="/hooks/xero", signature=Xero(key), content_types=("application/json",), **common
        ),
        WebhookSource(f"{prefix}-{HUBSPOT}", path="/hooks/hubspot", signature=HubSpotV3(key), entity=broken, **common),
        WebhookSource(
            f"{prefix}-{META}",
            path="/hooks/meta",
            signature=GitHub(key),
            handshake=EchoQuery("hub.challenge", token=secret(TOKEN), token_parameter="hub.verify_token"),
            **common,
        ),
    ]


if __name__ == "__main__":
    die_with_parent()
    configure_logs(load_settings(log_format="json"))
    try:
        run = serve if "audited" in sys.argv else run_gateway
        run(sources(sys.argv[1]), load_settings(), state_dir=Path(sys.argv[2]))
    except HeddleError as error:
        print(f"{type(error).__name__}: {error} ({error.hint})", file=sys.stderr)
        raise SystemExit(2) from None
