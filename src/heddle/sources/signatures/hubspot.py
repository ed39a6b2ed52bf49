"""HubSpot v3: method, URI, body and time are signed, so the public address matters."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from heddle.sources.signatures.scheme import Claim, Scheme, SignedRequest, encode, whole_number

# The characters that HubSpot signs decoded (developer guide "Validating requests"); every other escape stays as sent.
_DECODED = {f"%{ord(character):02X}": character for character in ":/?@!$'()*,;"}
_ESCAPE = re.compile("|".join(_DECODED), re.IGNORECASE)


def signed_uri(url: str) -> str:
    """The URI as HubSpot signs it."""
    return _ESCAPE.sub(lambda match: _DECODED[match[0].upper()], url)


@dataclass(frozen=True)
class HubSpotV3(Scheme):
    """`X-HubSpot-Signature-v3`: base64(HMAC-SHA256(client secret, METHOD + uri + body + timestamp in ms)).

    `SignedRequest.url` must be the public one: behind a proxy set `HEDDLE_GATEWAY_BASE_URL`. Event ids are not
    promised to be unique, so a converter hashes portal, object, type and time (`heddle.event.stable_id`)."""

    name = "hubspot-v3"
    signed = "method uri body x-hubspot-request-timestamp"
    signature_headers = ("x-hubspot-signature-v3",)
    older_signature_headers = ("x-hubspot-signature", "x-hubspot-signature-version")
    kept_headers = ("x-hubspot-request-timestamp",)
    advice = "the URL must be the public one that HubSpot called (HEDDLE_GATEWAY_BASE_URL), with its query"

    def claim(self, request: SignedRequest) -> Claim:
        timestamp = request.header("x-hubspot-request-timestamp")
        signature = request.header("x-hubspot-signature-v3")
        milliseconds = whole_number(timestamp, "x-hubspot-request-timestamp")
        message = (
            ("method", request.method.encode()),
            ("uri", signed_uri(request.url).encode()),
            ("body", request.body),
            ("timestamp", timestamp.encode()),
        )
        return Claim((signature,), message, milliseconds / 1000)

    def sign(self, key: bytes, message: bytes) -> str:
        return encode(hmac.digest(key, message, "sha256"), "base64")
