"""The HTTP sink's writer against a real server with faults: what each answer, and each lack of one, comes to."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from http_sink_harness import apply, events, key_of, opened, sink_of
from http_target import NONE, Fault, Seen, Target
from sql_sink_harness import APPLIED, RECOVERED, delivered, entry

from heddle import (
    Basic,
    Bearer,
    ClientCertificate,
    ClientCredentials,
    Deadlines,
    Endpoint,
    HttpCall,
    IdempotencyKey,
    LookUp,
    OnFailure,
    secret,
)
from heddle.delivery.classify import is_unknown_effect, retry_after_s, target_of
from heddle.errors import AuthError, Failure, FailureClass, UsageError
from heddle.sinks.http.answer import LONGEST_PAUSE_S
from heddle.testing.clock import CallsOnManualClock, ManualClock
from schemas.ledger import Entry


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.stop()


def once(fault: Fault) -> Any:
    """That fault for the first request, none for the others."""
    faults = iter([fault])
    return lambda _: next(faults, NONE)


def only(failures: list[Failure]) -> Failure:
    (failure,) = failures
    return failure


# The call


def test_method_path_body_and_headers_are_as_declared(target: Target) -> None:
    event = delivered(entry("a/b ü"), 0)
    call = Endpoint("PUT", "/v1/entries/{entry_id}/{kind}?by={source_id}", body=lambda e: {"id": e.entry_id})
    with opened(
        target, call=call, idempotency=IdempotencyKey(header="X-Request-Key"), headers={"X-Api": "2"}
    ) as writer:
        assert apply(writer, event) == ([APPLIED], [])
    (seen,) = target.seen
    assert (seen.method, seen.path) == ("PUT", "/v1/entries/a%2Fb%20%C3%BC/INVOICE?by=source-a%2Fb%20%C3%BC")
    assert seen.json == {"id": "a/b ü"}
    assert seen.headers["x-request-key"] == key_of(event)
    assert (seen.headers["x-api"], seen.headers["content-type"]) == ("2", "application/json")
    assert seen.headers["host"] == target.url.removeprefix("http://")


def test_without_a_body_of_its_own_the_whole_value_is_sent(target: Target) -> None:
    with opened(target, call=Endpoint("POST", "/v1/entries")) as writer:
        apply(writer, delivered(entry("a"), 0))
    sent = target.seen[0].json
    assert (sent["entry_id"], sent["booked_at"]) == ("a", "2026-01-01T00:00:00Z")
    assert sent["lines"][0] == {"account": "cash", "debit": "1.00", "credit": "0.00"}


def test_a_function_chooses_the_call_or_none(target: Target) -> None:
    def call(entry: Entry) -> HttpCall | None:
        return None if entry.entry_id == "b" else HttpCall("DELETE", f"/v1/entries/{entry.entry_id}")

    with opened(target, call=call) as writer:
        assert apply(writer, *events("a", "b"))[0] == [APPLIED, APPLIED]
    assert [(seen.method, seen.path, seen.body) for seen in target.seen] == [("DELETE", "/v1/entries/a", b"")]


@pytest.mark.parametrize("dots", ["..", ".", ""])
def test_a_field_that_would_name_another_place_fails_its_record(target: Target, dots: str) -> None:
    with opened(target, call=Endpoint("POST", "/v1/customers/{entry_id}/entries")) as writer:
        applied, failures = apply(writer, delivered(entry(dots), 0, key="k"), delivered(entry("b"), 1))
    assert applied == [None, APPLIED]
    assert (only(failures).failure_class, only(failures).path) == (FailureClass.CONTRACT, "entry_id")
    assert len(target.seen) == 1


def test_what_a_function_raises_is_that_records_failure(target: Target) -> None:
    def broken(entry: Entry) -> HttpCall:
        raise KeyError(entry.entry_id)

    with opened(target, call=broken) as writer:
        assert only(apply(writer, *events("a"))[1]).failure_class is FailureClass.UNKNOWN


@pytest.mark.parametrize(
    "call",
    [HttpCall("POST", "/", headers={"X-Name": "of-a\nperson"}), HttpCall("PO ST", "/")],
    ids=["header", "method"],
)
def test_what_http_cannot_hold_is_that_records_failure_and_not_the_targets(target: Target, call: HttpCall) -> None:
    plain = HttpCall("POST", "/")
    with opened(target, call=lambda e: call if e.entry_id == "a" else plain) as writer:
        applied, failures = apply(writer, *events("a", "b"))
    failure = only(failures)
    assert (failure.index, failure.failure_class, failure.code) == (0, FailureClass.POISON, "local-protocol-error")
    assert "person" not in failure.message
    assert applied == [None, APPLIED]


# Answers


def test_a_refused_record_keeps_what_the_target_says_without_secrets(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(secret("billing/token").environment_name, "token-of-the-test")
    body = b'{"error":\n"amount is negative", "sent": "token-of-the-test"}' + b"x" * 5_000
    target.fault = lambda seen: Fault(status=422, body=body) if b'"a"' in seen.body else NONE
    with opened(target, auth=Bearer(secret("billing/token"))) as writer:
        applied, failures = apply(writer, *events("a", "b", "a"))
    assert applied == [None, APPLIED, None]
    failure = only(failures)
    assert (failure.index, failure.failure_class, failure.code) == (0, FailureClass.POISON, "http-422")
    assert ' from 127.0.0.1, to POST: {"error": "amount is negative", "sent": "***"}xxx' in failure.message
    assert len(failure.message) < 800
    assert len(target.seen) == 2


def test_a_conflict_is_a_success_where_the_api_says_so(target: Target) -> None:
    target.fault = lambda _: Fault(status=409)
    with opened(target, already={409}) as writer:
        assert apply(writer, *events("a")) == ([RECOVERED], [])
    with opened(target) as writer:
        assert only(apply(writer, *events("a"))[1]).code == "http-409"


def test_a_redirect_is_not_followed(target: Target) -> None:
    other = Target()
    target.fault = lambda _: Fault(status=307, headers={"Location": other.url + "/v1/entries"})
    with opened(target) as writer:
        failure = only(apply(writer, *events("a"))[1])
    other.stop()
    assert (failure.code, failure.failure_class, other.seen) == ("http-307", FailureClass.POISON, [])


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_heard_in_both_forms_and_begins_nothing_more(target: Target, status: int, form: str) -> None:
    after = "40" if form == "seconds" else formatdate(time.time() + 40, usegmt=True)
    target.fault = lambda _: Fault(status=status, headers={"Retry-After": after})
    with opened(target, concurrency=1) as writer:
        applied, failures = apply(writer, *events("a", "b", "c"))
    assert applied == [None, None, None]
    assert only(failures).failure_class is FailureClass.RATE_LIMIT
    assert 37 < (retry_after_s(only(failures)) or 0) <= 41
    assert len(target.seen) == 1


def test_a_target_that_asks_for_a_month_is_asked_again_within_a_week(target: Target) -> None:
    target.fault = lambda _: Fault(status=429, headers={"Retry-After": str(30 * 86_400)})
    with opened(target) as writer:
        assert retry_after_s(only(apply(writer, *events("a"))[1])) == LONGEST_PAUSE_S


@pytest.mark.parametrize("status", [408, 425])
def test_a_request_that_came_too_late_or_too_early_is_tried_again(target: Target, status: int) -> None:
    target.fault = lambda _: Fault(status=status)
    with opened(target) as writer:
        assert only(apply(writer, *events("a"))[1]).failure_class is FailureClass.TRANSIENT
    assert len(target.seen) == 2


def test_a_moments_pause_is_waited_for_by_all_calls_within_the_batch(target: Target) -> None:
    times: list[float] = []
    target.before = lambda _: times.append(time.monotonic())
    # The second is under way until after the pause is heard of.
    faults = iter([Fault(status=429, headers={"Retry-After": "1"}), Fault(delay_s=0.4)])
    target.fault = lambda _: next(faults, Fault())
    with opened(target, concurrency=2) as writer:
        assert apply(writer, *events(*"abcdef")) == ([APPLIED] * 6, [])
    assert len(target.seen) == 7
    assert sum(later - times[0] > 0.95 for later in times) >= 5  # all but the first two, which were under way


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=503), Fault(reset=True), Fault(cut=True)],
    ids=["500", "503", "reset", "cut"],
)
def test_what_a_moment_mends_is_sent_again_with_the_same_key(target: Target, fault: Fault) -> None:
    (event,) = events("a")
    target.fault = once(fault)
    with opened(target) as writer:
        applied, failures = apply(writer, event)
    assert (applied, failures) == ([RECOVERED if fault.cut else APPLIED], [])
    assert [seen.headers["idempotency-key"] for seen in target.seen] == [key_of(event)] * 2
    assert len(target.effects) == 1


def test_an_answer_that_comes_too_late_is_worth_a_later_try(target: Target) -> None:
    target.fault = once(Fault(delay_s=30))
    with opened(target) as writer:
        failure = only(apply(writer, *events("a"))[1])
        assert (failure.failure_class, failure.code) == (FailureClass.TRANSIENT, "read-timeout")
        assert target_of(failure) == "127.0.0.1"
        assert apply(writer, *events("a")) == ([RECOVERED], [])
    assert len(target.effects) == 1


def test_a_body_that_trickles_does_not_hide_the_effect_that_its_status_told(target: Target) -> None:
    target.fault = once(Fault(trickle_s=0.5))
    began = time.monotonic()
    with opened(target) as writer:
        assert apply(writer, *events("a")) == ([APPLIED], [])
    assert time.monotonic() - began < 5


def test_a_target_that_is_not_there_is_a_dependency_down(target: Target) -> None:
    target.stop()
    with opened(target, concurrency=1) as writer:
        applied, failures = apply(writer, *events("a", "b"))
        assert applied == [None, None]
        assert (only(failures).index, only(failures).failure_class) == (0, FailureClass.DEPENDENCY_DOWN)
        target.start()
        assert apply(writer, *events("a", "b"))[0] == [APPLIED, APPLIED]


def test_a_streak_of_failures_ends_the_batch(target: Target) -> None:
    target.fault = lambda _: Fault(status=500)
    with opened(target, concurrency=4) as writer:
        applied, failures = apply(writer, *events(*map(str, range(200))))
    assert {failure.failure_class for failure in failures} == {FailureClass.TRANSIENT}
    assert 10 <= len(failures) <= 14
    assert applied == [None] * 200


# What is not known


def tried(name: str, ago: timedelta) -> Any:
    """An entry whose last try ended without an answer, and which failed first so long ago."""
    since_ms = int((time.time() - ago.total_seconds()) * 1000)
    return delivered(entry(name), 0)._replace(tried_since_ms=since_ms)


def test_within_the_window_a_try_without_answer_is_repeated(target: Target) -> None:
    with opened(target) as writer:
        assert apply(writer, tried("a", timedelta(hours=23)))[0] == [APPLIED]


def test_past_the_window_it_is_unknown_and_nothing_is_sent(target: Target) -> None:
    with opened(target) as writer:
        failure = only(apply(writer, tried("a", timedelta(hours=25)))[1])
    assert is_unknown_effect(failure)
    assert target.seen == []


def test_an_outage_that_outlasts_the_window_leaves_unknown_what_was_sent_before_it(target: Target) -> None:
    """Nothing was parked: the same writer is given the same live record again."""
    target.fault = once(Fault(delay_s=30))
    clock = ManualClock()
    sink = sink_of(target.url)
    sink.clock = CallsOnManualClock(clock)
    with closing(sink.open()) as writer:
        assert only(apply(writer, *events("a"))[1]).code == "read-timeout"
        clock.move_to(clock.now + timedelta(hours=25))
        applied, failures = apply(writer, *events("a", "b"))
        assert applied == [None, APPLIED]
        assert is_unknown_effect(only(failures))
        assert len(target.effects) == 2
        (event,) = events("a")  # parked as unknown, and settled as not applied since
        assert apply(writer, event._replace(tried_since_ms=0))[1] == []


@pytest.mark.parametrize("then", [Fault(status=429, headers={"Retry-After": "60"}), Fault(status=401)], ids=str)
def test_a_refusal_behind_a_lost_answer_does_not_hide_it(target: Target, then: Fault) -> None:
    """Both within one attempt: what was sent first may have taken effect."""
    faults = iter([Fault(cut=True), then])
    target.fault = lambda _: next(faults, NONE)
    clock = ManualClock()
    sink = sink_of(target.url)
    sink.clock = CallsOnManualClock(clock)
    with closing(sink.open()) as writer:
        assert only(apply(writer, *events("a"))[1]).code == f"http-{then.status}"
        clock.move_to(clock.now + timedelta(hours=25))
        assert is_unknown_effect(only(apply(writer, *events("a"))[1]))
    assert len(target.effects) == 1


@pytest.mark.parametrize("has_it", [True, False])
def test_past_the_window_it_is_looked_up_where_that_is_declared(target: Target, has_it: bool) -> None:
    target.answer = lambda seen: (200, {}, b'{"n": %d}' % has_it) if seen.method == "GET" else None
    look_up = LookUp("/v1/entries?id={entry_id}", found=lambda answer: answer["n"] == 1)
    with opened(target, look_up=look_up) as writer:
        answer = apply(writer, tried("a", timedelta(hours=25)))
    assert answer == ([RECOVERED if has_it else APPLIED], [])
    assert [seen.method for seen in target.seen] == (["GET"] if has_it else ["GET", "POST"])


def test_without_a_key_everything_is_looked_up_first(target: Target) -> None:
    held = {"a"}
    target.answer = lambda seen: (
        (200 if seen.path.rpartition("/")[2] in held else 404, {}, b"{}") if seen.method == "GET" else None
    )
    with opened(target, idempotency=None, look_up=LookUp("/v1/entries/{entry_id}")) as writer:
        assert apply(writer, *events("a", "b")) == ([RECOVERED, APPLIED], [])
        target.fault = lambda seen: Fault(cut=True) if seen.method == "POST" else NONE
        failure = only(apply(writer, *events("c"))[1])
    assert failure.failure_class is FailureClass.TRANSIENT
    assert [each.json["entry"] for each in target.effects] == ["b", "c"]


def test_any_success_of_a_look_up_says_yes_where_nothing_reads_its_answer(target: Target) -> None:
    target.answer = lambda seen: (200, {}, b"<entry/>") if seen.method == "GET" else None
    with opened(target, idempotency=None, look_up=LookUp("/v1/entries/{entry_id}")) as writer:
        assert apply(writer, *events("a")) == ([RECOVERED], [])


def test_a_look_up_whose_answer_broke_off_is_asked_again(target: Target) -> None:
    """It says nothing of the record, and a person could find out no more than the next try."""
    target.answer = lambda seen: (200, {}, b'{"n": 1, "more": "%s"}' % (b"x" * 64)) if seen.method == "GET" else None
    target.fault = once(Fault(trickle_s=1.0))
    look_up = LookUp("/v1/entries/{entry_id}", found=lambda answer: answer["n"] == 1)
    with opened(target, idempotency=None, look_up=look_up) as writer:
        failure = only(apply(writer, *events("a"))[1])
        assert (failure.failure_class, failure.code) == (FailureClass.TRANSIENT, "answer-cut")
        assert apply(writer, *events("a")) == ([RECOVERED], [])


def test_a_call_follows_its_look_up_only_while_the_partition_is_ours(target: Target) -> None:
    """Frozen meanwhile, a successor may have looked and sent. A target that is slow each time is waited for."""
    asked: list[Seen] = []
    target.answer = lambda seen: (404, {}, b"") if seen.method == "GET" else None
    target.before = asked.append
    with opened(target, idempotency=None, look_up=LookUp("/v1/entries/{entry_id}")) as writer:
        assert apply(writer, *events("a"), may_begin=lambda: not asked) == ([None], [])
        assert [seen.method for seen in target.seen] == ["GET"]
        asked.clear()
        assert apply(writer, *events("a"), may_begin=lambda: not asked) == ([APPLIED], [])
    assert [seen.method for seen in target.seen] == ["GET", "GET", "POST"]


# Lanes


def test_keys_run_side_by_side_and_each_in_order(target: Target) -> None:
    batch = [delivered(entry(name), offset) for offset, name in enumerate("abcabc")]
    firsts = {key_of(event) for event in batch[:3]}
    together, paced = threading.Barrier(3, timeout=20), threading.Event()

    def meet(seen: Seen) -> None:
        if seen.headers["idempotency-key"] in firsts:
            together.wait()  # passed only when three keys are in flight at once
            paced.wait(0.2)  # time enough to be overtaken

    target.before = meet
    with opened(target) as writer:
        assert apply(writer, *batch)[0] == [APPLIED] * 6
    sent = [seen.headers["idempotency-key"] for seen in target.effects]
    for name in "abc":
        wanted = [key_of(each) for each in batch if each.event.key == name]
        assert [key for key in sent if key in wanted] == wanted


def test_nothing_begins_once_it_may_not(target: Target) -> None:
    allowed = iter([True] * 6)
    with opened(target, concurrency=1) as writer:
        applied, failures = apply(writer, *events(*"abcdef"), may_begin=lambda: next(allowed, False))
    assert failures == []
    done = sum(each is not None for each in applied)
    assert 0 < done < 6
    assert applied == [APPLIED] * done + [None] * (6 - done)
    assert len(target.seen) == done


# Credentials


def test_a_rotated_token_is_read_anew_once_it_was_refused(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = secret("billing/rotated").environment_name
    monkeypatch.setenv(variable, "first-token")
    with opened(target, auth=Bearer(secret("billing/rotated"))) as writer:
        assert apply(writer, *events("a"))[0] == [APPLIED]

        def fault(seen: Seen) -> Fault:
            monkeypatch.setenv(variable, "second-token")
            return NONE if seen.headers["authorization"] == "Bearer second-token" else Fault(status=401)

        target.fault = fault
        assert apply(writer, *events("b"))[0] == [APPLIED]
        target.fault = lambda _: Fault(status=403)
        failure = only(apply(writer, *events("c"))[1])
    assert isinstance(failure.error, AuthError)
    assert len(target.seen) == 1 + 2 + 2


def test_basic_credentials_are_sent_as_rfc_7617_says(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secret("billing/password").environment_name, "open sesame")
    with opened(target, auth=Basic("Aladdin", secret("billing/password"))) as writer:
        apply(writer, *events("a"))
    assert target.seen[0].headers["authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_one_client_credentials_token_serves_all_until_it_is_refused(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(secret("billing/client").environment_name, "client-secret")
    tokens = Target()
    issued: list[str] = []

    def issue(seen: Seen) -> tuple[int, dict[str, str], bytes]:
        assert seen.body == b"grant_type=client_credentials&scope=write"
        issued.append(f"token-{len(issued)}")
        return 200, {}, b'{"access_token": "%s", "token_type": "Bearer", "expires_in": 3600}' % issued[-1].encode()

    tokens.answer = issue
    target.fault = lambda seen: NONE if seen.headers["authorization"] == f"Bearer {issued[-1]}" else Fault(status=401)
    auth = ClientCredentials(tokens.url + "/token", "us", secret("billing/client"), scope="write")
    with opened(target, auth=auth) as writer:
        assert apply(writer, *events(*"abcdefgh"))[0] == [APPLIED] * 8
        assert len(issued) == 1
        target.fault = lambda seen: Fault(status=401) if seen.headers["authorization"] == "Bearer token-0" else NONE
        assert apply(writer, *events(*"ijklmnop"))[0] == [APPLIED] * 8
    tokens.stop()
    assert len(issued) == 2


def test_nothing_is_sent_with_a_token_that_came_too_late(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secret("billing/client").environment_name, "client-secret")
    tokens, is_issued, paced = Target(), threading.Event(), threading.Event()

    def issue(_: Seen) -> tuple[int, dict[str, str], bytes]:
        paced.wait(1.1)
        is_issued.set()
        return 200, {}, b'{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}'

    tokens.answer = issue
    auth = ClientCredentials(tokens.url + "/token", "us", secret("billing/client"))
    with opened(target, auth=auth, deadlines=Deadlines(connect_s=5, read_s=5, total_s=5)) as writer:
        assert apply(writer, *events("a"), may_begin=lambda: not is_issued.is_set()) == ([None], [])
        assert target.seen == []
        assert apply(writer, *events("a")) == ([APPLIED], [])
    tokens.stop()


@pytest.mark.parametrize(
    ("status", "failure_class"), [(401, "auth"), (400, "auth"), (503, "rate-limit"), (500, "transient")]
)
def test_a_token_endpoint_that_gives_none(
    target: Target, monkeypatch: pytest.MonkeyPatch, status: int, failure_class: str
) -> None:
    monkeypatch.setenv(secret("billing/client").environment_name, "client-secret")
    tokens = Target()
    tokens.answer = lambda _: (status, {}, b'{"error": "invalid_client"}')
    auth = ClientCredentials(tokens.url + "/token", "us", secret("billing/client"))
    with opened(target, auth=auth) as writer:
        failure = only(apply(writer, *events("a"))[1])
    tokens.stop()
    assert failure.failure_class == failure_class
    assert target.seen == []


@pytest.mark.parametrize("fault", [Fault(reset=True), Fault(delay_s=30)], ids=["reset", "late"])
@pytest.mark.parametrize("beside", [{}, {"idempotency": None, "at_most_once": True}], ids=["key", "at most once"])
def test_a_token_endpoint_without_an_answer_is_a_dependency_down(
    target: Target, monkeypatch: pytest.MonkeyPatch, fault: Fault, beside: dict[str, Any]
) -> None:
    monkeypatch.setenv(secret("billing/client").environment_name, "client-secret")
    tokens = Target()
    tokens.fault = lambda _: fault
    auth = ClientCredentials(tokens.url.replace("127.0.0.1", "localhost") + "/token", "us", secret("billing/client"))
    with opened(target, auth=auth, **beside) as writer:
        failure = only(apply(writer, *events("a"))[1])
    tokens.stop()
    assert (failure.failure_class, target.seen) == (FailureClass.DEPENDENCY_DOWN, [])
    assert "no credentials from localhost" in failure.message


# Where it may go


def test_a_whole_url_is_called_at_a_declared_host_only(target: Target) -> None:
    other = Target()
    urls = {"a": other.url.replace("127.0.0.1", "localhost"), "b": "https://169.254.169.254/latest", "c": "//evil"}
    with opened(target, call=lambda e: HttpCall("POST", urls[e.entry_id])) as writer:
        _, failures = apply(writer, *events("a", "b", "c"))
    other.stop()
    assert [failure.code for failure in failures] == ["forbidden-host"] * 3
    assert other.seen == []


def test_the_name_stays_while_the_connection_goes_to_an_address(target: Target) -> None:
    target_url = target.url.replace("127.0.0.1", "localhost")
    writer = sink_of(target_url).open()
    assert apply(writer, *events("a"))[0] == [APPLIED]
    writer.close()
    assert target.seen[0].headers["host"] == target_url.removeprefix("http://")


class Names:
    """What the name of the target resolves to, time after time, the last for ever; addresses are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked = 0
        self._answers = answers
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.answer)

    def answer(self, host: Any, port: Any, *more: Any, **named: Any) -> list[Any]:
        if host not in ("localhost", b"localhost"):
            return self._resolve(host, port, *more, **named)
        self.asked += 1
        addresses = self._answers[min(self.asked, len(self._answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.9"])
    with closing(sink_of(target.url.replace("127.0.0.1", "localhost"), concurrency=1).open()) as writer:
        assert apply(writer, *events("a", "b")) == ([APPLIED, APPLIED], [])
    assert names.asked == 1


def test_a_name_that_resolves_to_this_machine_is_not_called(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: Any, port: Any, *__: Any, **___: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with closing(sink_of(target.url.replace("127.0.0.1", "api.example.com")).open()) as writer:
        assert only(apply(writer, *events("a"))[1]).code == "forbidden-address"
    assert target.seen == []


def test_addresses_are_tried_in_turn_and_the_name_anew_once_nobody_was_there(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.9"], ["127.0.0.9", "127.0.0.1"])
    url = target.url.replace("127.0.0.1", "localhost")
    with closing(sink_of(url, on_failure=OnFailure(quick_tries=1), concurrency=1).open()) as writer:
        assert only(apply(writer, *events("a"))[1]).failure_class is FailureClass.DEPENDENCY_DOWN
        assert apply(writer, *events("a", "b")) == ([APPLIED, APPLIED], [])
    assert names.asked == 2


def test_a_certificate_has_to_be_for_the_name_not_for_the_address(tmp_path: Path) -> None:
    """This one is for 127.0.0.1, to which localhost resolves."""
    authority = Authority.make("Tests")
    files = authority.issue(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    target = Target(tls=context)
    options = {"ca_file": str(authority.write(tmp_path))}
    with opened(target, **options) as writer:
        assert apply(writer, *events("a"))[0] == [APPLIED]
    writer = sink_of(target.url.replace("127.0.0.1", "localhost"), **options).open()
    failure = only(apply(writer, *events("b"))[1])
    writer.close()
    target.stop()
    assert failure.failure_class is FailureClass.DEPENDENCY_DOWN
    assert len(target.seen) == 1


def mutual(authority: Authority, tmp_path: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Target:
    """A target that takes clients with a certificate of this authority only."""
    files = authority.issue(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.write(tmp_path)))
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest
    return Target(tls=context)


def test_a_client_certificate_is_shown_and_read_anew_when_its_files_change(tmp_path: Path) -> None:
    authority = Authority.make("Tests")
    target = mutual(authority, tmp_path)
    first, second = authority.issue(tmp_path, "first"), authority.issue(tmp_path, "second")
    shown = {"certificate_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key"}
    for path, source in zip(shown.values(), (first.certificate, first.key), strict=True):
        path.write_bytes(source.read_bytes())
    certificate = ClientCertificate(**{name: str(path) for name, path in shown.items()})
    with opened(target, ca_file=str(tmp_path / "Tests.pem"), client_certificate=certificate) as writer:
        assert apply(writer, *events("a"))[0] == [APPLIED]
        shown["certificate_file"].write_bytes(second.certificate.read_bytes())
        target.stop()
        target.start()
        assert apply(writer, *events("b"))[0] == [APPLIED]  # the key is still the first's: so is what is shown
        shown["key_file"].write_bytes(second.key.read_bytes())
        target.stop()
        target.start()
        assert apply(writer, *events("c"))[0] == [APPLIED]
    target.stop()
    assert [seen.peer for seen in target.effects] == ["first", "first", "second"]


def test_a_target_that_does_not_take_our_certificate_stops_the_sink(tmp_path: Path) -> None:
    """In TLS 1.3 a client may send before the server has said no, and the reset that follows may overtake the alert."""
    authority = Authority.make("Tests")
    target = mutual(authority, tmp_path, ssl.TLSVersion.TLSv1_2)
    stranger = Authority.make("Others").issue(tmp_path, "stranger")
    certificate = ClientCertificate(certificate_file=str(stranger.with_key))
    with opened(target, ca_file=str(tmp_path / "Tests.pem"), client_certificate=certificate) as writer:
        failure = only(apply(writer, *events("a"))[1])
    target.stop()
    assert (failure.failure_class, target.seen) == (FailureClass.AUTH, [])


def test_a_client_certificate_without_its_key_is_refused_at_the_start(tmp_path: Path) -> None:
    files = Authority.make("Tests").issue(tmp_path, "client")
    certificate = ClientCertificate(certificate_file=str(files.certificate))
    with pytest.raises(UsageError, match="client certificate cannot be loaded"):
        sink_of("https://api.example.com", client_certificate=certificate).open()


def test_a_declaration_without_key_and_look_up_is_refused() -> None:
    with pytest.raises(UsageError, match="neither idempotency= nor look_up="):
        sink_of("https://api.example.com", idempotency=None)


def test_the_target_of_these_tests_does_nothing_for_half_a_request(target: Target) -> None:
    """A worker that is killed between head and body of its request must not have had an effect."""
    host, _, port = target.url.removeprefix("http://").partition(":")
    head = b"POST /v1/entries HTTP/1.1\r\nHost: t\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\nhalf"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert target.seen == []
