"""What a webhook source declares, what a delivery shows, and how a raw record keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from heddle.broker.log import Record
from heddle.errors import ContractError, FailureClass, UsageError
from heddle.event import Draft, Identity, entity_key, parse_headers
from heddle.secrets import secret
from heddle.sources.delivery import MAX_JSON_DEPTH, Delivery, Header, MalformedJsonError, text_at
from heddle.sources.gateway.responses import Refusal
from heddle.sources.gateway.routes import Route, load_routes, trace_of
from heddle.sources.handshakes import ChallengeError, EchoBody, EchoQuery
from heddle.sources.raw import body_id
from heddle.sources.signatures import GitHub, Hmac, SignedRequest, Slack, Stripe, Verified
from heddle.sources.webhook import WebhookSource

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
UNKNOWN = Verified(None, None)
SIGNATURE = Hmac(secret("test/webhook"), header="x-signature")


@pytest.fixture(autouse=True)
def _live_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_TEST_WEBHOOK", "k")


def delivery(body: bytes, **headers: str) -> Delivery:
    return Delivery(body, headers, NOW, "s", "d-1")


def ids_of(given: Delivery) -> Iterator[Draft[dict[str, Any]]]:
    for event in given.json()["events"]:
        yield Draft(event, id=event["id"], time=given.received_at)


def webhook(**changes: Any) -> WebhookSource:
    declared: dict[str, Any] = {
        "path": "/hooks/s",
        "signature": SIGNATURE,
        "emits": dict,
        "convert": ids_of,
        "owner": "tests",
    }
    return WebhookSource("s", **(declared | changes))


def raw_of(source: WebhookSource, body: bytes, verified: Verified = UNKNOWN, **headers: str) -> Record:
    request = SignedRequest.of("POST", "", headers.items(), body)
    out = Route.load(source).record(request, verified, NOW.timestamp())
    return Record(out.topic, 0, 7, out.key, out.value, list(out.headers), 0)


def parsed(record: Record) -> Any:
    return parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)


# --- deliveries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"nil", b"\xff", b'{"a":NaN}', b"[" * 2000])
def test_malformed_json_is_a_contract_failure_without_content(body: bytes) -> None:
    with pytest.raises(MalformedJsonError) as refused:
        delivery(body).json()
    assert (refused.value.code, refused.value.failure_class) == ("malformed-json", FailureClass.CONTRACT)


def test_depth_is_bounded() -> None:
    deepest = b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH
    assert delivery(deepest).json() is not None
    with pytest.raises(MalformedJsonError, match="nests deeper"):
        delivery(b"[" + deepest + b"]").json()
    wide = json.dumps([{"a": [1]}] * 500).encode()
    assert len(delivery(wide).json()) == 500


def test_json_is_parsed_once() -> None:
    given = delivery(b'{"a":[1]}')
    assert given.json() is given.json()


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("id", "7"),
        ("data.object.id", "x"),
        ("events.1.id", "b"),
        ("events.9.id", None),
        ("missing.id", None),
        ("id.deeper", None),
        ("flag", None),
        ("empty", None),
        ("price", None),
        (Header("X-Id"), "h"),
        (Header("X-Other"), None),
        (lambda given: given.headers["x-id"].upper(), "H"),
    ],
)
def test_where_an_id_stands(where: Any, found: str | None) -> None:
    body = {"id": 7, "data": {"object": {"id": "x"}}, "events": [{"id": "a"}, {"id": "b"}]}
    body |= {"flag": True, "empty": "", "price": 1.5}
    assert text_at(delivery(json.dumps(body).encode(), **{"x-id": "h"}), where) == found


def test_no_id_in_what_is_not_json() -> None:
    assert text_at(delivery(b"a=b"), "id") is None


# --- declarations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "hooks"},
        {"path": "/hooks/"},
        {"path": "/hooks?x=1"},
        {"path": "/a%2fb"},
        {"path": "/healthz"},
        {"keep_headers": ("Authorization",)},
        {"keep_headers": ("cookie",)},
        {"keep_headers": ("X-Signature",)},
        {"delivery_id": Header("x-signature")},
        {"signature": GitHub(secret("test/webhook")), "keep_headers": ("X-Hub-Signature",)},
    ],
)
def test_a_declaration_that_cannot_be_right(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        webhook(**changes)


def test_two_sources_on_one_path() -> None:
    with pytest.raises(UsageError, match="both claim /hooks/s"):
        load_routes(
            [webhook(), WebhookSource("t", path="/hooks/s", signature=SIGNATURE, emits=dict, convert=ids_of, owner="x")]
        )


def test_a_secret_without_value_is_told_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEDDLE_SECRET_TEST_WEBHOOK")
    with pytest.raises(UsageError, match="test/webhook"):
        load_routes([webhook()])


# --- raw records --------------------------------------------------------------------------------------------------


def test_raw_record_keeps_bytes_key_and_allowed_headers() -> None:
    source = webhook(entity="events.0.id", tenant="emea/1", delivery_id=Header("X-Id"), keep_headers=("X-Shop",))
    body = b'{ "events": [ {"id": "a b"} ] }\n'
    record = raw_of(
        source,
        body,
        **{"X-Id": "v-9", "X-Shop": "Zoë", "X-Other": "no", "authorization": "no", "x-signature": "no"},
    )
    assert (record.topic, record.key, record.value) == ("s.raw", entity_key("a b", "emea/1"), body)
    names = [name for name, _ in record.headers if name.startswith("http-")]
    assert names == ["http-x-id", "http-x-shop"]
    found = parsed(record)
    assert found.identity == Identity("/sources/s", "v-9")
    assert found.lineage.root == found.identity
    headers = dict(record.headers)
    assert headers["ce_type"] == b"s.raw"
    assert headers["ce_time"] == b"2026-03-01T12:00:00.250000Z"
    assert headers["ce_specversion"] == b"1.0"


def test_convert_record_sees_the_delivery_again() -> None:
    seen: list[Delivery] = []
    source = webhook(convert=lambda given: seen.append(given) or ids_of(given), keep_headers=("X-Shop",))  # type: ignore[func-returns-value]
    record = raw_of(source, b'{"events":[{"id":"a"},{"id":"b"}]}', Verified(1.0, "msg_1"), **{"x-shop": "Zoë"})
    assert [draft.id for draft in source.convert_record(record)] == ["a", "b"]
    assert seen[0] == Delivery(record.value or b"", {"x-shop": "Zoë"}, NOW, "s", "msg_1")


def test_the_same_body_is_the_same_delivery_where_the_vendor_has_no_id() -> None:
    first, again = raw_of(webhook(), b"{}"), raw_of(webhook(), b"{}")
    assert parsed(first).identity == parsed(again).identity == Identity("/sources/s", body_id("s", b"{}"))
    assert parsed(raw_of(webhook(), b"{ }")).identity != parsed(first).identity


@pytest.mark.parametrize("vendor_id", ["", "a\nb", "x" * 256])
def test_a_vendor_id_that_cannot_serve_is_replaced_by_the_hash(vendor_id: str) -> None:
    assert parsed(raw_of(webhook(), b"{}", Verified(None, vendor_id))).identity.id == body_id("s", b"{}")


def test_vendor_ids_of_the_schemes() -> None:
    stripe = webhook(signature=Stripe(secret("test/webhook")))
    assert parsed(raw_of(stripe, b'{"id":"evt_1"}')).identity.id == "evt_1"
    assert parsed(raw_of(stripe, b"no json")).identity.id == body_id("s", b"no json")
    github = webhook(signature=GitHub(secret("test/webhook")))
    record = raw_of(
        github, b"{}", Verified(None, "guid"), **{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=x"}
    )
    assert parsed(record).identity.id == "guid"
    assert ("http-x-github-event", b"push") in record.headers
    assert "http-x-hub-signature-256" not in dict(record.headers)


def test_an_entity_that_is_not_there_gives_no_key() -> None:
    assert raw_of(webhook(entity="deal.id"), b'{"deal":{}}').key is None
    assert raw_of(webhook(entity="deal.id"), b"not json").key is None


def test_a_tombstone_in_a_raw_topic_is_a_contract_failure() -> None:
    with pytest.raises(ContractError):
        webhook().convert_record(Record("s.raw", 0, 0, None, None, [], 0))


# --- trace, handshakes, refusals ----------------------------------------------------------------------------------


def test_trace_context_is_continued_or_begun() -> None:
    valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_of({"traceparent": valid}) == valid.encode()
    for other in ("", "00-" + "0" * 32 + "-b7ad6b7169203331-01", valid.upper(), valid + "-x", "ÿ"):
        begun = trace_of({"traceparent": other})
        assert begun != other.encode()
        assert parse_headers([("traceparent", begun)], "t", 0, 0, 0).traceparent == begun


def test_slack_challenge_is_echoed_and_nothing_else() -> None:
    handshake = webhook(signature=Slack(secret("test/webhook"))).handshake
    assert isinstance(handshake, EchoBody)
    assert handshake.answer(b'{"type":"url_verification","challenge":"c1"}') == ("text/plain; charset=utf-8", b"c1")
    for body in (b'{"type":"event_callback","challenge":"c1"}', b"challenge=1", b'["challenge"]', b"{}"):
        assert handshake.answer(body) is None
    with pytest.raises(ChallengeError):
        handshake.answer(b'{"type":"url_verification","challenge":"%s"}' % (b"x" * 1025))
    assert EchoBody("challenge", as_json=True).answer(b'{"challenge":"c1"}') == (
        "application/json",
        b'{"challenge":"c1"}',
    )


def test_query_challenge_needs_its_token() -> None:
    handshake = EchoQuery("hub.challenge", token=secret("test/webhook"), token_parameter="hub.verify_token")
    assert handshake.answer("hub.challenge=c%201&hub.verify_token=k", ("old", "k")) == (
        "text/plain; charset=utf-8",
        b"c 1",
    )
    assert handshake.answer("hub.mode=subscribe", ("k",)) is None
    for query in ("hub.challenge=c", "hub.challenge=c&hub.verify_token=x", "&".join(f"a{n}=1" for n in range(99))):
        with pytest.raises(ChallengeError):
            handshake.answer(query, ("k",))


def test_content_rules() -> None:
    route = Route.load(webhook(content_types=("application/json",)))
    route.check_content({"content-type": "Application/JSON; charset=utf-8"})
    for headers in ({}, {"content-type": "text/xml"}, {"content-type": "application/json", "content-encoding": "gzip"}):
        with pytest.raises(Refusal) as refused:
            route.check_content(headers)
        assert refused.value.response.status == 415
