"""Which class an exception has, and what of it is told on."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import orjson
import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from pydantic import BaseModel

from heddle import ContractError, DependencyDownError
from heddle.delivery.classify import (
    Classifier,
    effect_unknown,
    failure_of,
    fingerprint,
    interruption,
    message_of,
    retry_after_s,
    target_of,
)
from heddle.errors import (
    AuthError,
    Failure,
    FailureClass,
    HeddleError,
    Park,
    RateLimitError,
    RetryLater,
    Stop,
    TransientError,
    UnknownEffectError,
)

TRANSIENT, RATE_LIMIT, AUTH, DOWN, CONTRACT, POISON, UNKNOWN, OURS = (
    FailureClass.TRANSIENT,
    FailureClass.RATE_LIMIT,
    FailureClass.AUTH,
    FailureClass.DEPENDENCY_DOWN,
    FailureClass.CONTRACT,
    FailureClass.POISON,
    FailureClass.UNKNOWN,
    FailureClass.OURS,
)
HOST = "127.0.0.1"
PRIVATE = "ana@example.com"


def caught(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def failed(error: BaseException) -> Failure:
    return Classifier().failure_of(3, error)


class _Target(BaseHTTPRequestHandler):
    """Answers with the status in the path; `/silent` never, `/gone` with a closed connection."""

    released = threading.Event()

    def do_GET(self) -> None:
        what, _, retry_after = self.path.partition("?")[0].strip("/").partition("/")
        if what == "silent":
            self.released.wait(20)
            return
        if what == "gone":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(int(what))
        if retry_after:
            self.send_header("Retry-After", retry_after.replace("%20", " "))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    server = ThreadingHTTPServer((HOST, 0), _Target)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://{HOST}:{server.server_port}"
    _Target.released.set()
    server.shutdown()
    server.server_close()


def fetched(url: str) -> BaseException:
    def fetch() -> None:
        with httpx2.Client(timeout=httpx2.Timeout(5, read=0.2), trust_env=False) as client:
            client.get(f"{url}?email={PRIVATE}", auth=("user", "sesame")).raise_for_status()

    return caught(fetch)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "failure_class", "lost"),
    [
        (500, TRANSIENT, True),
        (502, TRANSIENT, True),
        (503, TRANSIENT, False),
        (504, TRANSIENT, True),
        (408, TRANSIENT, False),
        (425, TRANSIENT, False),
        (429, RATE_LIMIT, False),
        (401, AUTH, False),
        (403, AUTH, False),
        (400, POISON, False),
        (404, POISON, False),
        (422, POISON, False),
        (301, UNKNOWN, False),
    ],
)
def test_an_http_status_says_what_comes_next(target: str, status: int, failure_class: FailureClass, lost: bool) -> None:
    failure = failed(fetched(f"{target}/{status}"))
    assert (failure.index, failure.failure_class, failure.code) == (3, failure_class, f"http-{status}")
    assert target_of(failure) == HOST
    assert effect_unknown(failure) is lost
    assert f"HTTP {status}" in failure.message
    assert PRIVATE not in failure.message
    assert "sesame" not in failure.message


def test_a_target_that_is_down_is_transient_and_nothing_was_sent(target: str) -> None:
    failure = failed(fetched(f"http://{HOST}:{free_port()}/x"))
    assert (failure.failure_class, failure.code, target_of(failure)) == (TRANSIENT, "connect-error", HOST)
    assert not effect_unknown(failure)
    assert "Connection refused" in failure.message


@pytest.mark.parametrize(("path", "code"), [("silent", "read-timeout"), ("gone", "remote-protocol-error")])
def test_an_answer_that_is_lost_leaves_the_effect_unknown(target: str, path: str, code: str) -> None:
    failure = failed(fetched(f"{target}/{path}"))
    assert (failure.failure_class, failure.code) == (TRANSIENT, code)
    assert effect_unknown(failure)
    assert PRIVATE not in failure.message


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (lambda: httpx2.get(f"ftp://{HOST}/{PRIVATE}"), "unsupported-protocol"),
        (lambda: httpx2.get(f"http://{HOST}:port/{PRIVATE}"), "invalid-url"),
    ],
)
def test_a_request_that_cannot_be_right_is_poison_and_its_content_is_not_told(
    action: Callable[[], object], code: str
) -> None:
    failure = failed(caught(action))
    assert (failure.failure_class, failure.code, effect_unknown(failure)) == (POISON, code, False)
    assert PRIVATE not in failure.message


def test_headers_that_cannot_be_sent_are_poison(target: str) -> None:
    failure = failed(caught(lambda: httpx2.get(target, headers={"x": f"{PRIVATE}\n"}, trust_env=False)))
    assert (failure.failure_class, failure.code) == (POISON, "local-protocol-error")
    assert PRIVATE not in failure.message


@pytest.mark.parametrize(
    ("given", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-3", None), ("1e9", None), ("²", None)]
)
def test_retry_after_in_seconds(target: str, given: str, seconds: float | None) -> None:
    request = httpx2.Request("GET", target)
    response = httpx2.Response(429, headers=[(b"Retry-After", given.encode("latin-1", "replace"))], request=request)
    assert retry_after_s(failed(caught(response.raise_for_status))) == seconds


def test_retry_after_as_a_date_counts_from_the_answers_own_clock(target: str) -> None:
    behind = datetime.now(UTC) - timedelta(days=3)
    headers = {"date": format_datetime(behind, usegmt=True)}
    headers["retry-after"] = format_datetime(behind + timedelta(seconds=90), usegmt=True)
    response = httpx2.Response(503, headers=headers, request=httpx2.Request("GET", target))
    assert retry_after_s(failed(caught(response.raise_for_status))) == 90.0
    late = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True).replace(" ", "%20")
    told = retry_after_s(failed(fetched(f"{target}/429/{late}")))
    assert told is not None
    assert 55 < told <= 61


def test_what_a_handler_asks_for_is_heard_also_through_its_own_exception(target: str) -> None:
    assert retry_after_s(failed(RetryLater(after=timedelta(minutes=2)))) == 120.0
    assert retry_after_s(failed(RateLimitError("slow", after=timedelta(seconds=5)))) == 5.0

    def wrapped() -> None:
        try:
            raise fetched(f"{target}/429/11")
        except httpx2.HTTPStatusError as error:
            raise RateLimitError("the price service is busy") from error

    failure = failed(caught(wrapped))
    assert (retry_after_s(failure), target_of(failure)) == (11.0, HOST)
    assert retry_after_s(failed(ValueError())) is None
    assert target_of(failed(ValueError())) == ""


def postgres(state: str) -> psycopg.Error:
    return psycopg.errors.lookup(state)(f"Key (email)=({PRIVATE}) already exists.")


@pytest.mark.parametrize(
    ("state", "failure_class", "code"),
    [
        ("40P01", TRANSIENT, "deadlock-detected"),
        ("40001", TRANSIENT, "serialization-failure"),
        ("55P03", TRANSIENT, "lock-not-available"),
        ("57014", TRANSIENT, "query-canceled"),
        ("23503", TRANSIENT, "foreign-key-violation"),
        ("08006", DOWN, "connection-failure"),
        ("53300", DOWN, "too-many-connections"),
        ("57P01", DOWN, "admin-shutdown"),
        ("28P01", AUTH, "invalid-password"),
        ("42501", AUTH, "insufficient-privilege"),
        ("23505", CONTRACT, "unique-violation"),
        ("22003", CONTRACT, "numeric-value-out-of-range"),
        ("42P01", UNKNOWN, "undefined-table"),
        ("25P02", UNKNOWN, "in-failed-sql-transaction"),
    ],
)
def test_postgres_is_classed_by_its_sqlstate_alone(state: str, failure_class: FailureClass, code: str) -> None:
    failure = failed(postgres(state))
    assert (failure.failure_class, failure.code) == (failure_class, code)
    assert failure.message == f"PostgreSQL: {code} ({state})"


def test_a_lost_commit_is_an_unknown_effect() -> None:
    assert effect_unknown(failed(postgres("40003")))
    assert effect_unknown(failed(postgres("08007")))
    assert not effect_unknown(failed(postgres("40001")))
    assert effect_unknown(failed(psycopg.OperationalError("server closed the connection unexpectedly")))


def test_postgres_without_a_sqlstate() -> None:
    error = caught(lambda: psycopg.connect(host=HOST, port=free_port(), password="sesame", connect_timeout=3))
    failure = failed(error)
    assert (failure.failure_class, target_of(failure), effect_unknown(failure)) == (DOWN, HOST, False)
    assert "sesame" not in failure.message
    refused = psycopg.OperationalError('FATAL:  password authentication failed for user "ana"')
    assert failed(refused).failure_class is AUTH
    assert failed(psycopg.DataError(PRIVATE)).failure_class is CONTRACT
    programming = failed(psycopg.ProgrammingError(PRIVATE))
    assert (programming.failure_class, programming.message) == (UNKNOWN, "psycopg.ProgrammingError")


@pytest.mark.parametrize(
    ("error", "failure_class", "code"),
    [
        (KafkaError(KafkaError._TRANSPORT), TRANSIENT, "kafka-transport"),
        (KafkaError(KafkaError.UNKNOWN, "again", retriable=True), TRANSIENT, "kafka-unknown"),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), AUTH, "kafka-topic-authorization-failed"),
        (KafkaError(KafkaError._AUTHENTICATION), AUTH, "kafka-authentication"),
        (KafkaError(KafkaError._FENCED, "fenced", fatal=True), OURS, "kafka-fenced"),
        (KafkaError(KafkaError.THROTTLING_QUOTA_EXCEEDED), RATE_LIMIT, "kafka-throttling-quota-exceeded"),
        (KafkaError(KafkaError.INVALID_RECORD), UNKNOWN, "kafka-invalid-record"),
    ],
)
def test_kafkas_own_codes(error: KafkaError, failure_class: FailureClass, code: str) -> None:
    failure = failed(KafkaException(error))
    assert (failure.failure_class, failure.code) == (failure_class, code)


class _Line(BaseModel):
    amount: int


class _Order(BaseModel):
    lines: list[_Line]


@pytest.mark.parametrize(
    ("action", "code", "path"),
    [
        (
            lambda: _Order.model_validate({"lines": [{"amount": 1}, {"amount": PRIVATE}]}),
            "int-parsing",
            "lines[1].amount",
        ),
        (lambda: json.loads(f'{{"email": {PRIVATE}}}'), "malformed-json", ""),
        (lambda: orjson.loads(f'{{"email": {PRIVATE}}}'), "malformed-json", ""),
        (lambda: b"ana\xff".decode(), "invalid-text", ""),
        (lambda: f"{PRIVATE}\udc00".encode(), "invalid-text", ""),
    ],
)
def test_data_that_cannot_be_read_is_a_contract_failure_without_its_content(
    action: Callable[[], object], code: str, path: str
) -> None:
    failure = failed(caught(action))
    assert (failure.failure_class, failure.code, failure.path) == (CONTRACT, code, path)
    assert "ana" not in failure.message
    assert "ana" not in message_of(failure.error or ValueError())


def test_the_systems_own_network_errors_are_transient() -> None:
    refused = caught(lambda: socket.create_connection((HOST, free_port()), timeout=5))
    for error, code in (
        (refused, "connection"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection"),
        (caught(lambda: socket.getaddrinfo("no-such-host.invalid", 1)), "connection"),
        (OSError(113, "No route to host"), "connection"),
        (TimeoutError(), "timeout"),
        (TimeoutError("timed out"), "timeout"),
    ):
        assert (failed(error).failure_class, failed(error).code) == (TRANSIENT, code)
        assert failed(error).message
    assert failed(caught(lambda: Path("/no/such/file").read_bytes())).failure_class is UNKNOWN


def test_ours_say_their_own_class_and_all_else_is_unknown() -> None:
    for error, failure_class, code in (
        (ContractError("no", path="a.b"), CONTRACT, "contract"),
        (Park("hopeless"), POISON, "parked"),
        (Stop("look at this"), OURS, "stop"),
        (RetryLater(after=timedelta(seconds=1)), TRANSIENT, "retry-later"),
        (KeyError("x"), UNKNOWN, "KeyError"),
        (SystemExit(1), UNKNOWN, "SystemExit"),
    ):
        failure = failed(error)
        assert (failure.failure_class, failure.code, failure.error) == (failure_class, code, error)
    assert failed(ContractError("no", path="a.b")).path == "a.b"


class _OutOfStock(Exception): ...


class _SoldOut(_OutOfStock): ...


def test_the_integrators_classes_come_first_and_their_order_counts(target: str) -> None:
    classes: dict[type[BaseException], FailureClass] = {
        _SoldOut: POISON,
        _OutOfStock: TRANSIENT,
        httpx2.HTTPStatusError: CONTRACT,
        ContractError: UNKNOWN,
    }
    classifier = Classifier(classes)
    assert classifier.failure_of(0, _OutOfStock()).failure_class is TRANSIENT
    assert classifier.failure_of(0, _SoldOut()).failure_class is POISON
    status = classifier.failure_of(0, fetched(f"{target}/503"))
    assert (status.failure_class, status.code, target_of(status)) == (CONTRACT, "http-503", HOST)
    assert classifier.failure_of(0, ContractError("no")).failure_class is UNKNOWN
    assert classifier.failure_of(0, Park("no")).failure_class is POISON


def test_of_a_task_group_the_gravest_failure_decides() -> None:
    async def both() -> None:
        async def down() -> None:
            raise DependencyDownError("no answer")

        async def late() -> None:
            raise TimeoutError

        async with asyncio.TaskGroup() as group:
            group.create_task(late())
            group.create_task(down())

    failure = failed(caught(lambda: asyncio.run(both())))
    assert failure.failure_class is DOWN
    assert isinstance(failure.error, DependencyDownError)
    mixed = ExceptionGroup("", [Stop("stop"), ExceptionGroup("", [UnknownEffectError("was it booked?")])])
    assert failed(mixed).code == "unknown-effect"
    assert Classifier({ExceptionGroup: POISON}).failure_of(0, mixed).failure_class is POISON


def test_a_reported_failure_is_classed_by_its_exception_where_nobody_knew_better() -> None:
    classifier = Classifier({_OutOfStock: TRANSIENT})

    def reviewed(failure_class: FailureClass, error: BaseException | None) -> Failure:
        return classifier.reviewed(Failure(1, failure_class, "call", "total", "prices() raised", error))

    assert reviewed(UNKNOWN, _OutOfStock())[1:5] == (TRANSIENT, "call", "total", "prices() raised")
    assert reviewed(UNKNOWN, TimeoutError()).failure_class is TRANSIENT
    assert reviewed(UNKNOWN, KeyError()).failure_class is UNKNOWN
    assert reviewed(CONTRACT, TimeoutError()).failure_class is CONTRACT
    assert reviewed(CONTRACT, _OutOfStock()).failure_class is TRANSIENT
    assert reviewed(UNKNOWN, None).failure_class is UNKNOWN


def test_what_interrupts_is_raised_as_itself_or_in_its_name() -> None:
    down, refused = DependencyDownError("no answer"), AuthError("no")
    assert interruption(failed(down)) is down
    assert interruption(failed(refused)) is refused
    error = postgres("57P01")
    told = interruption(failed(error))
    assert isinstance(told, DependencyDownError)
    assert (str(told), told.__cause__) == ("PostgreSQL: admin-shutdown (57P01)", error)
    assert isinstance(interruption(failed(postgres("28P01"))), AuthError)
    for other in (TimeoutError(), Stop("stop"), ContractError("no"), RateLimitError("slow")):
        assert interruption(failed(other)) is None


def test_an_exception_that_cannot_be_looked_into_is_still_a_failure() -> None:
    class Broken(httpx2.HTTPStatusError):
        def __init__(self) -> None: ...

        def __str__(self) -> str:
            raise RuntimeError

    failure = failed(Broken())
    assert (failure.failure_class, failure.message) == (UNKNOWN, "Broken: a Broken that cannot be shown")


def test_failures_of_one_line_have_one_fingerprint_and_of_two_lines_two() -> None:
    def prices(name: str) -> None:
        raise KeyError(name)

    def rates(name: str) -> None:
        raise KeyError(name)

    one, same, other = (failed(caught(lambda f=f, n=n: f(n))) for f, n in ((prices, "a"), (prices, "b"), (rates, "a")))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


def test_a_class_of_the_module_function_is_that_of_a_classifier_without_classes() -> None:
    errors: list[BaseException] = [TimeoutError(), KeyError(), postgres("40P01"), HeddleError("x"), TransientError("y")]
    assert [failure_of(3, error) for error in errors] == [failed(error) for error in errors]
