"""The dead-letter entry: the original record, untouched, and why it is here (guarantees: "The dead-letter topic").

Entry key: format version, then length-prefixed topic id, partition, offset, original key: unique, also when a topic
is made again. Value: the original bytes, never null (a null value would be the entry's own tombstone). Headers: every
original header in order, then ours under `heddle-`, replaced on each hop.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from heddle.broker.log import Outgoing, Record
from heddle.delivery.classify import fingerprint, is_of_data, message_of
from heddle.delivery.clock import SystemClock
from heddle.errors import Failure, FailureClass, FormatError
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
RETRY_AFTER = "heddle-retry-after-ms"
EFFECT, UNDECIDED = "heddle-effect", b"undecided"
"""Of an entry whose last try sent nothing, while one before it may have taken effect."""
BLOCKED_BY, ROOT, TRACE = "heddle-blocked-by", "heddle-root", "heddle-trace"
EDIT, ORIGINAL, ORIGINAL_NULL = "heddle-edit", "heddle-original", "heddle-original-null"


NOT_APPLIED = "not-applied"
"""Code of an entry that was settled as such."""
KILLS = "kills-the-process"
_KILLS = KILLS.encode()
_UNDECIDED = (FailureClass.TRANSIENT.encode(), FailureClass.UNKNOWN.encode())


class State(StrEnum):
    """Unresolved: `dead` waits for a person, `waiting` for an earlier entry of its key, `retrying` for its time,
    `unknown` for a person who finds out whether the target has acted. Markers, body-less, for records that a rewind
    may bring back: `discarded`, `revised` (an edited entry that took effect)."""

    DEAD = "dead"
    WAITING = "waiting"
    RETRYING = "retrying"
    UNKNOWN = "unknown"
    DISCARDED = "discarded"
    REVISED = "revised"

    @property
    def is_marker(self) -> bool:
        return self in (State.DISCARDED, State.REVISED)


@dataclass(slots=True)
class Entry:
    """One entry's newest version, without its body. `key`: the original record's. `version`: its offset in the
    dead-letter topic. `appended_ms`: when the broker took that version. `edit` counts revisions of the body."""

    topic_id: str
    partition: int
    offset: int
    key: bytes | None
    version: int
    state: State
    size_bytes: int
    attempts: int = 0
    appended_ms: int = 0
    retry_after_ms: int = 0
    first_failed_ms: int = 0
    edit: int = 0

    def renewed(self, **changes: object) -> Entry:
        return replace(self, **changes)  # type: ignore[arg-type]


def entry_of(record: Record) -> Entry:
    """Reads what the engine itself goes by. Raises `FormatError` for another format version; not for tombstones."""
    headers = dict(record.headers)
    version = headers.get(FORMAT)
    try:
        if version == b"1":
            return Entry(
                sys.intern(_text(headers[TOPIC_ID])),  # of all entries the same
                int(headers[PARTITION] or b""),
                int(headers[OFFSET] or b""),
                headers.get(KEY),
                record.offset,
                _STATES[headers[STATE] or b""],
                len(record.value or b""),
                int(headers.get(ATTEMPTS) or b"0"),
                record.timestamp_ms,
                int(headers.get(RETRY_AFTER) or b"0"),
                _ms_of(headers.get(FIRST_FAILED)),
                int(headers.get(EDIT) or b"0"),
            )
    except (KeyError, ValueError):
        pass
    raise FormatError(
        f"a dead-letter entry of format version {version!r} cannot be read, only {FORMAT_VERSION} can",
        hint="a newer Heddle or another program wrote it: run that version, or move the record",
    )


def original_of(record: Record) -> Record:
    """The record that an entry was made of, as its subscription read it, or as edited since."""
    headers = dict(record.headers)
    return Record(
        _text(headers[TOPIC]),
        int(headers[PARTITION] or b""),
        int(headers[OFFSET] or b""),
        headers.get(KEY),
        None if NULL_VALUE in headers else record.value,
        [(name, value) for name, value in record.headers if not is_ours(name)],
        int(headers[TIMESTAMP] or b"-1"),
    )


def may_have_effect(record: Record) -> bool:
    """Whether a try of an entry may have taken effect at a target all the same: it ended without an answer, or with the
    process, and none since has had one. A person who found out that it did not has said so in the code."""
    headers = dict(record.headers)
    code = headers.get(CODE)
    if code == NOT_APPLIED.encode():
        return False
    return code == _KILLS or headers.get(CLASS) in _UNDECIDED or headers.get(EFFECT) == UNDECIDED


@dataclass(frozen=True, slots=True)
class Envelope:
    """Builds the entries of one subscription. `wall_ms`: the clock that their times are read from."""

    subscription: str
    dead_letter_topic: str
    topic_id: str
    handler: str
    wall_ms: Callable[[], int] = SystemClock().wall_ms

    def failed(
        self, record: Record, failure: Failure, state: State, *, retry_after_ms: int = 0, was: Entry | None = None,
        earlier: Record | None = None,
    ) -> Outgoing:  # fmt: skip
        """The entry of a record that failed. `was` and `earlier`: its entry so far, and that entry's record."""
        now = self._now()
        error = failure.error
        first_failed = _header(earlier, FIRST_FAILED) if earlier is not None else ""
        why = {
            CLASS: failure.failure_class,
            CODE: failure.code,
            PATH: failure.path,
            FINGERPRINT: fingerprint(failure),
            EXCEPTION: "" if error is None else f"{type(error).__module__}.{type(error).__qualname__}",
            MESSAGE: failure.message,
            STACK: "" if error is None or is_of_data(failure) else stack_of(error),
            ATTEMPTS: str(1 if was is None else was.attempts + 1),
            FIRST_FAILED: first_failed or now,
            LAST_FAILED: now,
            RETRY_AFTER: str(retry_after_ms) if state is State.RETRYING else "",
        }
        return self._entry(record, state, why, was, earlier)

    def waiting(self, record: Record, blocked_by: str) -> Outgoing:
        """The entry of a record that was not attempted because an earlier one of its key is parked."""
        return self._entry(record, State.WAITING, {BLOCKED_BY: blocked_by, ATTEMPTS: "0"})

    def imported(self, record: Record, topic_id: str, failure: Iterable[tuple[str, str]]) -> Outgoing:
        """The dead entry of a record that another system parked."""
        why = {LAST_FAILED: self._now(), ATTEMPTS: "0"} | {name: text for name, text in failure if name in _WHY}
        return replace(self, topic_id=topic_id)._entry(record, State.DEAD, why)

    def moved(self, record: Record, state: State, **changes: str) -> Outgoing:
        """An entry's record in another state, all else as it was; `changes`: header texts by constant's name."""
        ours = {STATE: state.encode()} | {globals()[name]: _bytes(text) for name, text in changes.items()}
        dropped = {RETRY_AFTER, *ours}
        headers = [(n, v) for n, v in record.headers if n not in dropped] + list(ours.items())
        return Outgoing(self.dead_letter_topic, record.key, record.value or b"", headers, record.partition)

    def edited(self, record: Record, body: bytes | None, *, run: bool = False) -> Outgoing:
        """An entry's record with a new body; `run`: due at once. The first original stays beside every revision."""
        headers = dict(record.headers)
        kept = [(n, v) for n, v in record.headers if n not in (STATE, EDIT, NULL_VALUE, RETRY_AFTER)]
        if ORIGINAL not in headers:
            kept.append((ORIGINAL, record.value or b""))
            if NULL_VALUE in headers:
                kept.append((ORIGINAL_NULL, b"null"))
        if body is None:
            kept.append((NULL_VALUE, b"null"))
        state = State.RETRYING if run else State.DEAD
        kept += [(STATE, state.encode()), (EDIT, b"%d" % (int(headers.get(EDIT) or b"0") + 1))]
        return Outgoing(self.dead_letter_topic, record.key, body or b"", kept, record.partition)

    def marker(self, record: Record, state: State) -> Outgoing:
        """Body-less, with the original headers (they hold the identity): what a rewind must not bring back."""
        kept = [(n, v) for n, v in record.headers if n not in _OF_BODIES and n != STATE]
        return Outgoing(self.dead_letter_topic, record.key, b"", [*kept, (STATE, state.encode())], record.partition)

    def resolved(self, entry: Entry) -> Outgoing:
        """The tombstone."""
        key = entry_key(entry.topic_id, entry.partition, entry.offset, entry.key)
        return Outgoing(self.dead_letter_topic, key, None, (), entry.partition)

    def _now(self) -> str:
        return event_time(datetime.fromtimestamp(self.wall_ms() / 1000, UTC))

    def _entry(
        self, record: Record, state: State, why: dict[str, str], was: Entry | None = None, earlier: Record | None = None
    ) -> Outgoing:
        parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
        topic_id = self.topic_id if was is None else was.topic_id
        headers = [(name, value) for name, value in record.headers if not is_ours(name)]
        headers += [(name, _bytes(text)) for name, text in self._origin(record, parsed, state, topic_id).items()]
        if record.key is not None:
            headers.append((KEY, record.key))
        if record.value is None:
            headers.append((NULL_VALUE, b"null"))
        headers += [(name, _bytes(text)) for name, text in why.items() if text]
        if earlier is not None:
            headers += [(n, v) for n, v in earlier.headers if n in (EDIT, ORIGINAL, ORIGINAL_NULL)]
            if why.get(CLASS) == FailureClass.CONTRACT and may_have_effect(earlier):
                headers.append((EFFECT, UNDECIDED))
        key = entry_key(topic_id, record.partition, record.offset, record.key)
        return Outgoing(self.dead_letter_topic, key, record.value or b"", headers, record.partition)

    def _origin(self, record: Record, parsed: ParsedHeaders, state: State, topic_id: str) -> dict[str, str]:
        return {
            FORMAT: str(FORMAT_VERSION),
            STATE: state,
            TOPIC: record.topic,
            TOPIC_ID: topic_id,
            PARTITION: str(record.partition),
            OFFSET: str(record.offset),
            TIMESTAMP: str(record.timestamp_ms),
            SUBSCRIPTION: self.subscription,
            HANDLER: self.handler,
            ROOT: parsed.root.decode(errors="replace"),
            TRACE: (parsed.traceparent or b"").decode(),
        }


_STATES = {state.encode(): state for state in State}
_WHY = frozenset({CLASS, CODE, PATH, FINGERPRINT, EXCEPTION, MESSAGE, STACK, ATTEMPTS, FIRST_FAILED, LAST_FAILED})
_OF_BODIES = frozenset({STACK, ORIGINAL, ORIGINAL_NULL, NULL_VALUE, RETRY_AFTER, BLOCKED_BY})


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
    """The innermost frames, then what was raised: where it broke matters more than how it got there. Without the marks
    that Python puts under each line: it would compile the lines for them."""
    stack = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
    frames = redact("".join(stack.format()))[-MAX_STACK_CHARS:]
    return f"{frames}{type(error).__qualname__}: {message_of(error)}"


def _header(record: Record | None, name: str) -> str:
    return "" if record is None else _text(dict(record.headers).get(name))


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="backslashreplace")


def _bytes(text: str) -> bytes:
    # Text out of JSON may hold half a surrogate pair, which UTF-8 does not take.
    return text.encode(errors="backslashreplace")


def _ms_of(time: bytes | None) -> int:
    """Milliseconds of an `event_time` text; 0 for none."""
    return int(datetime.fromisoformat(time.decode()).timestamp() * 1000) if time else 0
