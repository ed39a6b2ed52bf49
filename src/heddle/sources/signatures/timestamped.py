"""Vendors that sign a time with the body: Standard Webhooks (and Svix), Stripe, Slack."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

from heddle.errors import UsageError
from heddle.sources.signatures.scheme import (
    Claim,
    Reason,
    Scheme,
    SignatureError,
    SignedRequest,
    encode,
    whole_number,
    without_prefix,
)


@dataclass(frozen=True)
class StandardWebhooks(Scheme):
    """`v1,` + base64(HMAC-SHA256(key, id.timestamp.body)), several separated by spaces; headers `webhook-*` or
    `svix-*`. The secret is the key in base64, with or without `whsec_`. `webhook-id` is the event id."""

    name = "standard-webhooks"
    signed = "webhook-id . webhook-timestamp . body"
    signature_headers = ("webhook-signature", "svix-signature")
    kept_headers = ("webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp")
    advice = "use this endpoint's secret (whsec_…), and the body before any JSON library touched it"

    def claim(self, request: SignedRequest) -> Claim:
        family = "webhook" if "webhook-signature" in request.headers else "svix"
        if f"{family}-signature" not in request.headers:
            family = "webhook"
        delivery_id = request.header(f"{family}-id")
        timestamp = request.header(f"{family}-timestamp")
        given = [part.partition(",") for part in request.header(f"{family}-signature").split()]
        signatures = tuple(value for version, _, value in given if version == "v1" and value)
        if not signatures:
            raise SignatureError(Reason.UNSUPPORTED_VERSION, f"{family}-signature holds no v1 signature")
        seconds = whole_number(timestamp, f"{family}-timestamp")
        message = (("id", delivery_id.encode()), ("dot", b"."), ("timestamp", timestamp.encode()), ("dot", b"."))
        return Claim(signatures, (*message, ("body", request.body)), seconds, delivery_id)

    def key_of(self, secret_text: str) -> bytes:
        try:
            return base64.b64decode(secret_text.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(
                f"secret {self.secret.name} is not base64", hint="a Standard Webhooks secret is whsec_ and base64"
            ) from error

    def sign(self, key: bytes, message: bytes) -> str:
        return encode(hmac.digest(key, message, "sha256"), "base64")


@dataclass(frozen=True)
class Stripe(Scheme):
    """`Stripe-Signature: t=…,v1=…`, hex(HMAC-SHA256(secret text, t.body)); any v1 may match. The event id is `id`."""

    name = "stripe"
    signed = "t . body"
    signature_headers = ("stripe-signature",)
    id_path = "id"
    advice = "use this endpoint's secret with its whsec_ (the CLI's listener has another), and the raw body"

    def claim(self, request: SignedRequest) -> Claim:
        pairs = [item.strip().partition("=") for item in request.header("stripe-signature").split(",")]
        times = [value for name, _, value in pairs if name == "t"]
        if len(times) != 1 or not all(separator for _, separator, _ in pairs):
            raise SignatureError(Reason.MALFORMED_HEADER, "stripe-signature is not t=…,v1=…")
        signatures = tuple(value for name, _, value in pairs if name == "v1")
        if not signatures:
            raise SignatureError(Reason.UNSUPPORTED_VERSION, "stripe-signature holds no v1 signature")
        seconds = whole_number(times[0], "t of stripe-signature")
        return Claim(signatures, (("t", times[0].encode()), ("dot", b"."), ("body", request.body)), seconds)


@dataclass(frozen=True)
class Slack(Scheme):
    """`X-Slack-Signature: v0=` + hex(HMAC-SHA256(signing secret, v0:timestamp:body))."""

    name = "slack"
    signed = "v0 : x-slack-request-timestamp : body"
    signature_headers = ("x-slack-signature",)
    kept_headers = ("x-slack-request-timestamp", "x-slack-retry-num", "x-slack-retry-reason")
    id_path = "event_id"
    advice = "use the app's signing secret, not the verification token or a bot token"

    def claim(self, request: SignedRequest) -> Claim:
        timestamp = request.header("x-slack-request-timestamp")
        signature = without_prefix(request.header("x-slack-signature"), "v0=", "x-slack-signature")
        seconds = whole_number(timestamp, "x-slack-request-timestamp")
        message = (("version", b"v0:"), ("timestamp", timestamp.encode()), ("colon", b":"), ("body", request.body))
        return Claim((signature,), message, seconds)
