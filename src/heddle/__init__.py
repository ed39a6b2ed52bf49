"""Heddle: integrations as code on Kafka. These are the public names."""

from __future__ import annotations

from heddle.errors import (
    AuthError,
    ContractError,
    DependencyDownError,
    FailureClass,
    HeddleError,
    TransientError,
    UsageError,
)
from heddle.event import Draft, Event, Identity, stable_id
from heddle.integration import Flow, Sink, Source
from heddle.mapping import Mapping
from heddle.secrets import Secret, secret
from heddle.sinks.sql import SqlSink
from heddle.sources.signatures import (
    GitHub,
    Hmac,
    HubSpotV3,
    QuickBooks,
    Shopify,
    Slack,
    StandardWebhooks,
    Stripe,
    Xero,
)
from heddle.sources.webhook import Delivery, WebhookSource

__all__ = [
    "AuthError",
    "ContractError",
    "Delivery",
    "DependencyDownError",
    "Draft",
    "Event",
    "FailureClass",
    "Flow",
    "GitHub",
    "HeddleError",
    "Hmac",
    "HubSpotV3",
    "Identity",
    "Mapping",
    "QuickBooks",
    "Secret",
    "Shopify",
    "Sink",
    "Slack",
    "Source",
    "SqlSink",
    "StandardWebhooks",
    "Stripe",
    "TransientError",
    "UsageError",
    "WebhookSource",
    "Xero",
    "secret",
    "stable_id",
]
