"""Dead letters of other systems: what their headers tell, and what is said of those that cannot be read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from heddle.broker.log import UNREADABLE_HEADERS, Headers, Record
from heddle.delivery import envelope
from heddle.errors import UsageError
from heddle.event import LINEAGE
from heddle.operations.dead_letters.adopt import ALL_HEADERS, failure_of, incoming_of, read_record
from heddle.operations.dead_letters.foreign import Format, format_of, read_headers
from heddle.secrets import secret

DATA = Path(__file__).parents[1] / "data" / "dead_letters"
SAMPLES: list[dict[str, Any]] = json.loads((DATA / "sample_records.json").read_text(encoding="utf-8"))["records"]
FORMATS: dict[str, Any] = json.loads((DATA / "header_formats.json").read_text(encoding="utf-8"))["formats"]
ONE_EACH = pytest.mark.parametrize("sample", SAMPLES, ids=[sample["format"] for sample in SAMPLES])
FACTS: dict[str, str] = {
    "original_topic": "topic",
    "original_partition": "partition",
    "original_offset": "offset",
    "original_timestamp": "timestamp_ms",
    "consumer_group": "group",
    "attempts": "tries",
    "delivery_count": "tries",
    "not_before": "not_before_ms",
}


def record_of(sample: dict[str, Any]) -> Record:
    headers: list[tuple[str, bytes | None]] = [
        (header["name"], base64.b64decode(header["value_b64"])) for header in sample["headers"]
    ]
    key, value = base64.b64decode(sample["key_b64"]), base64.b64decode(sample["value_b64"])
    return Record(sample["topic"], sample["partition"], sample["offset"], key, value, headers, sample["timestamp"])


@ONE_EACH
def test_the_sample_of_each_format_is_recognised_and_read_as_expected(sample: dict[str, Any]) -> None:
    found = read_record(record_of(sample))
    assert (found.written_by, found.unreadable) == (sample["format"], ())
    expected = dict(sample["expected"])
    if "payload_present" in expected:
        assert (found.record.value is not None) is expected.pop("payload_present")
    assert {name: getattr(found.known, FACTS.get(str(name), str(name))) for name in expected} == expected


@ONE_EACH
def test_bytes_and_headers_stay_as_they_were(sample: dict[str, Any]) -> None:
    record = record_of(sample)
    foreign = incoming_of(read_record(record), "hT9xQm4BabcdEFGHijklmn").foreign
    assert (foreign.key, foreign.value, list(foreign.headers)) == (record.key, record.value, record.headers)
    assert (foreign.origin, foreign.offset) == (f"{record.topic}:{record.partition}:hT9xQm4B", record.offset)


def test_every_header_of_the_formats_is_read() -> None:
    for name, described in FORMATS.items():
        headers = [(header["name"], b"\xff" * 9) for header in described["headers"]]
        _, unreadable = read_headers(headers, Format(name))
        assert {header for header, _ in unreadable} == dict(headers).keys()


def told(*headers: tuple[str, bytes | None], by: Format = Format.SPRING_KAFKA) -> tuple[Any, list[str]]:
    known, unreadable = read_headers(headers, by)
    return known, [f"{header}: {why}" for header, why in unreadable]


def test_of_a_repeated_header_the_last_is_the_latest() -> None:
    known, unreadable = told(
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", b"\0\0\0\1"),
        ("kafka_dlt-original-topic", b"orders-retry-1"),
        ("kafka_dlt-original-partition", b"\0\0\0\7"),
    )
    assert (known.topic, known.partition, unreadable) == ("orders-retry-1", 7, [])


@pytest.mark.parametrize(
    ("by", "header", "data", "why"),
    [
        (Format.SPRING_KAFKA, "kafka_dlt-original-partition", b"2", "1 bytes, not 4"),
        (Format.SPRING_KAFKA, "kafka_dlt-original-partition", b"\xff\xff\xff\xff", "a negative number"),
        (Format.SPRING_KAFKA, "kafka_dlt-original-offset", b"\0\0\0\1", "4 bytes, not 8"),
        (Format.SPRING_KAFKA, "kafka_dlt-original-topic", b"\xff", "no UTF-8 at byte 0"),
        (Format.SPRING_KAFKA, "kafka_dlt-original-topic", b"", "it is empty"),
        (Format.SPRING_KAFKA, "kafka_dlt-exception-fqcn", None, "it is null"),
        (Format.SPRING_KAFKA, "kafka_dlt-original-timestamp-type", b"Now", "neither CreateTime nor LogAppendTime"),
        (Format.SPRING_KAFKA_RETRY_TOPIC, "retry_topic-attempts", b"\0\2", "2 bytes, not 4"),
        (Format.SPRING_KAFKA_RETRY_TOPIC, "retry_topic-backoff-timestamp", b"", "0 bytes are no time"),
        (Format.SPRING_KAFKA_RETRY_TOPIC, "retry_topic-backoff-timestamp", b"\1" * 9, "9 bytes are no time"),
        (Format.KAFKA_CONNECT, "__connect.errors.partition", b"\0\0\0\2", "no decimal digits"),
        (Format.KAFKA_CONNECT, "__connect.errors.offset", b"-1", "no decimal digits"),
        (Format.KAFKA_CONNECT, "__connect.errors.offset", "٣".encode(), "no decimal digits"),
        (Format.KAFKA_CONNECT, "__connect.errors.offset", b"9" * 19, "a number of more than 64 bits"),
        (Format.KAFKA_STREAMS, "__streams.errors.offset", b"", "no decimal digits"),
        (Format.SHARE_GROUP, "__dlq.errors.delivery.count", b"5 ", "no decimal digits"),
    ],
)
def test_what_cannot_be_read_is_told_and_not_guessed(by: Format, header: str, data: bytes | None, why: str) -> None:
    known, unreadable = told((header, data), by=by)
    assert unreadable == [f"{header}: {why}"]
    assert known == told(by=by)[0]


def test_a_header_that_cannot_be_read_does_not_hide_the_others() -> None:
    known, unreadable = told(
        ("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-offset", b"?"), ("kafka_dlt-exception-fqcn", b"E")
    )
    assert (known.topic, known.offset, known.exception, len(unreadable)) == ("orders", None, "E", 1)


@pytest.mark.parametrize(("by", "prefix"), [(Format.KAFKA_CONNECT, "__connect"), (Format.KAFKA_STREAMS, "__streams")])
def test_an_exception_without_a_message_is_well(by: Format, prefix: str) -> None:
    name = f"{prefix}.errors.exception.message" if by is Format.KAFKA_CONNECT else f"{prefix}.errors.message"
    known, unreadable = told((name, None), by=by)
    assert (known.message, unreadable) == (None, [])


def test_encodings_of_older_versions() -> None:
    known, unreadable = told(
        ("retry_topic-attempts", b"\xc8"),
        ("retry_topic-original-timestamp", (1767225600123).to_bytes(8, "big")),
        by=Format.SPRING_KAFKA_RETRY_TOPIC,
    )
    assert (known.tries, known.timestamp_ms, unreadable) == (200, 1767225600123, [])


def test_a_failed_key_is_told_by_its_own_headers() -> None:
    known, _ = told(
        ("kafka_dlt-key-exception-fqcn", b"a.KeyException"),
        ("kafka_dlt-key-exception-message", b"bad key"),
        ("kafka_dlt-key-exception-stacktrace", b"at a"),
    )
    assert (known.exception, known.message, known.stack) == ("a.KeyException", "bad key", "at a")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["content-type"], None),
        ([], None),
        (["x-kafka_dlt-original-topic"], None),
        (["__connect.errors.topic", "kafka_dlt-original-topic"], Format.SPRING_KAFKA),
        (["kafka_dlt-original-topic", "__connect.errors.topic", "x"], Format.KAFKA_CONNECT),
        (["retry_topic-attempts", "a", "kafka_dlt-exception-fqcn"], Format.SPRING_KAFKA_RETRY_TOPIC),
        (["retry_topic-attempts"], Format.SPRING_KAFKA_RETRY_TOPIC),
        (["__dlq.errors.topic"], Format.SHARE_GROUP),
    ],
)
def test_a_record_is_of_the_system_that_wrote_to_it_last(names: list[str], found: Format | None) -> None:
    assert format_of([(name, b"") for name in names]) is found


def spring(*more: tuple[str, bytes | None]) -> Record:
    headers: Headers = [("kafka_dlt-exception-fqcn", b"org.x.ListenerFailed"), *more]
    return Record("orders-dlt", 0, 1, b"k", b"v", list(headers), 5)


def test_why_it_failed_is_told_as_our_own_entries_tell_it() -> None:
    sample = next(sample for sample in SAMPLES if sample["format"] == "spring-kafka")
    failure = failure_of(read_record(record_of(sample)))
    assert {name: failure[name] for name in (envelope.CLASS, envelope.CODE, envelope.EXCEPTION, envelope.MESSAGE)} == {
        envelope.CLASS: "unknown",
        envelope.CODE: "IllegalStateException",
        envelope.EXCEPTION: "org.springframework.kafka.listener.ListenerExecutionFailedException, caused by "
        "java.lang.IllegalStateException",
        envelope.MESSAGE: "Listener failed; boom (from orders:2:41, group order-mapper)",
    }
    assert failure[envelope.STACK].startswith("java.lang.IllegalStateException: boom")


def test_each_format_tells_all_that_it_knows_in_the_message() -> None:
    messages = {s["format"]: failure_of(read_record(record_of(s)))[envelope.MESSAGE] for s in SAMPLES}
    assert messages["kafka-connect"].endswith(
        "(from orders:2:41, connector crm-sink task 0, stage VALUE_CONVERTER, "
        "in io.confluent.connect.avro.AvroConverter)"
    )
    assert messages["kafka-streams"] == "/ by zero (from orders:2:41)"
    assert messages["share-group"].endswith("(from orders:2:41, group order-mapper, tried 5 times)")
    assert "tried 2 times" in messages["spring-kafka-retry-topic"]


def test_a_record_without_known_headers_is_adopted_as_such() -> None:
    found = read_record(Record("t", 0, 1, None, None, [("a", None), ("a", b"")], 5))
    assert (found.written_by, failure_of(found)[envelope.CODE]) == (None, "adopted")
    assert incoming_of(found, "id").foreign.headers == (("a", None), ("a", b""))


def test_one_cause_has_one_fingerprint() -> None:
    def fingerprint(stack: str, cause: bytes = b"java.lang.IllegalState") -> str:
        headers = (("kafka_dlt-exception-cause-fqcn", cause), ("kafka_dlt-exception-stacktrace", stack.encode()))
        return failure_of(read_record(spring(*headers)))[envelope.FINGERPRINT]

    first = fingerprint(
        "org.x.E: a\n\tat org.x.A.b(A.java:1)\nCaused by: java.E: b\n\tat com.me.Work.run(Work.java:7)\n"
    )
    assert (
        fingerprint("org.x.E: c\n\tat org.x.Z.b(Z.java:9)\nCaused by: E: d\n\tat com.me.Work.run(Work.java:8)\n")
        == first
    )
    assert (
        fingerprint("org.x.E: a\n\tat org.x.A.b(A.java:1)\nCaused by: E: b\n\tat com.me.Other.run(O.java:7)\n") != first
    )
    assert fingerprint("org.x.E: a\nCaused by: E: b\n\tat com.me.Work.run(Work.java:7)\n", b"java.lang.Other") != first


def test_texts_are_cut_and_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", "hunter2hunter2")
    secret("ledger/dsn").resolve()
    stack = (
        "E\n"
        + "\tat org.x.Outer.call(O.java:1)\n" * 1_000
        + "Caused by: java.E: hunter2hunter2\n\tat com.me.A.b(A:1)\n"
    )
    record = spring(
        ("kafka_dlt-exception-message", b"hunter2hunter2 " + b"x" * 5_000),
        ("kafka_dlt-exception-stacktrace", stack.encode()),
    )
    failure = failure_of(read_record(record))
    assert "hunter2" not in str(failure)
    assert len(failure[envelope.MESSAGE]) == 1_000
    assert failure[envelope.STACK].startswith("Caused by: java.E: ***")


@pytest.mark.parametrize("data", [(-1).to_bytes(8, "big", signed=True), b"?"])
def test_a_time_that_is_not_known_is_that_of_the_dead_letter(data: bytes) -> None:
    found = read_record(spring(("kafka_dlt-original-timestamp", data)))
    assert incoming_of(found, "id").foreign.timestamp_ms == 5


@pytest.mark.parametrize("name", ["heddle-format", "heddle-state", "heddle-anything"])
def test_our_own_dead_letters_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="was written by Heddle") as refused:
        read_record(spring((name, b"1")))
    assert "heddle dlq import" in refused.value.hint
    assert read_record(spring((LINEAGE, b"1;a;b;c"))).known.exception == "org.x.ListenerFailed"


def test_headers_that_the_client_cannot_hand_over_are_told_as_one() -> None:
    found = read_record(Record("t", 0, 1, b"k", b"v", [(UNREADABLE_HEADERS, b"a header name is not UTF-8")], 5))
    assert (found.unreadable, found.record.headers, found.known) == (
        (ALL_HEADERS,),
        [],
        read_headers([], Format.SPRING_KAFKA)[0],
    )
