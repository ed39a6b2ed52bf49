"""The gateway as a real process before a real Kafka: what it accepts is in the raw topic, and nothing else is."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_process import DEALS, HUBSPOT, META, SLACK, XERO
from gateway_support import (
    NEW_SECRET,
    STANDARD_SECRET,
    TEXT_SECRET,
    Running,
    answer,
    gateway,
    header,
    ids,
    raw_request,
    replace,
    signature,
    standard,
    status_of,
    wait_for,
)

from heddle.errors import UsageError
from heddle.event import EVENT_HEADERS, Lineage, entity_key
from heddle.local import Stack
from heddle.settings import load_settings
from heddle.sources.gateway.server import listening

pytestmark = pytest.mark.stack

JSON = {"content-type": "application/json"}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(stack.bootstrap_servers, folder, gateway_base_url="https://hooks.example.com/") as running:
        yield running


@pytest.fixture(scope="module")
def tight(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Small limits, so that each can be reached."""
    limits: dict[str, object] = {
        "gateway_max_requests": 2,
        "gateway_max_body_bytes": 4096,
        "gateway_max_in_flight_bytes": 6000,
        "gateway_deadline_s": 1.0,
    }
    with gateway(stack.bootstrap_servers, tmp_path_factory.mktemp("tight"), **limits) as running:
        yield running


def fresh() -> str:
    return f"msg_{next(_numbers)}"


def found(running: Running, source: str, event_id: str) -> list[Any]:
    return [message for message in running.records(source) if header(message, "ce_id") == event_id]


# --- accepted -----------------------------------------------------------------------------------------------------


def test_an_accepted_delivery_is_in_the_raw_topic_byte_for_byte(served: Running) -> None:
    body, event_id = b'{ "deal" : {"id":"D 1"} }\r\n', fresh()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    more = {"X-Shop": "s1", "traceparent": trace, "authorization": "Bearer x", "cookie": "a=b", "x-other": "y"}
    response = served.deliver(event_id, body, **more)
    assert (response.status_code, response.content) == (200, b"")
    (message,) = found(served, DEALS, event_id)
    assert (message.value(), message.key()) == (body, entity_key("D 1"))
    names = sorted(name for name, _ in message.headers())
    kept = {"http-content-type", "http-webhook-id", "http-webhook-timestamp", "http-x-shop"}
    assert names == sorted(EVENT_HEADERS | kept)
    source = f"/sources/{served.prefix}-{DEALS}"
    assert (header(message, "ce_source"), header(message, "ce_type")) == (source, served.topic(DEALS))
    assert header(message, "traceparent") == trace
    lineage = Lineage.unpack((header(message, "heddle-lineage") or "").encode())
    assert lineage == Lineage("", (source, event_id))  # type: ignore[arg-type]
    assert "Bearer" not in str(message.headers())


def test_a_trace_begins_where_the_sender_has_none(served: Running) -> None:
    first, second = fresh(), fresh()
    for event_id in (first, second):
        served.deliver(event_id, b"{}", traceparent="00-" + "0" * 32 + "-" + "0" * 16 + "-01")
    traces = [header(found(served, DEALS, event_id)[0], "traceparent") for event_id in (first, second)]
    assert len(set(traces)) == 2
    assert all(trace is not None and len(trace) == 55 for trace in traces)


def test_a_delivery_sent_twice_has_one_identity(served: Running) -> None:
    event_id = fresh()
    assert [served.deliver(event_id, b'{"deal":{"id":"D2"}}').status_code for _ in range(2)] == [200, 200]
    first, second = found(served, DEALS, event_id)
    assert (first.key(), first.partition()) == (second.key(), second.partition())
    assert header(first, "heddle-lineage") == header(second, "heddle-lineage")


def test_a_body_of_the_allowed_size_and_one_without_json(served: Running) -> None:
    largest, event_id = b"x" * 2**20, fresh()
    assert served.deliver(event_id, largest).status_code == 200
    (message,) = found(served, DEALS, event_id)
    assert (message.value(), message.key()) == (largest, None)


def test_hubspot_signs_the_public_address(served: Running) -> None:
    body, stamp = b"[]", str(int(time.time() * 1000))
    signed = signature("hubspot-v3", b"POSThttps://hooks.example.com/hooks/hubspot?a=b:c" + body + stamp.encode())
    headers = {"x-hubspot-signature-v3": signed, "x-hubspot-request-timestamp": stamp}
    # Its entity function is broken on purpose: the signature was right, so the fault is ours, and told without content.
    assert served.post("/hooks/hubspot?a=b%3Ac", body, headers).status_code == 500
    assert served.post("/hooks/hubspot?a=b%26c", body, headers).status_code == 401
    fault = wait_for(lambda: [line for line in served.log() if line["event"] == "gateway.fault"])[0]
    assert fault["error"].startswith("TypeError at gateway_process.py:")
    assert served.records(HUBSPOT) == []


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/hooks/none", 404, None),
        ("POST", "/hooks/deals/", 404, None),
        ("GET", "/hooks/deals", 405, "POST"),
        ("PUT", "/hooks/deals", 405, "POST"),
        ("HEAD", "/hooks/deals", 405, "POST"),
        ("OPTIONS", "/hooks/meta", 405, "GET, POST"),
        ("POST", "/healthz", 405, "GET, HEAD"),
    ],
)
def test_wrong_path_or_method(served: Running, method: str, path: str, status: int, allow: str | None) -> None:
    response = httpx2.request(method, served.url + path, content=b"{}" if method in ("POST", "PUT") else None)
    assert (response.status_code, response.headers.get("allow"), response.content) == (status, allow, b"")


@pytest.mark.parametrize(
    ("reason", "headers"),
    [
        ("bad-signature", lambda body: standard("m", body + b"x")),
        ("bad-signature", lambda body: standard("m", body, key="whsec_b3RoZXI=")),
        ("too-old", lambda body: standard("m", body, at=time.time() - 310)),
        ("too-new", lambda body: standard("m", body, at=time.time() + 310)),
        ("missing-header", lambda _: JSON),
        ("malformed-header", lambda body: standard("m", body) | {"webhook-timestamp": "now"}),
        ("unsupported-version", lambda body: standard("m", body) | {"webhook-signature": "v2,x"}),
    ],
)
def test_a_delivery_that_proves_nothing_is_refused_and_not_kept(served: Running, reason: str, headers: Any) -> None:
    body = b'{"deal":{"id":"nobody"}}'
    before = served.status()["refused"].get(reason, 0)
    response = served.post("/hooks/deals", body, headers(body))
    assert (response.status_code, response.content) == (401, b"")
    assert served.status()["refused"][reason] == before + 1
    assert entity_key("nobody") not in {message.key() for message in served.records(DEALS)}


def test_content_type_and_encoding(served: Running) -> None:
    body = b"{}"
    signed = {"x-xero-signature": signature("xero", body)}
    assert served.post("/hooks/xero", body, signed | {"content-type": "text/plain"}).status_code == 415
    encoded = served.deliver(fresh(), body, **{"content-encoding": "gzip"})
    assert (encoded.status_code, encoded.headers["accept-encoding"]) == (415, "identity")


def test_a_flood_of_bad_signatures_is_counted_in_few_lines(served: Running) -> None:
    body = b'{"card":"4242424242424242"}'
    before = sum(line["event"] == "gateway.deliveries" for line in served.log())
    with httpx2.Client(base_url=served.url) as client:
        started = time.monotonic()
        for _ in range(200):
            client.post("/hooks/deals", content=body, headers=standard("m", b"other"))
        seconds = time.monotonic() - started
    name = f"{served.prefix}-{DEALS} bad-signature"

    def counted() -> bool:
        return sum(line["refused"].get(name, 0) for line in served.log() if "refused" in line) >= 200

    wait_for(counted)
    lines = [line for line in served.log() if line["event"] == "gateway.deliveries"]
    assert len(lines) - before <= seconds + 2
    written = served.log_file.read_text(encoding="utf-8")
    for hidden in ("4242", STANDARD_SECRET[6:], TEXT_SECRET, "webhook-signature"):
        assert hidden not in written


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_body_too_large_by_its_length_or_while_it_streams(tight: Running) -> None:
    body = b"x" * 5000
    with httpx2.Client(base_url=tight.url) as client:
        for content in (body, (body[n : n + 1000] for n in range(0, 5000, 1000))):
            response = client.post("/hooks/deals", content=content, headers=standard(fresh(), body))
            assert (response.status_code, response.content) == (413, b"")
        # The connection is still good.
        small, event_id = b"{}", fresh()
        assert client.post("/hooks/deals", content=small, headers=standard(event_id, small)).status_code == 200


def test_an_upload_that_goes_on_after_its_answer_ends(tight: Running) -> None:
    with tight.connect() as connection:
        connection.sendall(raw_request(fresh(), b"x" * 5000, b""))
        assert answer(connection)[0] == 413
        connection.sendall(b"x" * 100)
        assert connection.recv(1) == b""  # closed although it still sends


def test_a_head_too_large(tight: Running) -> None:
    for filler in (b"x: " + b"y" * 40_000 + b"\r\n", b"".join(b"h%d: v\r\n" % n for n in range(6_000))):
        with tight.connect() as connection:
            connection.sendall(b"POST /hooks/deals HTTP/1.1\r\nhost: h\r\n" + filler + b"\r\n")
            assert answer(connection)[0] == 431


def test_what_is_not_http(tight: Running) -> None:
    with tight.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert answer(connection)[0] == 400


@pytest.mark.parametrize("sent", ["nothing", "half a head", "half a body"])
def test_a_slow_client(tight: Running, sent: str) -> None:
    body = b"y" * 100
    request = raw_request(fresh(), body)
    part = {"nothing": b"", "half a head": request[:40], "half a body": request[:-50]}[sent]
    with tight.connect() as connection:
        started = time.monotonic()
        connection.sendall(part)
        status, head = answer(connection)
        assert (status, "connection: close" in head) == (408, True)
        assert 0.9 < time.monotonic() - started < 10


def test_too_many_requests_at_once(tight: Running) -> None:
    body = b"{}"
    with tight.connect() as one, tight.connect() as two:
        for connection in (one, two):
            connection.sendall(raw_request(fresh(), body, b""))
        wait_for(lambda: tight.status()["in_flight"]["requests"] == 2)
        third = tight.deliver(fresh(), body)
        assert (third.status_code, third.headers["retry-after"]) == (503, "5")
        for connection in (one, two):
            connection.sendall(body)
            assert answer(connection)[0] == 200
    assert tight.deliver(fresh(), body).status_code == 200
    assert tight.status()["in_flight"] == {"requests": 0, "bytes": 0}


def test_too_many_bytes_in_flight(tight: Running) -> None:
    body = b"z" * 4000
    with tight.connect() as one:
        one.sendall(raw_request(fresh(), body, body[:3500]))
        wait_for(lambda: tight.status()["in_flight"]["bytes"] == 3500)
        second = tight.deliver(fresh(), body)
        assert (second.status_code, second.headers["retry-after"]) == (503, "5")
        one.sendall(body[3500:])
        assert answer(one)[0] == 200
    assert tight.status()["in_flight"] == {"requests": 0, "bytes": 0}


def test_too_many_connections(tight: Running) -> None:
    with contextlib.ExitStack() as opened:
        refused = None
        for _ in range(40):  # four for each of two requests are allowed
            connection = opened.enter_context(tight.connect())
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                refused = answer(connection)
                break
        assert refused is not None
        assert (refused[0], "retry-after" in refused[1]) == (503, True)
    wait_for(lambda: httpx2.get(tight.url + "/healthz").status_code == 200)


def test_without_a_base_url_the_host_header_counts(tight: Running) -> None:
    body, stamp = b"[]", str(int(time.time() * 1000))
    signed = signature("hubspot-v3", f"POST{tight.url}/hooks/hubspot".encode() + body + stamp.encode())
    headers = {"x-hubspot-signature-v3": signed, "x-hubspot-request-timestamp": stamp}
    assert tight.post("/hooks/hubspot", body, headers).status_code == 500  # proven; its entity function is broken


# --- handshakes ---------------------------------------------------------------------------------------------------


def test_slack_url_verification(served: Running) -> None:
    body, stamp = b'{"type":"url_verification","challenge":"c-1"}', str(int(time.time()))
    signed = "v0=" + signature("slack", b"v0:" + stamp.encode() + b":" + body)
    headers = JSON | {"x-slack-request-timestamp": stamp, "x-slack-signature": signed}
    response = served.post("/hooks/slack", body, headers)
    assert (response.status_code, response.text, response.headers["x-content-type-options"]) == (200, "c-1", "nosniff")
    assert served.post("/hooks/slack", body, headers | {"x-slack-signature": "v0=00"}).status_code == 401
    assert served.records(SLACK) == []


def test_xero_intent_to_receive(served: Running) -> None:
    body = b'{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}'
    for signed, status in ((signature("xero", body), 200), (signature("xero", b"other"), 401), ("", 401)):
        response = served.post("/hooks/xero", body, JSON | {"x-xero-signature": signed})
        assert (response.status_code, response.content) == (status, b"")
        assert "set-cookie" not in response.headers
    assert len(served.records(XERO)) == 1


def test_challenge_in_the_query(served: Running) -> None:
    def ask(**query: str) -> httpx2.Response:
        return httpx2.get(served.url + "/hooks/meta", params=query)

    good = ask(**{"hub.challenge": "1158201444", "hub.verify_token": "meta-token"})
    assert (good.status_code, good.text) == (200, "1158201444")
    assert ask(**{"hub.challenge": "1", "hub.verify_token": "guess"}).status_code == 401
    assert ask(**{"hub.mode": "subscribe"}).status_code == 405
    assert served.records(META) == []


# --- the process --------------------------------------------------------------------------------------------------


def test_health_and_status(served: Running) -> None:
    assert [httpx2.get(served.url + path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    status = served.status()
    assert status["ready"] is True
    assert set(status) >= {"accepted", "refused", "sources", "in_flight", "uptime_s"}
    # Behind a proxy on this machine everyone would look local.
    assert httpx2.get(served.url + "/statusz", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 404


def events(running: Running, name: str) -> list[dict[str, Any]]:
    return [line for line in running.log() if line["event"] == name]


def test_secrets_are_renewed_while_it_serves(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path, gateway_renew_s=0.05) as running:
        file = running.secrets / "standard"
        replace(file, f"{NEW_SECRET}\n{STANDARD_SECRET}\n")
        wait_for(lambda: status_of(running, NEW_SECRET) == 200)
        assert status_of(running, STANDARD_SECRET) == 200
        replace(file, f"{NEW_SECRET}\n")
        wait_for(lambda: status_of(running, STANDARD_SECRET) == 401)
        replace(file, "whsec_&hunter22&\n")
        kept = wait_for(lambda: events(running, "gateway.secrets_kept"))
        assert status_of(running, NEW_SECRET) == 200
        assert "hunter22" not in str(kept)
        file.unlink()
        wait_for(lambda: status_of(running, NEW_SECRET) == 503)
        assert events(running, "gateway.source_closed")[0]["source"] == running.topic(DEALS).removesuffix(".raw")
        stamp = str(int(time.time()))
        proof = "v0=" + signature("slack", f"v0:{stamp}:{{}}".encode())
        slack = {"x-slack-request-timestamp": stamp, "x-slack-signature": proof}
        assert running.post("/hooks/slack", b"{}", JSON | slack).status_code == 200, "of no concern to other sources"
        replace(file, f"{NEW_SECRET}\n")
        wait_for(lambda: status_of(running, NEW_SECRET) == 200)


def test_on_sighup_secrets_are_renewed_at_once(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path, gateway_renew_s=3600) as running:
        (running.secrets / "standard").write_text(f"{NEW_SECRET}\n", encoding="utf-8")
        assert (status_of(running, STANDARD_SECRET), status_of(running, NEW_SECRET)) == (200, 401)
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: status_of(running, NEW_SECRET) == 200)
        assert status_of(running, STANDARD_SECRET) == 401


def test_sigterm_answers_what_is_in_flight_and_ends_with_0(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path) as running:
        event_id, body = fresh(), b'{"deal":{"id":"last"}}'
        with running.connect() as connection:
            connection.sendall(raw_request(event_id, body, body[:5]))
            wait_for(lambda: running.status()["in_flight"]["requests"] == 1)
            running.process.terminate()
            wait_for(lambda: _refuses(running))
            connection.sendall(body[5:])
            assert answer(connection)[0] == 200
        assert running.process.wait(20) == 0
        assert not (tmp_path / "gateway.json").exists()
        assert ids(running.records(DEALS)) == [event_id]
        accepted = [line["accepted"] for line in running.log() if line["event"] == "gateway.deliveries"]
        assert sum(sum(counts.values()) for counts in accepted) == 1


def _refuses(running: Running) -> bool:
    try:
        running.connect().close()
    except OSError:
        return True
    return False


def test_a_taken_port_is_told(served: Running, stack: Stack, tmp_path: Path) -> None:
    port = served.address[1]
    with (
        pytest.raises(UsageError, match=f"127.0.0.1:{port}: the port is taken"),
        listening(load_settings(gateway_port=port)),
    ):
        pass


def test_the_address_is_written(served: Running) -> None:
    state = json.loads((served.log_file.parent / "gateway.json").read_text(encoding="utf-8"))
    assert state == {"url": served.url, "pid": served.process.pid}
