"""Entries as lines of a file: out of one subscription, into another, byte by byte the same.

A line is JSON. Key, value and header values are base64; headers keep order and duplicates. A file that comes from
elsewhere is not trusted: sizes are bounded, every field is checked, and nothing is taken unless all of it can be read.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Final, NamedTuple

import orjson

from heddle.broker.log import Reader, Record
from heddle.delivery import envelope
from heddle.delivery.classify import MAX_MESSAGE_CHARS
from heddle.delivery.command import Foreign, PlanHeader
from heddle.delivery.envelope import MAX_STACK_CHARS, State, is_ours, original_of
from heddle.errors import FailureClass, UsageError
from heddle.event import event_time
from heddle.operations.dead_letters.entries import EntryView, Shelf, text_of, view_of
from heddle.operations.dead_letters.importing import MAX_BYTES, MAX_RECORDS, Gathered, Incoming, origin_of
from heddle.operations.dead_letters.plan import LeftOut, Place, ReplayPlan

FORMAT_VERSION: Final = 1
MAX_LINE_BYTES: Final = 8 * 2**20
MAX_FILE_BYTES: Final = 2 * MAX_BYTES
MAX_TOLD_LINES: Final = 20
TIMEOUT_S: Final = 30.0

_FETCHED_BYTES: Final = 16 * 2**20
_ENVELOPE_BYTES: Final = 8 * 1024

_BODIES: Final = frozenset({envelope.KEY, envelope.ORIGINAL, envelope.ORIGINAL_NULL, envelope.NULL_VALUE})
_TOPIC: Final = re.compile(r"[A-Za-z0-9._:-]{1,300}")
"""Of an imported entry both topic and topic id are its origin."""

_NAME: Final = re.compile(r"[!-~]{1,400}")
_TIMES_FORM: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,15}(Z|[+-]\d\d:\d\d)")


class Exported(NamedTuple):
    """One line, read back."""

    incoming: Incoming
    state: State
    is_edited: bool


@dataclass(slots=True)
class Import:
    """`states` counts the entries that are taken, as they were where they come from."""

    plan: ReplayPlan
    states: Counter[State] = field(default_factory=Counter)
    edited: int = 0


class UnreadableLinesError(UsageError):
    """Nothing of the file is taken. The lines and what is wrong with each are notes."""

    code = "unreadable-lines"


def export_line(view: EntryView) -> bytes:
    """With its line feed. `view` holds its record."""
    assert view.record is not None
    original = original_of(view.record)
    stored = dict(view.record.headers)
    document = {
        "v": FORMAT_VERSION,
        "entry": view.name,
        "subscription": view.subscription,
        "state": view.state,
        "topic": original.topic,
        "topic_id": view.topic_id,
        "partition": view.partition,
        "offset": view.offset,
        "timestamp_ms": original.timestamp_ms,
        "version": view.version,
        "appended_ms": view.appended_ms,
        "key": _packed(original.key),
        "value": _packed(original.value),
        "headers": [[name, _packed(value)] for name, value in original.headers],
        "before_edits": _before_edits(view.record),
        "envelope": {name: text_of(value) for name, value in stored.items() if is_ours(name) and name not in _BODIES},
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def export_lines(reader: Reader, shelf: Shelf, views: Iterable[EntryView]) -> Iterator[bytes]:
    """The lines of these entries, as they are in those versions; what has changed since is passed over."""
    for chunk in _chunks(sorted(views, key=lambda view: (view.partition, view.version))):
        partition, versions = chunk[0].partition, [view.version for view in chunk]
        found = reader.fetch(shelf.subscription.dead_letter_topic, partition, versions, TIMEOUT_S)
        for record in found.values():
            if record.value is not None:
                yield export_line(view_of(record, shelf, keep_body=True))


def read_lines(file: BinaryIO) -> list[Exported]:
    """Raises `UnreadableLinesError` when a line cannot be read, and `UsageError` for more than one plan may hold."""
    found: list[Exported] = []
    problems: list[str] = []
    size = 0
    for number, line in _lines(file):
        size += len(line)
        if len(found) == MAX_RECORDS or size > MAX_FILE_BYTES:
            raise _too_large()
        try:
            found.append(read_line(line))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise _unreadable(problems, len(found) + len(problems))
    return found


def read_line(line: bytes) -> Exported:
    """Raises `ValueError` saying what is wrong, without content of the line."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
    document = _document(line)
    get = _Fields(document)
    topic, topic_id = get.text("topic", _TOPIC), get.text("topic_id", _TOPIC)
    partition, offset = get.number("partition", 0, 2**31), get.number("offset", 0, 2**63)
    foreign = Foreign(
        # An entry that was imported already keeps its origin, so that it stays one entry wherever it goes.
        topic if topic == topic_id else origin_of(topic, partition, topic_id),
        offset,
        get.data("key"),
        get.data("value"),
        _headers(document.get("headers")),
        get.number("timestamp_ms", -1, 2**63),
        _failure(document.get("envelope")),
    )
    state = _state(document.get("state"))
    incoming = Incoming(foreign, partition, get.text("entry", _NAME), Place(topic_id, partition, offset))
    return Exported(incoming, state, document.get("before_edits") is not None)


def import_plan(gathered: Gathered, lines: Iterable[Exported], header: PlanHeader) -> Import:
    made = Import(ReplayPlan(header, (), ()))
    for line in lines:
        if line.state is State.UNKNOWN:
            reason = "nobody knows whether its target has acted: settle it where it comes from"
            gathered.left_out.append(LeftOut(line.incoming.told, line.state, reason))
        elif gathered.take(line.incoming):
            made.states[line.state] += 1
            made.edited += line.is_edited
    made.plan = gathered.plan(header)
    return made


def _chunks(views: Iterable[EntryView]) -> Iterator[list[EntryView]]:
    """Of one partition each, and of as much as may be in memory."""
    chunk: list[EntryView] = []
    size = 0
    for view in views:
        more = view.size_bytes + _ENVELOPE_BYTES
        if chunk and (view.partition != chunk[0].partition or size + more > _FETCHED_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(view)
        size += more
    if chunk:
        yield chunk


class _Fields:
    """A line's fields, each with its type."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def text(self, name: str, form: re.Pattern[str]) -> str:
        value = self._document.get(name)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ValueError(f"{name} is not of its form")
        return value

    def number(self, name: str, first: int, beyond: int) -> int:
        value = self._document.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not first <= value < beyond:
            raise ValueError(f"{name} is no number that it may be")
        return value

    def data(self, name: str) -> bytes | None:
        if name not in self._document:
            raise ValueError(f"{name} is missing")
        return _unpacked(self._document[name], name)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1, empty ones left out. Of a line that is too long the beginning alone."""
    number, passed = 0, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
            passed += len(rest)
            if passed > MAX_FILE_BYTES:
                raise _too_large()
        if line.strip():
            yield number, line


def _too_large() -> UsageError:
    return UsageError(
        f"the file holds more than one plan may: {MAX_RECORDS:,} entries, {MAX_FILE_BYTES // 2**20} MiB",
        hint="cut it into several, for example with `split -l 10000`",
    )


def _document(line: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(line)
    except ValueError:
        raise ValueError("no JSON") from None
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    if document.get("v") != FORMAT_VERSION or document["v"] is True:
        raise ValueError(f"not of format version {FORMAT_VERSION}, which `heddle dlq export` writes")
    return document


def _headers(listed: Any) -> tuple[tuple[str, bytes | None], ...]:
    if not isinstance(listed, list):
        raise ValueError("headers is no list")
    headers = []
    for pair in listed:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ValueError("a header is not a pair of name and value")
        if is_ours(pair[0]):
            raise ValueError("a header's name begins with heddle-, which is reserved")
        headers.append((sys.intern(pair[0]), _unpacked(pair[1], "a header's value")))
    return tuple(headers)


def _failure(told: Any) -> tuple[tuple[str, str], ...]:
    """What the owner takes over, which has to be able to read it again."""
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        raise ValueError("envelope is no object of texts")
    return tuple((name, check(told[name])) for name, check in _CHECKS.items() if told.get(name))


def _class(text: str) -> str:
    if text not in set(FailureClass):
        raise ValueError(f"{envelope.CLASS} is no failure class")
    return text


def _attempts(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{envelope.ATTEMPTS} is no number")
    return text


def _time(text: str) -> str:
    try:
        if _TIMES_FORM.fullmatch(text):
            return event_time(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time is not of the form 2026-03-01T09:30:00Z")


def _cut(text: str) -> str:
    return text[:MAX_MESSAGE_CHARS]


_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    envelope.CLASS: _class,
    **dict.fromkeys((envelope.CODE, envelope.PATH, envelope.FINGERPRINT, envelope.EXCEPTION, envelope.MESSAGE), _cut),
    envelope.STACK: lambda text: text[-MAX_STACK_CHARS:],
    envelope.ATTEMPTS: _attempts,
    envelope.FIRST_FAILED: _time,
    envelope.LAST_FAILED: _time,
}


def _state(told: Any) -> State:
    if isinstance(told, str) and told in set(State) and not State(told).is_marker:
        return State(told)
    raise ValueError("state is none of an unresolved entry")


def _before_edits(record: Record) -> dict[str, Any] | None:
    headers = dict(record.headers)
    if envelope.ORIGINAL not in headers:
        return None
    return {"value": None if envelope.ORIGINAL_NULL in headers else _packed(headers[envelope.ORIGINAL])}


def _unreadable(problems: Sequence[str], lines: int) -> UnreadableLinesError:
    error = UnreadableLinesError(
        f"{len(problems):,} of {lines:,} lines cannot be read; nothing is imported",
        hint="correct them or take them out, then plan again",
    )
    for problem in problems[:MAX_TOLD_LINES]:
        error.add_note(problem)
    if len(problems) > MAX_TOLD_LINES:
        error.add_note(f"… {len(problems) - MAX_TOLD_LINES:,} more")
    return error


def _packed(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _unpacked(text: Any, name: str) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{name} is not base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64") from None
