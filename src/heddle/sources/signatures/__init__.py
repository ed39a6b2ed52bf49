"""Webhook signature schemes. Each is declared with a secret: `Stripe(secret("payments/webhook"))`.

A formula is accepted only when a vector agrees (tests/data/webhooks)."""

from __future__ import annotations

from heddle.sources.signatures.body import GitHub, QuickBooks, Shopify, Xero
from heddle.sources.signatures.generic import Hmac
from heddle.sources.signatures.hubspot import HubSpotV3
from heddle.sources.signatures.scheme import (
    Reason,
    Scheme,
    SignatureError,
    SignedRequest,
    Verified,
    Verifier,
)
from heddle.sources.signatures.timestamped import Slack, StandardWebhooks, Stripe

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (StandardWebhooks, Stripe, GitHub, Shopify, HubSpotV3, Slack, Xero, QuickBooks, Hmac)
}

__all__ = [
    "SCHEMES",
    "GitHub",
    "Hmac",
    "HubSpotV3",
    "QuickBooks",
    "Reason",
    "Scheme",
    "Shopify",
    "SignatureError",
    "SignedRequest",
    "Slack",
    "StandardWebhooks",
    "Stripe",
    "Verified",
    "Verifier",
    "Xero",
]
