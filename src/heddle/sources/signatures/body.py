"""Vendors that sign the raw body alone: GitHub, Shopify, Xero, QuickBooks. None of them signs a time, so an old
delivery that is sent again verifies again; its identity makes that harmless."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from heddle.sources.signatures.scheme import (
    Claim,
    Reason,
    Scheme,
    SignatureError,
    SignedRequest,
    encode,
    without_prefix,
)


@dataclass(frozen=True)
class GitHub(Scheme):
    """`X-Hub-Signature-256: sha256=` + hex(HMAC-SHA256(secret, body)). For form deliveries the raw form is signed.

    A request that carries the old SHA-1 signature only is refused. `X-GitHub-Delivery` is the event id."""

    name = "github"
    signed = "body"
    signature_headers = ("x-hub-signature-256",)
    older_signature_headers = ("x-hub-signature",)
    kept_headers = ("x-github-event", "x-github-delivery", "x-github-hook-id")
    advice = "use the webhook's own secret, and the raw form body where the content type is form-encoded"

    def claim(self, request: SignedRequest) -> Claim:
        if "x-hub-signature-256" not in request.headers and "x-hub-signature" in request.headers:
            raise SignatureError(
                Reason.SHA1_ONLY,
                "only the SHA-1 signature came, and it is not accepted",
                hint="give the webhook a secret on a GitHub that sends X-Hub-Signature-256, and let proxies pass it",
            )
        signature = without_prefix(request.header("x-hub-signature-256"), "sha256=", "x-hub-signature-256")
        return Claim((signature,), (("body", request.body),), delivery_id=request.headers.get("x-github-delivery"))


@dataclass(frozen=True)
class BodyBase64(Scheme):
    """base64(HMAC-SHA256(secret, body)) in one header."""

    signed = "body"
    signature_header: ClassVar[str]

    def claim(self, request: SignedRequest) -> Claim:
        signature = request.header(self.signature_header)
        return Claim((signature,), (("body", request.body),))

    def sign(self, key: bytes, message: bytes) -> str:
        return encode(hmac.digest(key, message, "sha256"), "base64")


@dataclass(frozen=True)
class Shopify(BodyBase64):
    """`X-Shopify-Hmac-Sha256`; an empty body is refused.

    The event id is shop, topic and `X-Shopify-Event-Id` (older shops: `X-Shopify-Webhook-Id`), because one event can
    reach several subscriptions."""

    name = "shopify"
    signature_header = "x-shopify-hmac-sha256"
    signature_headers = ("x-shopify-hmac-sha256",)
    kept_headers = (
        "x-shopify-topic",
        "x-shopify-shop-domain",
        "x-shopify-event-id",
        "x-shopify-webhook-id",
        "x-shopify-api-version",
        "x-shopify-triggered-at",
    )
    advice = "use the app's client secret (after a rotation Shopify signs with the old one for up to an hour)"

    def claim(self, request: SignedRequest) -> Claim:
        if not request.body:
            raise SignatureError(Reason.EMPTY_BODY, "Shopify signs no empty body")
        return super().claim(request)._replace(delivery_id=_shopify_id(request.headers))


def _shopify_id(headers: Mapping[str, str]) -> str | None:
    event_id = headers.get("x-shopify-event-id") or headers.get("x-shopify-webhook-id")
    if not event_id:
        return None
    return f"{headers.get('x-shopify-shop-domain', '')}:{headers.get('x-shopify-topic', '')}:{event_id}"


@dataclass(frozen=True)
class Xero(BodyBase64):
    """`x-xero-signature`. Intent to receive needs no more than the gateway's rule: 401 or 200, both with no body."""

    name = "xero"
    signature_header = "x-xero-signature"
    signature_headers = ("x-xero-signature",)
    advice = "use the webhook signing key of the app, not the client secret"


@dataclass(frozen=True)
class QuickBooks(BodyBase64):
    """`intuit-signature`; the key is the verifier token. A delivery is an array of CloudEvents of several companies."""

    name = "quickbooks"
    signature_header = "intuit-signature"
    signature_headers = ("intuit-signature",)
    kept_headers = ("intuit-notification-schema-version", "intuit-t-id")
    advice = "use the verifier token of the app's webhooks page (development and production have their own)"
