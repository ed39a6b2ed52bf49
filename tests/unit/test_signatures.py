"""Signature schemes against vectors: third parties' where they exist, derived ones for the rest."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heddle.errors import UsageError
from heddle.secrets import secret
from heddle.sources.signatures import (
    SCHEMES,
    GitHub,
    Hmac,
    HubSpotV3,
    Reason,
    Scheme,
    Shopify,
    SignatureError,
    SignedRequest,
    Slack,
    StandardWebhooks,
    Stripe,
    Xero,
)

DATA = Path(__file__).parent.parent / "data" / "webhooks"
OUTSIDE = {"twilio", "square", "shopify-oauth", "hubspot-v1", "hubspot-v2"}
ANY = secret("test/webhook")
NOW = 1_700_000_000.0


def vectors() -> list[dict[str, Any]]:
    files = ("signature_vectors.json", "derived_vectors.json")
    found = [v for name in files for v in json.loads((DATA / name).read_text(encoding="utf-8"))["vectors"]]
    return [v for v in found if v["scheme"] not in OUTSIDE]


def scheme_of(vector: dict[str, Any]) -> Scheme:
    name = {"svix": "standard-webhooks"}.get(vector["scheme"], vector["scheme"])
    return SCHEMES[name](ANY, tolerance_s=vector["tolerance_s"] or 300, **vector.get("options", {}))


def request_of(vector: dict[str, Any], **changes: Any) -> SignedRequest:
    headers = vector["headers"] | changes.pop("headers", {})
    request = SignedRequest.of(vector["method"], vector["uri"] or "", headers.items(), vector["body"].encode())
    return request._replace(**changes)


def is_valid(vector: dict[str, Any], request: SignedRequest) -> bool:
    try:
        scheme_of(vector).verifier([vector["secret"]]).verify(request, vector["now"] or NOW)
    except SignatureError:
        return False
    return True


def expected(vector: dict[str, Any]) -> bool:
    # The one third-party vector that we refuse on purpose: GitHub's old SHA-1 signature alone.
    return bool(vector["valid"]) and vector["id"] != "github-02"


def another_secret(vector: dict[str, Any]) -> str:
    return "00ff" if vector.get("options", {}).get("secret_encoding") == "hex" else "d3Jvbmc="


def reason_of(scheme: Scheme, key: str, request: SignedRequest, now: float = NOW) -> Reason:
    with pytest.raises(SignatureError) as refused:
        scheme.verifier([key]).verify(request, now)
    assert key not in str(refused.value)
    return refused.value.reason


def request(headers: dict[str, str], body: bytes = b"{}") -> SignedRequest:
    return SignedRequest.of("POST", "", headers.items(), body)


@pytest.mark.parametrize("vector", vectors(), ids=lambda v: v["id"])
def test_vector_agrees(vector: dict[str, Any]) -> None:
    assert is_valid(vector, request_of(vector)) == expected(vector)


@pytest.mark.parametrize("vector", [v for v in vectors() if expected(v)], ids=lambda v: v["id"])
def test_one_changed_byte_is_refused(vector: dict[str, Any]) -> None:
    body = vector["body"].encode()
    for position in {0, len(body) // 2, len(body) - 1}:
        changed = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        assert not is_valid(vector, request_of(vector, body=changed))
    assert not is_valid(vector, request_of(vector, body=body + b"\n"))
    assert not is_valid(vector | {"secret": another_secret(vector)}, request_of(vector))


@pytest.mark.parametrize("vector", [v for v in vectors() if expected(v) and v["timestamp"]], ids=lambda v: v["id"])
def test_clock_skew_is_bounded_both_ways(vector: dict[str, Any]) -> None:
    signed_at = vector["timestamp"] / (1000 if vector["scheme"] == "hubspot-v3" else 1)
    scheme, given = scheme_of(vector), request_of(vector)
    for skew in (-300, 0, 300):
        assert is_valid(vector | {"now": signed_at + skew}, given)
    assert reason_of(scheme, vector["secret"], given, signed_at + 301) is Reason.TOO_OLD
    assert reason_of(scheme, vector["secret"], given, signed_at - 301) is Reason.TOO_NEW


def test_every_scheme_has_a_valid_and_an_invalid_vector() -> None:
    covered = {(scheme_of(v).name, expected(v)) for v in vectors()}
    assert covered == {(name, valid) for name in SCHEMES for valid in (True, False)}


@pytest.mark.parametrize("vector", [v for v in vectors() if expected(v)], ids=lambda v: v["id"])
def test_any_live_secret_may_have_signed(vector: dict[str, Any]) -> None:
    verifier = scheme_of(vector).verifier([another_secret(vector), vector["secret"]])
    verifier.verify(request_of(vector), vector["now"] or NOW)


@pytest.mark.parametrize("vector", [v for v in vectors() if expected(v)], ids=lambda v: v["id"])
def test_missing_headers_are_named(vector: dict[str, Any]) -> None:
    bare = request_of(vector)._replace(headers={})
    assert reason_of(scheme_of(vector), vector["secret"], bare) is Reason.MISSING_HEADER


def test_several_signatures_in_one_header() -> None:
    body, key = b'{"a":1}', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    verifier = StandardWebhooks(ANY).verifier([key])
    good = verifier.scheme.sign(verifier.keys[0], b"msg_1.1700000000." + body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1a,x v1,AAAA v1,{good}",
    }
    proven = verifier.verify(request(headers, body), NOW)
    assert proven == (1_700_000_000, "msg_1")

    stripe = Stripe(ANY).verifier(["whsec_x"])
    good = stripe.scheme.sign(stripe.keys[0], b"1700000000." + body)
    header = {"Stripe-Signature": f"t=1700000000,v1={'0' * 64},v1={good},v0=1"}
    assert stripe.verify(request(header, body), NOW).timestamp_s == NOW


def test_secrets_come_from_the_secret_and_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = GitHub(ANY)
    monkeypatch.setenv("HEDDLE_SECRET_TEST_WEBHOOK", "new\nold")
    signature = "sha256=" + hmac.new(b"old", b"{}", "sha256").hexdigest()
    given = request({"X-Hub-Signature-256": signature, "X-GitHub-Delivery": "d-1"})
    assert scheme.verify(given, NOW).delivery_id == "d-1"
    loaded = scheme.load()
    monkeypatch.setenv("HEDDLE_SECRET_TEST_WEBHOOK", "new")
    loaded.verify(given, NOW)
    with pytest.raises(SignatureError):
        scheme.load().verify(given, NOW)


def test_reasons() -> None:
    stripe, key = Stripe(ANY), "whsec_x"
    assert reason_of(stripe, key, request({"stripe-signature": "not a signature"})) is Reason.MALFORMED_HEADER
    assert reason_of(stripe, key, request({"stripe-signature": "t=1,t=2,v1=aa"})) is Reason.MALFORMED_HEADER
    assert reason_of(stripe, key, request({"stripe-signature": "t=-1,v1=aa"})) is Reason.MALFORMED_HEADER
    assert reason_of(stripe, key, request({"stripe-signature": "t=1,v0=aa"})) is Reason.UNSUPPORTED_VERSION
    assert reason_of(GitHub(ANY), key, request({"x-hub-signature": "sha1=aa"})) is Reason.SHA1_ONLY
    assert reason_of(GitHub(ANY), key, request({"x-hub-signature-256": "aa"})) is Reason.MALFORMED_HEADER
    assert reason_of(Shopify(ANY), key, request({"x-shopify-hmac-sha256": "aa"}, b"")) is Reason.EMPTY_BODY
    assert reason_of(Xero(ANY), key, request({"x-xero-signature": "ÿ"})) is Reason.BAD_SIGNATURE
    slack = {"x-slack-signature": "v0=aa", "x-slack-request-timestamp": "soon"}
    assert reason_of(Slack(ANY), key, request(slack)) is Reason.MALFORMED_HEADER
    standard = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v2,aa"}
    assert reason_of(StandardWebhooks(ANY), "AAAA", request(standard)) is Reason.UNSUPPORTED_VERSION


def test_a_signature_header_sent_twice_proves_nothing_twice() -> None:
    signature = "sha256=" + hmac.new(b"k", b"{}", "sha256").hexdigest()
    pairs = [("X-Hub-Signature-256", signature), ("x-hub-signature-256", "sha256=00")]
    given = SignedRequest.of("POST", "", pairs, b"{}")
    assert reason_of(GitHub(ANY), "k", given) is Reason.BAD_SIGNATURE


def test_shopify_identity_is_shop_topic_and_event() -> None:
    signature = Shopify(ANY).sign(b"k", b"{}")
    headers = {
        "x-shopify-hmac-sha256": signature,
        "x-shopify-shop-domain": "s.example",
        "x-shopify-topic": "orders/paid",
    }
    verify = Shopify(ANY).verifier(["k"]).verify
    assert verify(request(headers), NOW).delivery_id is None
    headers["x-shopify-webhook-id"] = "w"
    assert verify(request(headers), NOW).delivery_id == "s.example:orders/paid:w"
    headers["x-shopify-event-id"] = "e"
    assert verify(request(headers), NOW).delivery_id == "s.example:orders/paid:e"


@pytest.mark.parametrize(
    "options",
    [
        {"header": ""},
        {"header": "x", "message": "{timestamp}{body}"},
        {"header": "x", "message": "{timestamp}", "timestamp_header": "t"},
        {"header": "x", "message": "{tiemstamp}{body}"},
        {"header": "x", "timestamp_header": "t"},
        {"header": "x", "message": "{id}{body}"},
        {"header": "x", "algorithm": "md5"},
        {"header": "x", "encoding": "base32"},
    ],
)
def test_a_generic_scheme_that_cannot_be_right_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Hmac(ANY, **options)


def test_secret_of_the_wrong_shape_is_a_usage_error_without_the_secret() -> None:
    with pytest.raises(UsageError) as refused:
        StandardWebhooks(ANY).verifier(["whsec_not*base64"])
    assert "not*base64" not in str(refused.value)
    with pytest.raises(UsageError):
        Hmac(ANY, header="x", secret_encoding="hex").verifier(["xyz"])


def test_hubspot_needs_the_url() -> None:
    scheme = HubSpotV3(ANY)
    body, stamp = b"[]", "1700000000000"
    signature = scheme.sign(b"k", b"POSThttps://a.example/h" + body + stamp.encode())
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": stamp}
    given = SignedRequest.of("POST", "https://a.example/h", headers.items(), body)
    assert scheme.verifier(["k"]).verify(given, NOW).timestamp_s == NOW
    assert reason_of(scheme, "k", given._replace(url="http://127.0.0.1:8080/h")) is Reason.BAD_SIGNATURE


SIGNATURE_HEADERS = {name for scheme in SCHEMES.values() if scheme is not Hmac for name in scheme.signature_headers}
VENDOR_HEADERS = {name for scheme in SCHEMES.values() if scheme is not Hmac for name in scheme.kept_headers}
LATIN = st.characters(max_codepoint=255)
VALUES = st.one_of(
    st.text(LATIN, max_size=40),
    st.sampled_from(["v1,", "v0=", "sha256=", "t=1,v1=", "t=1700000000,v1=00,", "1700000000", "9" * 16, "", ",", " "]),
)


@settings(deadline=None)
@given(
    headers=st.dictionaries(st.sampled_from(sorted(SIGNATURE_HEADERS | VENDOR_HEADERS)), VALUES),
    body=st.binary(max_size=20),
)
@example(headers={"svix-signature": "v1,x"}, body=b"")
def test_nothing_that_a_stranger_sends_is_proven_or_breaks_a_scheme(headers: dict[str, str], body: bytes) -> None:
    for name, scheme in SCHEMES.items():
        rule = Hmac(ANY, header="x-hub-signature", separator=",") if name == "hmac" else scheme(ANY)
        with pytest.raises(SignatureError):
            rule.verifier(["c2VjcmV0"]).verify(request(headers, body), NOW)
