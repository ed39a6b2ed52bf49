"""The dead-letter entry: the original record, untouched, and why it is here (guarantees: "The dead-letter topic").

Entry key: format version, then length-prefixed topic id, partition, offset, original key: unique, also when a topic
is made again. Value: the original bytes, never null (a null value would be the entry's own tombstone). Headers: every
original header in order, then ours under `heddle-`, replaced on each hop.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from heddle.broker.log import Outgoing, Record
from heddle.delivery.classify import fingerprint, message_of
from heddle.errors import Failure
from heddle.event import LINEAGE, RESERVED_PREFIX, ParsedHeaders, event_time, parse_headers
from heddle.secrets import redact

FORMAT_VERSION = 1
MAX_STACK_CHARS = 8_000

FORMAT, STATE, KEY, NULL_VALUE = "heddle-format", "heddle-state", "heddle-key", "heddle-value"
TOPIC, TOPIC_ID, PARTITION, OFFSET, TIMESTAMP = (
    "heddle-topic",
    "heddle-topic-id",
    "heddle-partition",
    "heddle-offset",
    "heddle-timestamp-ms",
)
SUBSCRIPTION, HANDLER = "heddle-subscription", "heddle-handler"
CLASS, CODE, PATH, FINGERPRINT = "heddle-class", "heddle-code", "heddle-path", "heddle-fingerprint"
EXCEPTION, MESSAGE, STACK = "heddle-exception", "heddle-message", "heddle-stack"
ATTEMPTS, FIRST_FAILED, LAST_FAILED = "heddle-attempts", "heddle-first-failed-at", "heddle-last-failed-at"
BLOCKED_BY, ROOT, TRACE = "heddle-blocked-by", "heddle-root", "heddle-trace"


class State(StrEnum):
    """`dead` waits for a person, `waiting` for an earlier entry of its key. (`retrying`, `unknown`: with retries.)"""

    DEAD = "dead"
    WAITING = "waiting"
    RETRYING = "retrying"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Builds the entries of one subscription."""

    subscription: str
    dead_letter_topic: str
    topic_id: str
    handler: str

    def dead(self, record: Record, failure: Failure) -> Outgoing:
        """The entry of a record that failed."""
        now = _now()
        error = failure.error
        return self._entry(
            record,
            State.DEAD,
            {
                CLASS: failure.failure_class,
                CODE: failure.code,
                PATH: failure.path,
                FINGERPRINT: fingerprint(failure),
                EXCEPTION: "" if error is None else f"{type(error).__module__}.{type(error).__qualname__}",
                MESSAGE: failure.message,
                STACK: "" if error is None else stack_of(error),
                ATTEMPTS: "1",
                FIRST_FAILED: now,
                LAST_FAILED: now,
            },
        )

    def waiting(self, record: Record, blocked_by: str) -> Outgoing:
        """The entry of a record that was not attempted because an earlier one of its key is parked."""
        return self._entry(record, State.WAITING, {BLOCKED_BY: blocked_by, ATTEMPTS: "0"})

    def _entry(self, record: Record, state: State, why: dict[str, str]) -> Outgoing:
        parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
        headers = [(name, value) for name, value in record.headers if not is_ours(name)]
        headers += [(name, _bytes(text)) for name, text in self._origin(record, parsed, state).items()]
        if record.key is not None:
            headers.append((KEY, record.key))
        if record.value is None:
            headers.append((NULL_VALUE, b"null"))
        headers += [(name, _bytes(text)) for name, text in why.items() if text]
        key = entry_key(self.topic_id, record.partition, record.offset, record.key)
        return Outgoing(self.dead_letter_topic, key, record.value or b"", headers, record.partition)

    def _origin(self, record: Record, parsed: ParsedHeaders, state: State) -> dict[str, str]:
        return {
            FORMAT: str(FORMAT_VERSION),
            STATE: state,
            TOPIC: record.topic,
            TOPIC_ID: self.topic_id,
            PARTITION: str(record.partition),
            OFFSET: str(record.offset),
            TIMESTAMP: str(record.timestamp_ms),
            SUBSCRIPTION: self.subscription,
            HANDLER: self.handler,
            ROOT: parsed.root.decode(errors="replace"),
            TRACE: (parsed.traceparent or b"").decode(),
        }


def is_ours(name: str) -> bool:
    """Whether an envelope header: `heddle-` is reserved, save for the event's own lineage."""
    return name.startswith(RESERVED_PREFIX) and name != LINEAGE


def entry_key(topic_id: str, partition: int, offset: int, key: bytes | None) -> bytes:
    """Version byte, then each part with a four-byte big-endian length; a null original key has length 2^32-1."""
    parts = bytearray((FORMAT_VERSION,))
    for part in (topic_id.encode(), str(partition).encode(), str(offset).encode()):
        parts += len(part).to_bytes(4, "big") + part
    parts += b"\xff\xff\xff\xff" if key is None else len(key).to_bytes(4, "big") + key
    return bytes(parts)


def stack_of(error: BaseException) -> str:
    """The innermost frames, then what was raised: where it broke matters more than how it got there."""
    frames = redact("".join(traceback.format_tb(error.__traceback__)))[-MAX_STACK_CHARS:]
    return f"{frames}{type(error).__qualname__}: {message_of(error)}"


def _bytes(text: str) -> bytes:
    # Text out of JSON may hold half a surrogate pair, which UTF-8 does not take.
    return text.encode(errors="backslashreplace")


def _now() -> str:
    return event_time(datetime.now(UTC))
